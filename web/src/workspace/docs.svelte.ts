/** The files that are open: their text as it is edited, and as it is on disk. */
import type { EditorState, Text, TransactionSpec } from "@codemirror/state";
import type { EditorView } from "@codemirror/view";
import { decode, encode, fromBase64, guess, toBase64, type Encoding } from "./encodings";
import { plain, restore } from "./endings";
import { files, within } from "./files.svelte";
import { link, RequestError } from "./link.svelte";
import { tell } from "./notices.svelte";

/** Texts above this are not kept for a page that is loaded anew. */
const MOST_DRAFT = 512 * 1024;
const DRAFT_MS = 800;

interface Content {
  content: string;
  digest: string;
  encoding?: string;
  content_base64?: string;
}

export type Ends = "LF" | "CRLF" | "CR" | "mixed";

/** Which ends of lines a text has. */
export function ends(raw: string): Ends {
  const crlf = raw.includes("\r\n");
  const lf = /(^|[^\r])\n/.test(raw);
  const cr = /\r(?!\n)/.test(raw);
  if (Number(crlf) + Number(lf) + Number(cr) > 1) return "mixed";
  return crlf ? "CRLF" : cr ? "CR" : "LF";
}

/** What somebody else has made of a file that is being edited. */
export interface Theirs {
  raw: string;
  digest: string;
}

export class Doc {
  path = $state("");
  kind = $state<"text" | "binary" | "large">("text");
  dirty = $state(false);
  encoding = $state<Encoding>("utf-8");
  endings = $state<Ends>("LF");
  theirs = $state.raw<Theirs | null>(null);
  gone = $state(false);
  /** Why the last save failed. */
  unsaved = $state("");
  saving = $state(false);
  size = $state(0);
  /** Counts the times its text was replaced as a whole. */
  replaced = $state(0);
  state: EditorState | undefined;
  /** As it is on disk: with its own ends of lines, and as the editor has it. */
  raw = "";
  saved: Text | undefined;
  digest = "";
  bom = false;
  readonly views = new Set<EditorView>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(path: string) {
    this.path = path;
  }

  get text(): string {
    return this.state?.doc.toString() ?? "";
  }

  /** An editor has changed it. */
  changed(state: EditorState): void {
    this.state = state;
    this.dirty = !(this.saved && state.doc.eq(this.saved));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.keepDraft(), DRAFT_MS);
  }

  /** Changes it from outside of its editors. */
  dispatch(spec: TransactionSpec): void {
    const [view] = this.views;
    if (view) view.dispatch(spec);
    else if (this.state) this.changed(this.state.update(spec).state);
  }

  private get draftKey(): string {
    return `legwork.draft:${this.path}`;
  }

  keepDraft(): void {
    clearTimeout(this.timer);
    if (!this.dirty) {
      sessionStorage.removeItem(this.draftKey);
      return;
    }
    const text = this.text;
    if (text.length > MOST_DRAFT) return;
    try {
      sessionStorage.setItem(this.draftKey, JSON.stringify({ digest: this.digest, text }));
    } catch {
      // There is no room: the page still asks before it is closed.
    }
  }

  takeDraft(): { digest: string; text: string } | null {
    const kept = sessionStorage.getItem(this.draftKey);
    return kept === null ? null : (JSON.parse(kept) as { digest: string; text: string });
  }

  forgetDraft(): void {
    clearTimeout(this.timer);
    sessionStorage.removeItem(this.draftKey);
  }
}

class Docs {
  all = $state<Doc[]>([]);

  constructor() {
    files.onChange((changes, rescan) => {
      const changed = new Set(changes.map((change) => change.path));
      for (const doc of this.all)
        if (rescan || changed.has(doc.path) || changes.some((c) => within(doc.path, c.path)))
          void this.look(doc);
    });
  }

  get(path: string): Doc | undefined {
    return this.all.find((doc) => doc.path === path);
  }

  /** After a break: what has happened meanwhile. */
  lookAtAll(): void {
    for (const doc of this.all) void this.look(doc);
  }

  private async fetch(path: string): Promise<Content> {
    return link.ask<Content>("fetchContent", { path, digest: true });
  }

  /** What was fetched as text in an encoding; none if it is no text. */
  private read(
    said: Content,
    wanted?: Encoding,
  ): { text: string; encoding: Encoding; bom: boolean } | undefined {
    if (said.content_base64 === undefined && (wanted ?? "utf-8") === "utf-8") {
      const bom = said.content.startsWith("\ufeff");
      return { text: bom ? said.content.slice(1) : said.content, encoding: "utf-8", bom };
    }
    const bytes =
      said.content_base64 === undefined
        ? new TextEncoder().encode(said.content)
        : fromBase64(said.content_base64);
    const encoding = wanted ?? guess(bytes);
    return encoding && { ...decode(bytes, encoding), encoding };
  }

  async open(path: string): Promise<Doc> {
    const there = this.get(path);
    if (there) return there;
    const doc = new Doc(path);
    let content: Content;
    try {
      content = await this.fetch(path);
    } catch (error) {
      if (!(error instanceof RequestError && error.code === "too_large")) throw error;
      const stat = await link.ask<{ size: number }>("file:stat", { path });
      doc.kind = "large";
      doc.size = stat.size;
      return this.add(doc);
    }
    const { makeState } = await import("./code");
    const read = this.read(content);
    if (read === undefined || (read.encoding === "utf-8" && read.text.slice(0, 8192).includes("\u0000"))) {
      doc.kind = "binary";
      doc.digest = content.digest;
      doc.size = (content.content_base64 ?? "").length
        ? fromBase64(content.content_base64!).length
        : content.content.length;
      return this.add(doc);
    }
    this.take(doc, content, read);
    doc.state = makeState(doc, plain(read.text));
    doc.saved = doc.state.doc;
    const draft = doc.takeDraft();
    if (draft && draft.text !== plain(read.text)) {
      doc.dispatch({ changes: { from: 0, to: doc.state.doc.length, insert: draft.text } });
      if (draft.digest === doc.digest) tell(`What was not saved of ${files.relative(path)} is here again.`);
      else {
        doc.theirs = { raw: doc.raw, digest: doc.digest };
        doc.digest = draft.digest;
      }
    }
    return this.add(doc);
  }

  private add(doc: Doc): Doc {
    // A second click may have been faster.
    const there = this.get(doc.path);
    if (there) return there;
    this.all.push(doc);
    return doc;
  }

  private take(doc: Doc, content: Content, read: { text: string; encoding: Encoding; bom: boolean }): void {
    doc.raw = read.text;
    doc.bom = read.bom;
    doc.encoding = read.encoding;
    doc.endings = ends(read.text);
    doc.digest = content.digest;
    doc.theirs = null;
    doc.gone = false;
    doc.unsaved = "";
  }

  /** Another text as a whole: one step that can be undone. */
  private async replace(doc: Doc, raw: string): Promise<void> {
    const { alone, difference } = await import("./code");
    if (!doc.state) return;
    const text = doc.state.toText(plain(raw));
    doc.saved = text;
    doc.dispatch({ changes: difference(doc.state.doc, text), annotations: alone });
    doc.dirty = false;
    doc.forgetDraft();
    doc.replaced += 1;
  }

  /** A file that was changed elsewhere is read again, unless that would lose work. */
  private async look(doc: Doc): Promise<void> {
    if (doc.kind !== "text") return;
    try {
      const content = await this.fetch(doc.path);
      const was = doc.gone;
      doc.gone = false;
      if (content.digest === doc.digest || doc.saving) return;
      const read = this.read(content, doc.encoding === "utf-8" ? undefined : doc.encoding);
      if (!read) return;
      if (doc.dirty || was) {
        doc.theirs = { raw: read.text, digest: content.digest };
        return;
      }
      this.take(doc, content, read);
      await this.replace(doc, read.text);
    } catch (error) {
      if (error instanceof RequestError && ["not_found", "is_directory", "not_a_file"].includes(error.code))
        doc.gone = true;
    }
  }

  /** Reads it anew, in another encoding if need be; what was not saved is lost. */
  async reload(doc: Doc, encoding?: Encoding): Promise<void> {
    const content = await this.fetch(doc.path);
    const read = this.read(content, encoding);
    if (!read) throw new Error("it is no text any more");
    this.take(doc, content, read);
    await this.replace(doc, read.text);
  }

  /** What was moved is still what is open. */
  moved(from: string, to: string): void {
    for (const doc of this.all)
      if (within(doc.path, from)) {
        doc.forgetDraft();
        doc.path = to + doc.path.slice(from.length);
        doc.keepDraft();
      }
  }

  /** `anyway`: whatever is on disk by now. */
  async save(doc: Doc, anyway = false): Promise<void> {
    if (doc.kind !== "text" || !doc.state || doc.saving) return;
    const state = doc.state;
    doc.saving = true;
    doc.unsaved = "";
    try {
      const raw = restore(doc.raw, doc.text);
      const bytes = encode(raw, doc.encoding, doc.bom);
      const content =
        doc.encoding === "utf-8"
          ? { content: doc.bom ? `\ufeff${raw}` : raw }
          : { content_base64: toBase64(bytes) };
      // The digest of what was written, whatever the file has become meanwhile.
      const said = await link.ask<{ digest: string }>("updateContent", {
        path: doc.path,
        ...content,
        digest: true,
        ...(anyway ? {} : { base_digest: doc.digest }),
      });
      doc.saved = state.doc;
      doc.raw = raw;
      doc.digest = said.digest;
      doc.endings = ends(raw);
      doc.theirs = null;
      doc.gone = false;
      doc.dirty = !(doc.state && doc.state.doc.eq(state.doc));
      doc.keepDraft();
    } catch (error) {
      if (error instanceof RequestError && error.code === "conflict") {
        doc.saving = false;
        doc.digest ||= "-";
        await this.look(doc);
        if (!doc.theirs && !doc.gone) doc.unsaved = "it was changed meanwhile";
      } else {
        doc.unsaved = error instanceof Error ? error.message : String(error);
        throw error;
      }
    } finally {
      doc.saving = false;
    }
    // A change that was told while this was under way.
    void this.look(doc);
  }

  /** The conflict is over: this text is what is meant, and theirs is what it is based on. */
  async resolve(doc: Doc, text: string): Promise<void> {
    const { theirs } = doc;
    if (!theirs || !doc.state) return;
    const { alone, difference } = await import("./code");
    doc.raw = theirs.raw;
    doc.digest = theirs.digest;
    doc.saved = doc.state.toText(plain(theirs.raw));
    doc.theirs = null;
    doc.dispatch({ changes: difference(doc.state.doc, doc.state.toText(text)), annotations: alone });
    doc.changed(doc.state);
    doc.replaced += 1;
  }

  /** Other ends of lines, for all of it. */
  setEndings(doc: Doc, kind: Exclude<Ends, "mixed">): void {
    const end = { LF: "\n", CRLF: "\r\n", CR: "\r" }[kind];
    doc.raw = plain(doc.raw).replaceAll("\n", end);
    doc.endings = kind;
    doc.saved = undefined;
    doc.dirty = true;
  }

  close(doc: Doc): void {
    doc.forgetDraft();
    this.all = this.all.filter((one) => one !== doc);
  }
}

export const docs = new Docs();
