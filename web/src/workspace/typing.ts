/** What is typed into a terminal, on its way: in order, in pieces, and never later than meant. */
import { link, RequestError } from "./link.svelte";

/** Most characters sent at once, without waiting for what was sent before. */
const PIECE = 32 * 1024;
/** Between two attempts with a terminal that does not read. */
const PAUSE_MS = 50;
const INTERRUPT = "\u0003";

export class Typing {
  private readonly id: string;
  private readonly onTrouble: (text: string) => void;
  private waiting = "";
  private busy = false;

  constructor(id: string, onTrouble: (text: string) => void) {
    this.id = id;
    this.onTrouble = onTrouble;
  }

  type(data: string): void {
    // What is typed into a connection that is gone would run whenever it is back.
    if (!link.socket.connected) {
      this.waiting = "";
      this.onTrouble("Not typed: there is no connection. What you type now is not kept for later.");
      return;
    }
    if (data === INTERRUPT) this.waiting = "";
    if (!this.busy && data.length <= PIECE) {
      link.socket.emit("terminal:write", { id: this.id, data });
      return;
    }
    this.waiting += data;
    if (!this.busy) void this.send();
    else if (data === INTERRUPT) link.socket.emit("terminal:write", { id: this.id, data: this.take() });
  }

  private take(): string {
    let end = Math.min(PIECE, this.waiting.length);
    // Not within a character of two halves.
    const last = this.waiting.charCodeAt(end - 1);
    if (end < this.waiting.length && last >= 0xd800 && last < 0xdc00) end -= 1;
    const piece = this.waiting.slice(0, end);
    this.waiting = this.waiting.slice(end);
    return piece;
  }

  private async send(): Promise<void> {
    this.busy = true;
    try {
      while (this.waiting) {
        const data = this.take();
        if (!(await this.piece(data))) break;
      }
    } finally {
      this.busy = false;
    }
  }

  /** Sends a piece as soon as the terminal takes it; false if it never will. */
  private async piece(data: string): Promise<boolean> {
    for (;;) {
      try {
        await link.ask("terminal:write", { id: this.id, data });
        return true;
      } catch (error) {
        if (error instanceof RequestError && error.code === "terminal_busy") {
          await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
          if (link.socket.connected) continue;
        }
        const left = data.length + this.waiting.length;
        this.waiting = "";
        const why = error instanceof Error ? error.message : String(error);
        this.onTrouble(`The last ${left} characters were not typed: ${why}`);
        return false;
      }
    }
  }
}
