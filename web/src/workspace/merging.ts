/** Two texts side by side: a conflict, or what has changed since the last commit. */
import { syntaxHighlighting } from "@codemirror/language";
import { Chunk, MergeView } from "@codemirror/merge";
import { EditorState, Text } from "@codemirror/state";
import { EditorView, highlightSpecialChars, lineNumbers } from "@codemirror/view";
import { style, theme } from "./looks";

const shared = [
  lineNumbers(),
  highlightSpecialChars(),
  syntaxHighlighting(style),
  theme,
  EditorView.theme({
    ".cm-changedLine": { backgroundColor: "var(--changed)" },
    ".cm-changedText": { background: "var(--found)" },
    ".cm-deletedChunk": { backgroundColor: "var(--removed)" },
  }),
];

export interface Merging {
  /** The right side as it is now. */
  text: () => string;
  /** What both have: where they differ, the left one's lines and then the right one's. */
  both: () => string;
  destroy: () => void;
}

/** `edit`: the right side can be changed, and lines of the left one taken. */
export function merge(
  parent: HTMLElement,
  left: string,
  right: string,
  edit: boolean,
  names: [string, string],
): Merging {
  const side = (doc: string, readOnly: boolean, label: string): { doc: string; extensions: object[] } => ({
    doc,
    extensions: [
      shared,
      EditorState.readOnly.of(readOnly),
      EditorView.contentAttributes.of({ "aria-label": label }),
    ],
  });
  const view = new MergeView({
    a: side(left, true, names[0]) as never,
    b: side(right, !edit, names[1]) as never,
    parent,
    gutter: true,
    highlightChanges: true,
    collapseUnchanged: { margin: 3, minSize: 8 },
    ...(edit ? { revertControls: "a-to-b" as const } : {}),
  });
  return {
    text: () => view.b.state.doc.toString(),
    both: () => both(view.a.state.doc, view.b.state.doc),
    destroy: () => view.destroy(),
  };
}

export function both(a: Text, b: Text): string {
  let out = "";
  let at = 0;
  for (const chunk of Chunk.build(a, b)) {
    out += b.sliceString(at, Math.min(chunk.fromB, b.length));
    let lines = a.sliceString(Math.min(chunk.fromA, a.length), Math.min(chunk.toA, a.length));
    if (lines && !lines.endsWith("\n") && chunk.toB > chunk.fromB) lines += "\n";
    if (lines && out && !out.endsWith("\n")) out += "\n";
    out += lines;
    at = Math.min(chunk.fromB, b.length);
  }
  const rest = b.sliceString(at);
  return out && rest && !out.endsWith("\n") && at > 0 && b.sliceString(at - 1, at) === "\n"
    ? `${out}\n${rest}`
    : out + rest;
}
