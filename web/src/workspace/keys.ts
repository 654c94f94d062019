/** Whose key it is. */

/** Whether somebody types into a terminal. */
export const inTerminal = (event: KeyboardEvent): boolean =>
  event.target instanceof Element && event.target.closest(".screen") !== null;

/** What emulators type by themselves, to answer what a program has asked: no key gives these. */
// eslint-disable-next-line no-control-regex
const ANSWER =
  /^\x1b(?:\[[?>=][\d;]*c|\[\??[\d;]+n|\[\??\d+;\d+R|\[\??[\d;]+\$y|\[[\d;]+t|\[\?\d+u|[P\]][^]*)$/;
/** Shifted F3 looks like the place of a cursor in the first line. */
// eslint-disable-next-line no-control-regex
const KEY = /^\x1b\[1;\dR$/;

export const isAnswer = (data: string): boolean => ANSWER.test(data) && !KEY.test(data);

/** Keys that are held down by a touch on the key bar, for the next key alone. */
export interface Modifiers {
  ctrl: boolean;
  alt: boolean;
}

/** What was typed, with what is held down. */
export function modified(data: string, held: Modifiers): string {
  if (data.length !== 1) return data;
  let out = data;
  if (held.ctrl) {
    const code = data.toUpperCase().charCodeAt(0);
    if (code >= 0x40 && code < 0x60) out = String.fromCharCode(code - 0x40);
    else if (data === " ") out = "\u0000";
    else if (data === "?") out = "\u007f";
  }
  if (held.alt) out = `\u001b${out}`;
  held.ctrl = held.alt = false;
  return out;
}
