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
  /** Counts connections that start anew: what was attached has to be attached again. */
  fresh = $state(0);
  token = givenToken();
  readonly socket: Socket;

  constructor() {
    this.socket = io({ auth: (give) => give({ token: this.token || undefined, replay: false }) });
    this.socket.on("connect", () => {
      this.state = "connected";
      if (!this.socket.recovered) this.fresh += 1;
    });
    this.socket.on("disconnect", () => this.lose());
    this.socket.on("connect_error", (error) => {
      if (error.message === "unauthorized") this.state = "refused";
      else this.lose();
    });
  }

  private lose(): void {
    if (this.state === "connected" || this.lostSince === 0) this.lostSince = Date.now();
    this.state = "lost";
  }

  signIn(token: string): void {
    this.token = token;
    sessionStorage.setItem(KEY, token);
    this.state = "connecting";
    this.socket.disconnect().connect();
  }

  /** Asks, and waits for the answer. */
  async ask<T>(event: string, data: object = {}): Promise<T> {
    const answer = (await this.socket.timeout(PATIENCE_MS).emitWithAck(event, data)) as T | Failed;
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
}

export const link = new Link();
