/** How a file's bytes are text. */

export type Encoding = "utf-8" | "latin1" | "utf-16le" | "utf-16be";
export const ENCODINGS: Record<Encoding, string> = {
  "utf-8": "UTF-8",
  latin1: "Latin-1",
  "utf-16le": "UTF-16 LE",
  "utf-16be": "UTF-16 BE",
};

const BOM = "\ufeff";

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at += 1) bytes[at] = raw.charCodeAt(at);
  return bytes;
}

export function toBase64(bytes: Uint8Array): string {
  let raw = "";
  for (let at = 0; at < bytes.length; at += 0x8000)
    raw += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(raw);
}

/** What bytes that are no UTF-8 most likely are; none for what is no text. */
export function guess(bytes: Uint8Array): Encoding | undefined {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return "utf-16le";
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16be";
  const head = bytes.subarray(0, 8192);
  return head.includes(0) ? undefined : "latin1";
}

/** The text, without its byte-order mark, and whether there was one. */
export function decode(bytes: Uint8Array, encoding: Encoding): { text: string; bom: boolean } {
  let text: string;
  if (encoding === "latin1") {
    text = "";
    for (let at = 0; at < bytes.length; at += 0x8000)
      text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  } else text = new TextDecoder(encoding, { ignoreBOM: true }).decode(bytes);
  const bom = encoding !== "latin1" && text.startsWith(BOM);
  return { text: bom ? text.slice(1) : text, bom };
}

/** The bytes of a text; says which character has none in this encoding. */
export function encode(text: string, encoding: Encoding, bom: boolean): Uint8Array {
  const lone = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/u.exec(text);
  if (lone && encoding !== "utf-16le" && encoding !== "utf-16be")
    throw new Error(
      `${place(text, lone.index)} is half a character, which ${ENCODINGS[encoding]} can't hold`,
    );
  const whole = bom ? BOM + text : text;
  if (encoding === "utf-8") return new TextEncoder().encode(whole);
  if (encoding === "latin1") {
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at += 1) {
      const code = text.charCodeAt(at);
      if (code > 0xff)
        throw new Error(
          `${place(text, at)} is no character of Latin-1: choose another encoding, below at the right`,
        );
      bytes[at] = code;
    }
    return bytes;
  }
  const bytes = new Uint8Array(whole.length * 2);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < whole.length; at += 1)
    view.setUint16(at * 2, whole.charCodeAt(at), encoding === "utf-16le");
  return bytes;
}

function place(text: string, at: number): string {
  const line = text.slice(0, at).split("\n").length;
  const character = String.fromCodePoint(text.codePointAt(at)!);
  const shown = /^[\ud800-\udfff]$/.test(character) ? "the character" : `“${character}”`;
  return `${shown} in line ${line}`;
}
