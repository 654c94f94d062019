/** Light or dark: as the system has it, until somebody says otherwise. */

const KEY = "legwork.theme";

export function restoreTheme(): void {
  const theme = localStorage.getItem(KEY);
  if (theme) document.documentElement.dataset.theme = theme;
}

export function switchTheme(): void {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem(KEY, next);
  dispatchEvent(new Event("legwork:theme"));
}
