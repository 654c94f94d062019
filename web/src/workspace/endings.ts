/** The ends of lines: editors know one kind, files have several, and keep theirs. */

const END = /\r\n|\n|\r/g;

/** A text as an editor has it. */
export const plain = (raw: string): string => raw.replace(END, "\n");

/** An edited text with the ends of lines that it had: lines that were not touched keep theirs,
 * new ones get the most frequent. */
export function restore(raw: string, text: string): string {
  const ends = raw.match(END) ?? [];
  if (ends.every((end) => end === "\n")) return text;
  const count = (kind: string): number => ends.filter((end) => end === kind).length;
  const usual = ["\n", "\r\n", "\r"].sort((a, b) => count(b) - count(a))[0]!;
  const before = raw.split(END);
  const now = text.split("\n");
  const most = Math.min(before.length, now.length);
  let same = 0;
  while (same < most && before[same] === now[same]) same += 1;
  let tail = 0;
  while (tail < most - same && before[before.length - 1 - tail] === now[now.length - 1 - tail]) tail += 1;
  return now
    .map((line, at) => {
      if (at === now.length - 1) return line;
      if (at < same) return line + (ends[at] ?? usual);
      const old = before.length - (now.length - at);
      return line + (at >= now.length - tail && old >= 0 ? (ends[old] ?? usual) : usual);
    })
    .join("");
}
