/** Which ports are listened on, and where their previews are. */
import { link } from "./link.svelte";
import { tell } from "./notices.svelte";

export interface Place {
  port: number;
  listening: boolean;
  /** An address with a key in it, below our own. */
  url: string;
  /** An address of its own, and what lets this browser in there. */
  host: string | null;
  entry: string | null;
}

class Ports {
  all = $state<number[]>([]);
  /** Of the application. */
  usual = $state(3000);
  shown = $state(0);
  onPreview: (port: number) => void = () => undefined;

  constructor() {
    link.socket.on("port:list", (said: { ports: number[]; preview: number }) => {
      this.all = said.ports.sort((a, b) => a - b);
      this.usual = said.preview;
      if (!this.shown) this.shown = said.preview;
    });
    link.socket.on("port:open", ({ port }: { port: number }) => {
      if (!this.all.includes(port)) this.all = [...this.all, port].sort((a, b) => a - b);
      const act = { name: "Preview", run: () => this.onPreview(port) };
      // On a machine that others use as well there may be many.
      tell(`Port ${port} is listening.`, act, "port");
    });
    link.socket.on("port:close", ({ port }: { port: number }) => {
      this.all = this.all.filter((one) => one !== port);
    });
  }

  place(port: number): Promise<Place> {
    const secure = location.protocol === "https:" ? "1" : "0";
    return link.json<Place>(`/api/preview?port=${port}&secure=${secure}`);
  }
}

export const ports = new Ports();

/** The address to open: one of its own where there is one. */
export function address(place: Place, path = "/"): string {
  if (!place.host || !place.entry) return place.url + path.replace(/^\//, "");
  return `${location.protocol}//${place.host}${place.entry}&to=${encodeURIComponent(path)}`;
}
