/** A task's events over fetch, as EventSource can't carry a token. */
import { Refused, request } from "./api";

export interface TaskEvent {
  id: string;
  kind: string;
  data: string;
}

const RETRY_MS = 1000;

/** Splits server-sent events out of text that arrives in any pieces. */
export class Parser {
  private buffer = "";

  feed(text: string): TaskEvent[] {
    this.buffer += text;
    const events: TaskEvent[] = [];
    let end: number;
    while ((end = this.buffer.indexOf("\n\n")) >= 0) {
      const event: TaskEvent = { id: "", kind: "", data: "" };
      for (const line of this.buffer.slice(0, end).split("\n")) {
        const colon = line.indexOf(":");
        if (colon <= 0) continue;
        const value = line.slice(colon + 1).replace(/^ /, "");
        const field = line.slice(0, colon);
        if (field === "id") event.id = value;
        else if (field === "event") event.kind = value;
        else if (field === "data") event.data += value;
      }
      this.buffer = this.buffer.slice(end + 2);
      if (event.kind) events.push(event);
    }
    return events;
  }
}

/**
 * Follows a task to its end, over any number of broken connections: each resumes
 * after the last event seen.
 */
export async function follow(
  task: string,
  onEvent: (event: TaskEvent) => void,
  onConnection: (live: boolean) => void,
  signal: AbortSignal,
): Promise<void> {
  let last = "";
  while (!signal.aborted) {
    try {
      const headers: Record<string, string> = last ? { "Last-Event-ID": last } : {};
      const response = await request(`/tasks/${encodeURIComponent(task)}/events`, { signal }, headers);
      onConnection(true);
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new Parser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        for (const event of parser.feed(value)) {
          last = event.id || last;
          if (event.kind === "end") return;
          onEvent(event);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) throw error;
    }
    onConnection(false);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
