/** What git knows of the workspace. */
import { files, within } from "./files.svelte";
import { link } from "./link.svelte";

export interface Change {
  path: string;
  /** One letter, as git says it: modified, added, deleted, renamed, unmerged, `?` for untracked. */
  state: string;
  staged: boolean;
}

interface Status {
  repository: boolean;
  branch?: string;
  ahead?: number;
  behind?: number;
  changes?: Change[];
  truncated?: boolean;
  why?: string;
}

const PAUSE_MS = 400;
const EVERY_MS = 10_000;

export const NAMES: Record<string, string> = {
  M: "modified",
  A: "added",
  D: "deleted",
  R: "renamed",
  C: "copied",
  T: "another type",
  U: "in conflict",
  "?": "untracked",
};

class Git {
  status = $state.raw<Status>({ repository: false });
  private texts = $state<Record<string, string | null>>({});
  private asked = new Set<string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private head = "";

  constructor() {
    files.onChange(() => this.soon());
    addEventListener("focus", () => this.soon());
    // Commits happen in a folder that is not watched.
    setInterval(() => !document.hidden && this.soon(), EVERY_MS);
  }

  soon(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.look(), PAUSE_MS);
  }

  async look(): Promise<void> {
    if (!link.socket.connected) return;
    try {
      const status = await link.json<Status & { head?: string }>("/api/git");
      this.status = status;
      if ((status.head ?? "") !== this.head) {
        this.head = status.head ?? "";
        this.texts = {};
        this.asked.clear();
      }
    } catch (error) {
      this.status = { repository: false, why: error instanceof Error ? error.message : String(error) };
    }
  }

  /** The letter of a file, or of a folder in which something has changed. */
  readonly letters = $derived.by(() => {
    const letters = new Map<string, string>();
    for (const change of this.status.changes ?? []) {
      letters.set(change.path, change.state);
      for (
        let at = change.path;
        at.length > files.root.length;
        at = at.slice(0, Math.max(0, at.lastIndexOf("/")))
      )
        if (!letters.has(at)) letters.set(at, "•");
    }
    return letters;
  });

  /** The text in the last commit; null if there is none there, undefined while it is fetched. */
  committed(path: string): string | null | undefined {
    if (!this.status.repository) return undefined;
    const change = this.status.changes?.find((one) => one.path === path || within(path, one.path));
    if (change?.state === "?") return null;
    const text = this.texts[path];
    if (text === undefined && !this.asked.has(path)) {
      this.asked.add(path);
      void this.fetch(path).then(
        (text) => (this.texts[path] = text),
        () => undefined,
      );
    }
    return text;
  }

  /** As in the last commit; null if it is not there. */
  async fetch(path: string): Promise<string | null> {
    const answer = await link.http(`/api/git/file?path=${encodeURIComponent(path)}`);
    return answer.status === 204 ? null : (await answer.text()).replace(/\r\n?/g, "\n");
  }
}

export const git = new Git();
