/** The tree of files. */
import { link } from "./link.svelte";
import { said } from "./notices.svelte";
import { settings } from "./settings.svelte";

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

export interface Change {
  path: string;
  type: string;
}

export const parent = (path: string): string => path.slice(0, path.lastIndexOf("/"));
export const base = (path: string): string => path.slice(path.lastIndexOf("/") + 1);
/** Whether a path is that folder, or in it. */
export const within = (path: string, folder: string): boolean =>
  path === folder || path.startsWith(`${folder}/`);

/** Most entries that one answer has. */
const MOST_NODES = 20_000;

type Listener = (changes: Change[], rescan: boolean) => void;

class Files {
  tree = $state.raw<Node[] | null>(null);
  root = $state("");
  truncated = $state(false);
  trouble = $state("");
  expanded = $state<Record<string, boolean>>({});
  /** Folders with more entries than are shown. */
  cut = $state<string[]>([]);
  private grafts = new Map<string, Node[]>();
  private listeners = new Set<Listener>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    link.socket.on("file:refresh", (said: Refresh) => {
      if (this.root === "" || said.path === this.root) this.show(said);
    });
    link.socket.on("file:changed", (said: { changes: Change[]; rescan?: boolean }) => {
      // Content alone changes nothing in the tree.
      if (said.rescan || said.changes.some((c) => c.type !== "changed")) this.reload();
      for (const listener of this.listeners) listener(said.changes, said.rescan ?? false);
    });
  }

  /** Tells of changes. */
  onChange(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  private show(said: Refresh): void {
    if (this.truncated) this.graft(said.tree);
    this.tree = said.tree;
    this.root = said.path;
    this.truncated = said.truncated ?? false;
    this.note(said);
    if (!this.truncated) this.grafts.clear();
  }

  /** Many changes lead to one look. */
  reload(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.load(), 150);
  }

  async load(): Promise<void> {
    try {
      const asked = await link.ask<Refresh>("fetchDir");
      this.show(asked);
      for (const path of this.grafts.keys()) if (this.expanded[path]) await this.fetch(path);
      this.trouble = "";
    } catch (error) {
      this.trouble = said(error);
    }
  }

  private graft(nodes: Node[]): void {
    for (const node of nodes) {
      const grown = this.grafts.get(node.path);
      if (grown && node.children && node.children.length < grown.length) node.children = grown;
      if (node.children) this.graft(node.children);
    }
  }

  /** Whether a folder's own entries are all there. */
  private note(said: Refresh): void {
    const isCut = (said.truncated ?? false) && said.tree.length >= MOST_NODES;
    if (isCut !== this.cut.includes(said.path))
      this.cut = isCut ? [...this.cut, said.path] : this.cut.filter((path) => path !== said.path);
  }

  /** A folder that a cut tree came without. */
  private async fetch(path: string): Promise<void> {
    try {
      const said = await link.ask<Refresh>("fetchDir", { path });
      this.note(said);
      this.grafts.set(path, said.tree);
    } catch {
      this.grafts.delete(path);
    }
    const tree = this.tree ?? [];
    this.graft(tree);
    this.tree = [...tree];
  }

  toggle(node: Node, open = !this.expanded[node.path]): void {
    this.expanded[node.path] = open;
    // Where a tree was cut even a folder that has some entries may lack others.
    if (open && this.truncated && node.children) void this.fetch(node.path);
  }

  /** Whether the tree has it. */
  has(path: string): boolean {
    let nodes = this.tree ?? [];
    for (;;) {
      const node = nodes.find((one) => within(path, one.path));
      if (!node || node.path === path) return !!node;
      nodes = node.children ?? [];
    }
  }

  /** Opens the folders that a file is in. */
  reveal(path: string): void {
    for (let at = parent(path); at.length > this.root.length; at = parent(at)) this.expanded[at] = true;
  }

  /** What was moved is still what is open. */
  moved(from: string, to: string): void {
    for (const path of Object.keys(this.expanded))
      if (within(path, from)) this.expanded[to + path.slice(from.length)] = this.expanded[path]!;
  }

  relative(path: string): string {
    return within(path, this.root) ? path.slice(this.root.length + 1) : path;
  }

  /** The address of a file over HTTP. */
  address(path: string): string {
    return `/api/files/${this.relative(path).split("/").map(encodeURIComponent).join("/")}`;
  }

  /** The tree's lines as they are shown. */
  get lines(): Line[] {
    const lines: Line[] = [];
    // Names that are no UTF-8 may look alike.
    const seen = new Map<string, number>();
    const add = (nodes: Node[], level: number): void => {
      for (const node of nodes) {
        if (!settings.hidden && node.name.startsWith(".")) continue;
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
