/** Text for people: times, durations, and characters that would deceive. */

/** "3 min ago" */
export function ago(ms: number, now: number): string {
  if (ms === 0) return "never";
  const s = Math.max(0, Math.round((now - ms) / 1000));
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

/** "1.2 s" */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(1)} s`;
  return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
}

export const absolute = (ms: number): string =>
  ms === 0 ? "never" : new Date(ms).toISOString().replace("T", " ").replace("Z", " UTC");

/** Makes control characters, bidirectional marks and invisible blanks visible. */
export function visible(text: string): string {
  return text.replace(
    // eslint-disable-next-line no-control-regex
    /[\u0000-\u0009\u000b-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufe00-\ufe0f\ufeff\uffa0]/g,
    (c) => `\u27e8U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`,
  );
}

/** The same of what has one line alone, as a name: line breaks as well. */
export const visibleLine = (text: string): string => visible(text).replaceAll("\n", "\u27e8U+000A\u27e9");
