/** The tree, and the files that are open. */
import { plain, restore } from "./endings";
import { link, RequestError } from "./link.svelte";

export interface Node {
  name: string;
  type: "file" | "directory";
  path: string;
  children?: Node[];
}

/** A line of the tree. */
export interface Line {
  key: string;
  node: Node;
  level: number;
}

interface Refresh {
  tree: Node[];
  path: string;
  truncated?: boolean;
}

export interface OpenFile {
  path: string;
  text: string;
  /** What is on disk, as far as we know, and with its own ends of lines. */
  saved: string;
  raw: string;
  digest: string;
  /** Somebody else has changed it since. */
  conflict: boolean;
  /** It is not there any more. */
  gone: boolean;
  /** It is no text: shown, not edited. */
  binary: boolean;
}

class Files {
  tree = $state<Node[] | null>(null);
  root = $state("");
  truncated = $state(false);
  trouble = $state("");
  open = $state<OpenFile[]>([]);
  current = $state("");
  expanded = $state<Record<string, boolean>>({});
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    link.socket.on("file:refresh", (said: Refresh) => {
      if (this.root === "" || said.path === this.root) this.show(said);
    });
    link.socket.on(
      "file:changed",
      (said: { changes: { path: string; type: string }[]; rescan?: boolean }) => {
        // Content alone changes nothing in the tree.
        if (said.rescan || said.changes.some((c) => c.type !== "changed")) this.reload();
        const changed = new Set(said.changes.map((c) => c.path));
        for (const file of this.open) if (said.rescan || changed.has(file.path)) void this.look(file);
      },
    );
  }

  private show(said: Refresh): void {
    this.tree = said.tree;
    this.root = said.path;
    this.truncated = said.truncated ?? false;
  }

  /** Many changes lead to one look. */
  reload(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.load(), 150);
  }

  async load(): Promise<void> {
    try {
      this.show(await link.ask<Refresh>("fetchDir"));
      this.trouble = "";
    } catch (error) {
      this.trouble = String(error instanceof Error ? error.message : error);
    }
  }

  get file(): OpenFile | undefined {
    return this.open.find((file) => file.path === this.current);
  }

  private async fetch(path: string): Promise<{ content: string; digest: string; encoding?: string }> {
    return link.ask("fetchContent", { path, digest: true });
  }

  async view(path: string): Promise<void> {
    if (!this.open.some((file) => file.path === path)) {
      const { content, digest, encoding } = await this.fetch(path);
      // A second click may have been faster.
      if (this.open.some((file) => file.path === path)) {
        this.current = path;
        return;
      }
      this.open.push({
        path,
        text: plain(content),
        saved: plain(content),
        raw: content,
        digest,
        conflict: false,
        gone: false,
        binary: encoding !== undefined,
      });
    }
    this.current = path;
  }

  /** A file that was changed elsewhere is read again, unless that would lose work. */
  private async look(file: OpenFile): Promise<void> {
    try {
      const { content, digest } = await this.fetch(file.path);
      file.gone = false;
      if (digest === file.digest) return;
      if (file.text !== file.saved) {
        file.conflict = true;
        return;
      }
      this.take(file, content, digest);
    } catch (error) {
      if (error instanceof RequestError && error.code === "not_found") file.gone = true;
    }
  }

  private take(file: OpenFile, raw: string, digest: string): void {
    const text = plain(raw);
    Object.assign(file, { text, saved: text, raw, digest, conflict: false, gone: false });
  }

  /** What was moved is still what is open. */
  moved(from: string, to: string): void {
    const now = (path: string): string =>
      path === from || path.startsWith(`${from}/`) ? to + path.slice(from.length) : path;
    for (const file of this.open) file.path = now(file.path);
    this.current = now(this.current);
    for (const path of Object.keys(this.expanded)) this.expanded[now(path)] = this.expanded[path]!;
  }

  async save(file: OpenFile, anyway = false): Promise<void> {
    const text = file.text;
    const content = restore(file.raw, text);
    try {
      const base = anyway ? {} : { base_digest: file.digest };
      // The digest of what was written, whatever the file has become meanwhile.
      const said = await link.ask<{ digest: string }>("updateContent", {
        path: file.path,
        content,
        digest: true,
        ...base,
      });
      Object.assign(file, {
        saved: text,
        raw: content,
        digest: said.digest,
        conflict: false,
        gone: false,
      });
      // A change that was told while this was under way.
      void this.look(file);
    } catch (error) {
      if (error instanceof RequestError && error.code === "conflict") file.conflict = true;
      else throw error;
    }
  }

  async revert(file: OpenFile): Promise<void> {
    const { content, digest } = await this.fetch(file.path);
    this.take(file, content, digest);
  }

  close(path: string): void {
    const at = this.open.findIndex((file) => file.path === path);
    this.open = this.open.filter((file) => file.path !== path);
    if (this.current === path) this.current = this.open[Math.min(at, this.open.length - 1)]?.path ?? "";
  }

  /** The tree's lines as they are shown. */
  get lines(): Line[] {
    const lines: Line[] = [];
    // Names that are no UTF-8 may look alike.
    const seen = new Map<string, number>();
    const add = (nodes: Node[], level: number): void => {
      for (const node of nodes) {
        const alike = seen.get(node.path) ?? 0;
        seen.set(node.path, alike + 1);
        lines.push({ key: alike ? `${node.path}\u0000${alike}` : node.path, node, level });
        if (node.children && this.expanded[node.path]) add(node.children, level + 1);
      }
    };
    add(this.tree ?? [], 0);
    return lines;
  }
}

export const files = new Files();
