/** How many columns characters take: as the server's emulator has it, which answers programs. */
import type { IUnicodeVersionProvider } from "@xterm/xterm";
import { NONE, TWO, WIDENED } from "./widths";

/** Where ranges begin and end, in turn. */
function bounds(packed: string): number[] {
  let at = 0;
  return packed.split(" ").map((step) => (at += parseInt(step, 36)));
}

const none = bounds(NONE);
const two = bounds(TWO);
/** What asks for a picture of an emoji makes these as wide as one. */
const widened = bounds(WIDENED);
const PICTURE = 0xfe0f;

/** Whether a number is in one of the ranges: an odd number of bounds is not above it. */
function within(bounds: number[], n: number): boolean {
  let low = 0;
  let high = bounds.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bounds[middle]! <= n) low = middle + 1;
    else high = middle;
  }
  return low % 2 === 1;
}

export function columns(codepoint: number): 0 | 1 | 2 {
  if (codepoint < 0xa0) return 1;
  return within(none, codepoint) ? 0 : within(two, codepoint) ? 2 : 1;
}

/** What xterm.js knows of the character before: its columns are bits 1 and 2; above them is room for what it is. */
const columnsOf = (properties: number): number => (properties >> 1) & 3;

export const provider: IUnicodeVersionProvider = {
  version: "legwork",
  wcwidth: columns,
  charProperties(codepoint, preceding) {
    const width = columns(codepoint);
    if (width > 0) return (codepoint << 3) | (width << 1);
    const before = columnsOf(preceding);
    if (before === 0) return 0;
    const widens = codepoint === PICTURE && before === 1 && within(widened, preceding >> 3);
    return ((preceding >> 3) << 3) | ((widens ? 2 : before) << 1) | 1;
  },
};

const JOINED =
  /(?<=[\p{Extended_Pictographic}\ufe0f\u{1f3fb}-\u{1f3ff}])(?:\u200d(?=\p{Extended_Pictographic})|(?=[\u{1f3fb}-\u{1f3ff}]))/gu;

/** Emoji that a browser would draw as one have the columns of each of them: they are kept apart. */
export const apart = (text: string): string =>
  text.includes("\u200d") || text.includes("\ud83c") ? text.replace(JOINED, "\u200c") : text;
