/** What the editor looks like: by the page's own colours. */
import { HighlightStyle } from "@codemirror/language";
import { EditorView } from "@codemirror/view";
import { tags as t } from "@lezer/highlight";

const colour = (name: string): string => `var(--syntax-${name})`;

export const style = HighlightStyle.define([
  { tag: [t.keyword, t.modifier, t.operatorKeyword, t.controlKeyword], color: colour("keyword") },
  { tag: [t.string, t.special(t.string), t.regexp, t.inserted], color: colour("string") },
  { tag: [t.number, t.bool, t.null, t.atom, t.unit], color: colour("number") },
  { tag: [t.comment, t.meta], color: colour("comment"), fontStyle: "italic" },
  { tag: [t.typeName, t.className, t.namespace, t.tagName], color: colour("type") },
  { tag: [t.function(t.variableName), t.function(t.propertyName), t.labelName], color: colour("function") },
  { tag: [t.propertyName, t.attributeName, t.definition(t.propertyName)], color: colour("property") },
  { tag: [t.deleted, t.invalid], color: "var(--bad)" },
  { tag: t.heading, fontWeight: "600", color: colour("keyword") },
  { tag: t.strong, fontWeight: "600" },
  { tag: t.emphasis, fontStyle: "italic" },
  { tag: t.strikethrough, textDecoration: "line-through" },
  { tag: [t.link, t.url], color: "var(--accent)", textDecoration: "underline" },
]);

export const theme = EditorView.theme({
  "&": { height: "100%", backgroundColor: "var(--raised)", color: "var(--text)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.45" },
  ".cm-content": { caretColor: "var(--text)", padding: "8px 0" },
  ".cm-cursor, .cm-dropCursor": { borderLeftColor: "var(--text)", borderLeftWidth: "2px" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    background: "var(--selection)",
  },
  ".cm-gutters": { backgroundColor: "var(--raised)", color: "var(--muted)", border: "0" },
  ".cm-activeLine": { backgroundColor: "var(--line)" },
  ".cm-activeLineGutter": { backgroundColor: "var(--line)", color: "var(--text)" },
  ".cm-foldPlaceholder": { background: "var(--hover)", border: "0", color: "var(--muted)" },
  "&.cm-focused .cm-matchingBracket": {
    backgroundColor: "var(--selection)",
    outline: "1px solid var(--control)",
  },
  ".cm-searchMatch": { backgroundColor: "var(--found)", outline: "1px solid var(--warn)" },
  ".cm-searchMatch-selected": { backgroundColor: "var(--found-now)" },
  ".cm-selectionMatch": { backgroundColor: "var(--hover)" },
  ".cm-specialChar": { color: "var(--bad)" },
  ".cm-panels": { backgroundColor: "var(--surface)", color: "var(--text)", borderColor: "var(--border)" },
  ".cm-panel.cm-search": { fontSize: "13px", padding: "8px 32px 8px 8px" },
  ".cm-panel.cm-search label": {
    display: "inline-flex",
    alignItems: "center",
    gap: "4px",
    margin: "0 8px 0 0",
    fontSize: "12px",
  },
  ".cm-panel.cm-search input[type=checkbox]": { minHeight: "0", margin: "0", accentColor: "var(--accent)" },
  ".cm-panel.cm-search input, .cm-panel.cm-search button": { minHeight: "28px" },
  ".cm-textfield": {
    background: "var(--raised)",
    border: "1px solid var(--control)",
    borderRadius: "var(--radius)",
    fontSize: "13px",
    padding: "4px 8px",
  },
  ".cm-button": {
    background: "var(--raised)",
    border: "1px solid var(--control)",
    borderRadius: "var(--radius)",
    fontSize: "13px",
  },
  ".cm-tooltip": {
    background: "var(--raised)",
    border: "1px solid var(--border)",
    boxShadow: "var(--shadow)",
  },
  ".cm-tooltip-autocomplete ul li[aria-selected]": {
    background: "var(--accent)",
    color: "var(--accent-text)",
  },
  ".cm-changes": { width: "4px", marginLeft: "2px" },
  ".cm-changes .cm-gutterElement": { padding: "0" },
  ".cm-added, .cm-altered": { height: "100%", width: "4px" },
  ".cm-added": { background: "var(--good)" },
  ".cm-altered": { background: "var(--running)" },
  ".cm-removed": { borderTop: "2px solid var(--bad)", width: "8px", height: "0" },
});
