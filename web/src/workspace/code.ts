/** The editor itself, CodeMirror: fetched when the first file is opened. */
import { autocompletion, closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab, isolateHistory } from "@codemirror/commands";
import {
  bracketMatching,
  foldGutter,
  foldKeymap,
  indentOnInput,
  indentUnit,
  LanguageDescription,
  syntaxHighlighting,
} from "@codemirror/language";
import { Chunk, diff } from "@codemirror/merge";
import { gotoLine, highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import {
  Annotation,
  Compartment,
  EditorState,
  RangeSetBuilder,
  StateEffect,
  StateField,
  Text,
  Transaction,
  type ChangeSpec,
  type Extension,
} from "@codemirror/state";
import {
  crosshairCursor,
  drawSelection,
  dropCursor,
  EditorView,
  gutter,
  GutterMarker,
  highlightActiveLine,
  highlightActiveLineGutter,
  highlightSpecialChars,
  keymap,
  lineNumbers,
  rectangularSelection,
} from "@codemirror/view";
import type { Doc } from "./docs.svelte";
import { base } from "./files.svelte";
import { link } from "./link.svelte";
import { style, theme } from "./looks";
import { settings } from "./settings.svelte";

/** A line so long that colours cost more than they tell. */
const LONG_LINE = 100_000;
/** Above this no language is looked for, and no difference drawn in the gutter. */
const LARGE = 4 << 20;

const language = new Compartment();
const choices = new Compartment();
/** Comes from another editor of the same file. */
const copied = Annotation.define<boolean>();

/** Marks beside lines that differ from what was committed. */
class Mark extends GutterMarker {
  constructor(
    readonly kind: string,
    readonly says: string,
  ) {
    super();
  }
  override eq(other: Mark): boolean {
    return other.kind === this.kind;
  }
  override toDOM(): HTMLElement {
    const mark = document.createElement("div");
    mark.className = `cm-${this.kind}`;
    mark.title = this.says;
    return mark;
  }
}
const MARKS = {
  added: new Mark("added", "Added since the last commit"),
  altered: new Mark("altered", "Changed since the last commit"),
  removed: new Mark("removed", "Lines were removed here since the last commit"),
};
const setChanges = StateEffect.define<readonly Chunk[]>();
const changes = StateField.define<readonly Chunk[]>({
  create: () => [],
  update: (value, transaction) => {
    for (const effect of transaction.effects) if (effect.is(setChanges)) return effect.value;
    return value;
  },
});

const changeGutter = [
  changes,
  gutter({
    class: "cm-changes",
    markers: (view) => {
      const builder = new RangeSetBuilder<GutterMarker>();
      const { doc } = view.state;
      for (const chunk of view.state.field(changes)) {
        if (chunk.fromB > doc.length) break;
        if (chunk.fromB === chunk.toB) {
          const line = doc.lineAt(Math.min(chunk.fromB, doc.length));
          builder.add(line.from, line.from, MARKS.removed);
          continue;
        }
        const mark = chunk.fromA === chunk.toA ? MARKS.added : MARKS.altered;
        const end = Math.min(chunk.toB, doc.length);
        for (let at = chunk.fromB; at < end || at === chunk.fromB;) {
          const line = doc.lineAt(at);
          builder.add(line.from, line.from, mark);
          at = line.to + 1;
        }
      }
      return builder.finish();
    },
  }),
];

/** Draws how a text differs from what was committed; `undefined`: nothing was. */
export function showChanges(view: EditorView, committed: Text | undefined): void {
  const small = committed && committed.length + view.state.doc.length < LARGE;
  const found = small ? Chunk.build(committed, view.state.doc, { scanLimit: 500, timeout: 50 }) : [];
  view.dispatch({ effects: setChanges.of(found) });
}

function chosen(): Extension {
  return [
    EditorState.tabSize.of(settings.tabSize),
    EditorState.readOnly.of(link.looksOnly),
    settings.wrap ? EditorView.lineWrapping : [],
    EditorView.theme({ "&": { fontSize: `${settings.editorFont}px` } }),
  ];
}

/** Two spaces, four or a tab: as the file has it. */
function unit(text: string): string {
  const found = /^(\t| {2,8})(?=\S)/m.exec(text.slice(0, 20_000))?.[1];
  return found ?? "    ";
}

/** The state of a file that is edited. */
export function makeState(doc: Doc, text: string): EditorState {
  const name = base(doc.path);
  const state = EditorState.create({
    doc: text,
    extensions: [
      EditorState.allowMultipleSelections.of(true),
      indentUnit.of(unit(text)),
      lineNumbers(),
      highlightActiveLineGutter(),
      changeGutter,
      foldGutter({ openText: "▾", closedText: "▸" }),
      highlightSpecialChars(),
      history(),
      drawSelection(),
      dropCursor(),
      indentOnInput(),
      syntaxHighlighting(style, { fallback: true }),
      bracketMatching(),
      closeBrackets(),
      autocompletion({ activateOnTyping: false }),
      rectangularSelection(),
      crosshairCursor(),
      highlightActiveLine(),
      highlightSelectionMatches(),
      search({ top: true }),
      keymap.of([
        ...closeBracketsKeymap,
        { key: "Ctrl-g", run: gotoLine },
        ...defaultKeymap,
        ...searchKeymap,
        ...historyKeymap,
        ...foldKeymap,
        indentWithTab,
      ]),
      EditorView.cspNonce.of(document.querySelector<HTMLMetaElement>('meta[name="nonce"]')?.content ?? ""),
      theme,
      language.of([]),
      choices.of(chosen()),
      EditorView.updateListener.of((update) => {
        if (!update.docChanged) {
          doc.state = update.state;
          return;
        }
        doc.changed(update.state);
        if (update.transactions.some((one) => one.annotation(copied))) return;
        for (const view of doc.views)
          if (view !== update.view)
            view.dispatch({
              changes: update.changes,
              annotations: [copied.of(true), Transaction.addToHistory.of(false)],
            });
      }),
    ],
  });
  const longest = text.length > LONG_LINE && text.split("\n").some((line) => line.length > LONG_LINE);
  if (text.length < LARGE && !longest) void colourAs(doc, name);
  return state;
}

async function colourAs(doc: Doc, name: string): Promise<void> {
  const { languages } = await import("@codemirror/language-data");
  const found = LanguageDescription.matchFilename(languages, name);
  if (!found) return;
  const support = await found.load();
  const effects = language.reconfigure(support);
  if (doc.views.size === 0 && doc.state) doc.state = doc.state.update({ effects }).state;
  for (const view of doc.views) view.dispatch({ effects });
}

/** Shows a file in an element. */
export function show(doc: Doc, parent: HTMLElement, label: string): EditorView {
  const state = doc.state!.update({ effects: choices.reconfigure(chosen()) }).state;
  const view = new EditorView({ state, parent });
  view.contentDOM.setAttribute("aria-label", label);
  view.contentDOM.setAttribute("spellcheck", "false");
  doc.views.add(view);
  return view;
}

export const choose = (view: EditorView): void => view.dispatch({ effects: choices.reconfigure(chosen()) });

/** What makes one text of another: only what differs, so that cursors and undo stay. */
export function difference(from: Text, to: Text): ChangeSpec {
  if (from.length + to.length > LARGE) return { from: 0, to: from.length, insert: to };
  return diff(from.toString(), to.toString(), { scanLimit: 500, timeout: 100 }).map((change) => ({
    from: change.fromA,
    to: change.toA,
    insert: to.slice(change.fromB, change.toB),
  }));
}

/** A change that is undone by itself. */
export const alone = isolateHistory.of("full");

/** Goes to a place; lines and columns count from one. */
export function go(view: EditorView, line: number, column = 1): void {
  const { doc } = view.state;
  const at = doc.line(Math.max(1, Math.min(line, doc.lines)));
  const pos = Math.min(at.from + column - 1, at.to);
  view.dispatch({ selection: { anchor: pos }, effects: EditorView.scrollIntoView(pos, { y: "center" }) });
  view.focus();
}

export { merge } from "./merging";
export { openSearchPanel } from "@codemirror/search";
export { redo, undo } from "@codemirror/commands";
