/** The tree, and the files that are open. */
import { link, RequestError } from "./link.svelte";

export interface Node {
  name: string;
  type: "file" | "directory";
  path: string;
  children?: Node[];
}

interface Refresh {
  tree: Node[];
  path: string;
  truncated?: boolean;
}

export interface OpenFile {
  path: string;
  text: string;
  /** What is on disk, as far as we know. */
  saved: string;
  digest: string;
  /** Somebody else has changed it since. */
  conflict: boolean;
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
      this.open.push({
        path,
        text: content,
        saved: content,
        digest,
        conflict: false,
        binary: encoding !== undefined,
      });
    }
    this.current = path;
  }

  /** A file that was changed elsewhere is read again, unless that would lose work. */
  private async look(file: OpenFile): Promise<void> {
    try {
      const { content, digest } = await this.fetch(file.path);
      if (digest === file.digest) return;
      if (file.text !== file.saved) {
        file.conflict = true;
        return;
      }
      Object.assign(file, { text: content, saved: content, digest, conflict: false });
    } catch (error) {
      if (error instanceof RequestError && error.code === "not_found") file.conflict = true;
    }
  }

  async save(file: OpenFile, anyway = false): Promise<void> {
    const content = file.text;
    try {
      const base = anyway ? {} : { base_digest: file.digest };
      // The digest of what was written, whatever the file has become meanwhile.
      const said = await link.ask<{ digest: string }>("updateContent", {
        path: file.path,
        content,
        digest: true,
        ...base,
      });
      Object.assign(file, { saved: content, digest: said.digest, conflict: false });
      // A change that was told while this was under way.
      void this.look(file);
    } catch (error) {
      if (error instanceof RequestError && error.code === "conflict") file.conflict = true;
      else throw error;
    }
  }

  async revert(file: OpenFile): Promise<void> {
    const { content, digest } = await this.fetch(file.path);
    Object.assign(file, { text: content, saved: content, digest, conflict: false });
  }

  close(path: string): void {
    const at = this.open.findIndex((file) => file.path === path);
    this.open = this.open.filter((file) => file.path !== path);
    if (this.current === path) this.current = this.open[Math.min(at, this.open.length - 1)]?.path ?? "";
  }

  /** The tree's lines as they are shown. */
  get lines(): { node: Node; level: number }[] {
    const lines: { node: Node; level: number }[] = [];
    const add = (nodes: Node[], level: number): void => {
      for (const node of nodes) {
        lines.push({ node, level });
        if (node.children && this.expanded[node.path]) add(node.children, level + 1);
      }
    };
    add(this.tree ?? [], 0);
    return lines;
  }
}

export const files = new Files();
