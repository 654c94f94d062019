import "./styles/tokens.css";
import "./styles/base.css";
import { mount } from "svelte";
import { restoreTheme } from "./lib/theme";
import Workspace from "./workspace/Workspace.svelte";

restoreTheme();

// The terminal makes style sheets as it runs: they carry the nonce that the CSP asks for.
const nonce = document.querySelector<HTMLMetaElement>('meta[name="nonce"]')?.content ?? "";
const create = document.createElement.bind(document);
document.createElement = ((name: string, options?: ElementCreationOptions) => {
  const element = create(name, options);
  if (name.toLowerCase() === "style") element.nonce = nonce;
  return element;
}) as typeof document.createElement;

// It colours single characters by the attribute, which the CSP refuses, and could by the
// property, which it does not.
const set = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name: string, value: string): void {
  if (name === "style" && this instanceof HTMLElement) this.style.cssText = value;
  else set.call(this, name, value);
};

mount(Workspace, { target: document.getElementById("app")! });
