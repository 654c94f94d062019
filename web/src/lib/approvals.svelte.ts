/** What waits for a person's yes, live by events. */
import { get, Refused, request } from "./api";
import type { Approval, ApprovalPage } from "./contract";
import { Parser } from "./events";

const RETRY_MS = 1000;

export class Approvals {
  items = $state<Approval[] | null>(null);
  /** Set while the hub can't be reached: since when. */
  lostSince = $state<number | null>(null);
  refusal = $state<Refused | null>(null);
  private stop = new AbortController();

  constructor() {
    void this.follow();
  }

  end(): void {
    this.stop.abort();
  }

  async load(): Promise<void> {
    this.items = (await get<ApprovalPage>("/approvals?limit=100")).items;
    this.lostSince = null;
    this.refusal = null;
  }

  private async follow(): Promise<void> {
    const signal = this.stop.signal;
    while (!signal.aborted) {
      try {
        const response = await request("/approval-events", { signal });
        const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
        const parser = new Parser();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          for (const event of parser.feed(value)) {
            if (event.kind === "reset") await this.load();
            else if (event.kind === "approval") this.put(JSON.parse(event.data) as Approval);
          }
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refused && error.status < 500) {
          this.refusal = error;
          return;
        }
      }
      this.lostSince ??= Date.now();
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  private put(approval: Approval): void {
    const items = this.items ?? [];
    const at = items.findIndex((item) => item.id === approval.id);
    this.items = at < 0 ? [approval, ...items] : items.map((item, i) => (i === at ? approval : item));
  }
}

/** Says yes, to exactly what was shown, or no. */
export async function answer(approval: Approval, yes: boolean, note: string): Promise<void> {
  const body = { ...(yes && { digest: approval.digest }), ...(note.trim() && { note: note.trim() }) };
  const path = `/approvals/${encodeURIComponent(approval.id)}/${yes ? "approve" : "deny"}`;
  await request(path, { method: "POST", body: JSON.stringify(body) });
}
