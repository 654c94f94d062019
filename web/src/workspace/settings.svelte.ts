/** What somebody likes, kept in their browser. */

interface Choices {
  editorFont: number;
  terminalFont: number;
  tabSize: number;
  wrap: boolean;
  hidden: boolean;
  pasteWarning: boolean;
  screenReader: boolean;
  copyOnSelect: boolean;
  sidebar: number;
  bottom: number;
  right: number;
}

const KEY = "legwork.workspace.settings";
const USUAL: Choices = {
  editorFont: 13,
  terminalFont: 13,
  tabSize: 4,
  wrap: false,
  hidden: true,
  pasteWarning: true,
  screenReader: false,
  copyOnSelect: false,
  sidebar: 240,
  bottom: 260,
  right: 480,
};

function stored(): Partial<Choices> {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Choices>;
  } catch {
    return {};
  }
}

export const settings = $state<Choices>({ ...USUAL, ...stored() });

/** Keeps what was chosen; called by the page, within an effect. */
export function keepSettings(): void {
  localStorage.setItem(KEY, JSON.stringify(settings));
}

export const forgetSettings = (): void => void Object.assign(settings, USUAL);

/** Something small of this workspace that is kept for the next visit. */
export function remembered<T>(name: string, otherwise: T): T {
  try {
    const text = localStorage.getItem(`legwork.workspace.${name}`);
    return text === null ? otherwise : (JSON.parse(text) as T);
  } catch {
    return otherwise;
  }
}

export const remember = (name: string, value: unknown): void =>
  localStorage.setItem(`legwork.workspace.${name}`, JSON.stringify(value));
