/** Where what is open stands: groups of tabs side by side. */
import type { EditorView } from "@codemirror/view";
import { docs, type Doc } from "./docs.svelte";
import { files, within } from "./files.svelte";
import { remember, remembered } from "./settings.svelte";

const MOST_GROUPS = 3;

export interface Tab {
  kind: "file" | "diff";
  path: string;
}

export class Group {
  readonly id: number;
  tabs = $state<Tab[]>([]);
  current = $state(0);
  view: EditorView | undefined;

  constructor(id: number) {
    this.id = id;
  }

  get tab(): Tab | undefined {
    return this.tabs[this.current];
  }
}

class Layout {
  groups = $state<Group[]>([new Group(0)]);
  at = $state(0);
  /** On a narrow page, what is shown. */
  pane = $state<"files" | "editor" | "terminal" | "preview">("files");
  sidebar = $state<"files" | "search" | "git" | "more" | "">("files");
  preview = $state(false);
  bottom = $state(true);
  private count = 0;
  /** Where to go in a file as soon as it is shown. */
  wanted: { path: string; line: number; column: number } | undefined;

  get group(): Group {
    return this.groups[this.at] ?? this.groups[0]!;
  }

  get doc(): Doc | undefined {
    const tab = this.group.tab;
    return tab?.kind === "file" ? docs.get(tab.path) : undefined;
  }

  async open(path: string, place?: { line: number; column?: number }): Promise<void> {
    await docs.open(path);
    if (place) this.wanted = { path, line: place.line, column: place.column ?? 1 };
    this.show({ kind: "file", path });
  }

  show(tab: Tab, group = this.group): void {
    const at = group.tabs.findIndex((one) => one.kind === tab.kind && one.path === tab.path);
    if (at >= 0) group.current = at;
    else {
      group.tabs.splice(group.current + 1, 0, tab);
      group.current = Math.min(group.current + 1, group.tabs.length - 1);
    }
    this.pane = "editor";
    this.keep();
  }

  split(): void {
    const tab = this.group.tab;
    if (!tab || this.groups.length >= MOST_GROUPS) return;
    const group = new Group(++this.count);
    group.tabs.push({ ...tab });
    this.groups.splice(this.at + 1, 0, group);
    this.at += 1;
    this.keep();
  }

  /** Takes a tab away; the file with it, if no other tab shows it. */
  close(group: Group, at: number): void {
    const [tab] = group.tabs.splice(at, 1);
    if (group.current >= at && group.current > 0) group.current -= 1;
    if (group.tabs.length === 0 && this.groups.length > 1) {
      this.groups = this.groups.filter((one) => one !== group);
      this.at = Math.min(this.at, this.groups.length - 1);
    }
    if (tab?.kind === "file" && !this.shows(tab.path)) {
      const doc = docs.get(tab.path);
      if (doc) docs.close(doc);
    }
    this.keep();
  }

  private shows(path: string): boolean {
    return this.groups.some((group) => group.tabs.some((tab) => tab.kind === "file" && tab.path === path));
  }

  moved(from: string, to: string): void {
    docs.moved(from, to);
    files.moved(from, to);
    for (const group of this.groups)
      for (const tab of group.tabs) if (within(tab.path, from)) tab.path = to + tab.path.slice(from.length);
    this.keep();
  }

  private keep(): void {
    if (!files.root) return;
    const groups = this.groups.map((group) => ({
      tabs: group.tabs.filter((tab) => tab.kind === "file").map((tab) => tab.path),
      current: group.current,
    }));
    remember(`open:${files.root}`, groups);
  }

  /** Opens what was open when this workspace was last looked at. */
  async restore(): Promise<void> {
    const kept = remembered<{ tabs: string[]; current: number }[]>(`open:${files.root}`, []);
    for (const [n, { tabs, current }] of kept.slice(0, MOST_GROUPS).entries()) {
      const opened: Tab[] = [];
      for (const path of tabs.slice(0, 20))
        await docs.open(path).then(
          () => opened.push({ kind: "file", path }),
          () => undefined,
        );
      if (opened.length === 0) continue;
      let group = this.groups[n];
      if (!group) this.groups.push((group = new Group(++this.count)));
      if (group.tabs.length > 0) continue;
      group.tabs = opened;
      group.current = Math.min(current, opened.length - 1);
    }
  }
}

export const layout = new Layout();
