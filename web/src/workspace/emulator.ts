/** The terminal of a page, xterm.js: fetched when a terminal is looked at. */
import { ClipboardAddon, type IClipboardProvider } from "@xterm/addon-clipboard";
import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { apart, provider } from "./columns";

export interface Emulator {
  terminal: Terminal;
  search: SearchAddon;
  /** What the element it is in has room for. */
  fits: () => { cols: number; rows: number } | undefined;
  /** What is to be written, as it can be drawn. */
  apart: (text: string) => string;
}

/** Programs may put something into the clipboard, and never learn what is in it. */
const writing: IClipboardProvider = {
  readText: () => "",
  writeText: (_, text) => navigator.clipboard.writeText(text).catch(() => undefined),
};

export function emulator(box: HTMLElement, theme: Record<string, string>, fontSize: number): Emulator {
  const terminal = new Terminal({
    fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
    fontSize,
    scrollback: 10_000,
    theme,
    minimumContrastRatio: 4.5,
    allowProposedApi: true,
    macOptionIsMeta: true,
  });
  const fit = new FitAddon();
  const search = new SearchAddon();
  terminal.loadAddon(fit);
  terminal.loadAddon(search);
  terminal.unicode.register(provider);
  terminal.unicode.activeVersion = provider.version;
  terminal.loadAddon(new ClipboardAddon(undefined, writing));
  const open = (event: MouseEvent, address: string): void => {
    // A plain click is for selecting, and for programs.
    if (event.ctrlKey || event.metaKey) window.open(address, "_blank", "noopener,noreferrer");
  };
  terminal.loadAddon(new WebLinksAddon(open));
  // Where the cursor is the server says. In the first line the answer looks like a key, so that it
  // could not be told from what is typed: it must not be made.
  for (const prefix of ["", "?"])
    terminal.parser.registerCsiHandler({ ...(prefix ? { prefix } : {}), final: "n" }, () => true);
  terminal.options.linkHandler = { activate: open };
  terminal.open(box);
  void quicker(terminal);
  return { terminal, search, fits: () => fit.proposeDimensions(), apart };
}

/** Draws by the graphics card where there is one. */
async function quicker(terminal: Terminal): Promise<void> {
  const probe = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (!probe) return;
  const info = probe.getExtension("WEBGL_debug_renderer_info");
  const by = String(probe.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : probe.RENDERER));
  probe.getExtension("WEBGL_lose_context")?.loseContext();
  // Drawn by the processor that way, it would be slower than without.
  if (/swiftshader|llvmpipe|software/i.test(by)) return;
  try {
    const { WebglAddon } = await import("@xterm/addon-webgl");
    const webgl = new WebglAddon();
    webgl.onContextLoss(() => webgl.dispose());
    terminal.loadAddon(webgl);
  } catch {
    // The slower way of drawing stays.
  }
}
