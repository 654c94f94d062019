/** The connection to the workspace: one socket, its state, and requests with answers. */
import { io, type Socket } from "socket.io-client";

export interface Failed {
  error: string;
  code: string;
}

export class RequestError extends Error {
  readonly code: string;

  constructor(failed: Failed) {
    super(failed.error);
    this.code = failed.code;
  }
}

const KEY = "legwork.workspace.token";
const PATIENCE_MS = 30_000;
/** A connection that says nothing for so long is gone, whatever the browser believes. */
const SILENCE_MS = 2_000;
const LOOK_MS = 2_500;

/** A token in the address's fragment never reaches a server or its logs. */
function givenToken(): string {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY) ?? "";
}

class Link {
  state = $state<"connecting" | "connected" | "lost" | "refused">("connecting");
  lostSince = $state(0);
  why = $state("");
  /** Counts connections that start anew: what was attached has to be attached again. */
  fresh = $state(0);
  /** Whether this page may change anything. */
  looksOnly = $state(false);
  token = givenToken();
  readonly socket: Socket;
  private asking = false;
  /** When anything was last heard. */
  private heard = 0;

  constructor() {
    this.socket = io({
      auth: (give) => give({ token: this.token || undefined, replay: false }),
      reconnectionDelay: 200,
      reconnectionDelayMax: 1500,
      timeout: 5000,
    });
    this.socket.on("connect", () => {
      this.state = "connected";
      this.why = "";
      if (!this.socket.recovered) this.fresh += 1;
    });
    this.socket.on("disconnect", () => this.lose());
    this.socket.on("connect_error", (error) => {
      if (error.message === "unauthorized") this.state = "refused";
      else {
        this.why = error.message === "too many connections" ? error.message : "";
        this.lose();
        // The server's own word is not followed by another attempt of the library's.
        if (!this.socket.active) setTimeout(() => this.socket.connect(), 2000);
      }
    });
    this.socket.io.on("open", () => {
      this.heard = Date.now();
      this.socket.io.engine.on("packet", () => (this.heard = Date.now()));
    });
    setInterval(() => void this.look(), LOOK_MS);
    addEventListener("online", () => this.wake());
    addEventListener("focus", () => this.wake());
    document.addEventListener("visibilitychange", () => this.wake());
  }

  private lose(): void {
    if (this.state === "connected" || this.lostSince === 0) this.lostSince = Date.now();
    if (this.state !== "refused") this.state = "lost";
  }

  /** Somebody is here again, or the network: no attempt is waited for. */
  private wake(): void {
    if (document.hidden) return;
    if (this.socket.connected) void this.look();
    // An attempt that hangs is given up for another. What was missed is still sent by the server.
    else if (this.state === "lost") this.socket.disconnect().connect();
  }

  /** Whether anybody is there: a network that is gone tells nobody. */
  private async look(): Promise<void> {
    if (this.asking || !this.socket.connected || document.hidden) return;
    this.asking = true;
    const engine = this.socket.io.engine;
    const since = Date.now();
    try {
      await this.socket.timeout(SILENCE_MS).emitWithAck("terminal:list", {});
    } catch {
      // What has come while the page was busy is heard first.
      await new Promise((resolve) => setTimeout(resolve, 100));
      // A long message of ours may stand before the answer: that is no silence.
      const silent = this.heard < since && !engine.writeBuffer.length;
      if (silent && engine === this.socket.io.engine) engine.close();
    } finally {
      this.asking = false;
    }
  }

  signIn(token: string): void {
    this.token = token;
    sessionStorage.setItem(KEY, token);
    this.state = "connecting";
    this.socket.disconnect().connect();
  }

  /** Asks, and waits for the answer. */
  async ask<T>(event: string, data: object = {}): Promise<T> {
    if (!this.socket.connected)
      throw new RequestError({ error: "there is no connection to the workspace", code: "offline" });
    let answer: T | Failed;
    try {
      answer = (await this.socket.timeout(PATIENCE_MS).emitWithAck(event, data)) as T | Failed;
    } catch {
      throw new RequestError({
        error: "no answer came; it is not known whether it was done",
        code: "silent",
      });
    }
    if (answer && typeof answer === "object" && "error" in answer && "code" in answer)
      throw new RequestError(answer as Failed);
    return answer as T;
  }

  async http(path: string, options: RequestInit = {}): Promise<Response> {
    const headers = new Headers(options.headers);
    if (this.token) headers.set("Authorization", `Bearer ${this.token}`);
    const response = await fetch(path, { ...options, headers });
    if (!response.ok) {
      const said = (await response.json().catch(() => ({}))) as Partial<Failed>;
      throw new RequestError({ error: said.error ?? response.statusText, code: said.code ?? "" });
    }
    return response;
  }

  async json<T>(path: string, options: RequestInit = {}): Promise<T> {
    return (await (await this.http(path, options)).json()) as T;
  }
}

export const link = new Link();
