/** What the page says without being asked. */

export interface Notice {
  id: number;
  kind: "news" | "trouble";
  text: string;
  /** A later one about the same takes its place. */
  topic: string;
  /** What can be done about it. */
  act?: { name: string; run: () => void };
}

const MOST = 4;
const NEWS_MS = 12_000;
let count = 0;

export const notices = $state<Notice[]>([]);

export function dismiss(id: number): void {
  const at = notices.findIndex((notice) => notice.id === id);
  if (at >= 0) notices.splice(at, 1);
}

function add(kind: Notice["kind"], text: string, act?: Notice["act"], topic = text): void {
  for (const same of notices.filter((notice) => notice.topic === topic)) dismiss(same.id);
  const id = ++count;
  notices.push({ id, kind, text, topic, ...(act ? { act } : {}) });
  while (notices.length > MOST) notices.shift();
  // Trouble stays until somebody has read it.
  if (kind === "news") setTimeout(() => dismiss(id), NEWS_MS);
}

export const tell = (text: string, act?: Notice["act"], topic?: string): void =>
  add("news", text, act, topic);
export const trouble = (text: string, act?: Notice["act"]): void => add("trouble", text, act);
export const said = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Does something, and says why if it can't be done. */
export async function attempt<T>(what: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    trouble(`${what}: ${said(error)}`);
    return undefined;
  }
}
