/** What is typed into a terminal, on its way: in order, whole or not at all, never later than meant. */
import { link } from "./link.svelte";

/** Most characters that are sent as an event; what is longer goes as a whole first. */
const PIECE = 32 * 1024;
const INTERRUPT = "\u0003";

export class Typing {
  private readonly id: string;
  private readonly onTrouble: (text: string) => void;
  private readonly onLeft: (characters: number) => void;
  /** Typed while something long is on its way. */
  private waiting = "";
  private sending: XMLHttpRequest | undefined;

  /** `onLeft` hears how much of something long is still to be sent. */
  constructor(id: string, onTrouble: (text: string) => void, onLeft: (characters: number) => void) {
    this.id = id;
    this.onTrouble = onTrouble;
    this.onLeft = onLeft;
  }

  type(data: string): void {
    // What is typed into a connection that is gone would run whenever it is back.
    if (!link.socket.connected) {
      this.waiting = "";
      this.onTrouble("Not typed: there is no connection. What you type now is not kept for later.");
      return;
    }
    if (this.sending && data === INTERRUPT) this.waiting = "";
    else if (this.sending) {
      this.waiting += data;
      return;
    }
    if (data.length <= PIECE) this.write(data);
    else this.send(data);
  }

  /** What is on its way is not typed. */
  stop(): void {
    this.waiting = "";
    this.sending?.abort();
  }

  private write(data: string): void {
    link.socket
      .timeout(30_000)
      .emitWithAck("terminal:write", { id: this.id, data })
      .then(
        (said: { error?: string }) => said.error && this.onTrouble(`Not typed: ${said.error}`),
        () => undefined,
      );
  }

  private send(data: string): void {
    const request = new XMLHttpRequest();
    this.sending = request;
    request.open("POST", `/api/terminals/${encodeURIComponent(this.id)}/input`);
    if (link.token) request.setRequestHeader("Authorization", `Bearer ${link.token}`);
    this.onLeft(data.length);
    request.upload.onprogress = (event) =>
      this.onLeft(Math.max(1, Math.round(data.length * (1 - event.loaded / event.total))));
    const over = (trouble?: string): void => {
      this.sending = undefined;
      this.onLeft(0);
      const { waiting } = this;
      this.waiting = "";
      if (trouble) this.onTrouble(trouble);
      else if (waiting) this.type(waiting);
    };
    request.onload = () => {
      if (request.status < 300) return over();
      let why = request.statusText;
      try {
        why = (JSON.parse(request.responseText) as { error?: string }).error ?? why;
      } catch {
        // What is in between has said something of its own.
      }
      over(`What you pasted was not typed: ${why}`);
    };
    request.onerror = () => over("What you pasted was not typed: the connection broke.");
    request.onabort = () => over("What you pasted was not typed: you have stopped it.");
    request.send(data);
  }
}
