/** A resource that is fetched again and again, and says how fresh it is. */
import { get, Refused } from "./api";

const EVERY_MS = 1500;

export class Live<T> {
  data = $state<T | null>(null);
  /** Set while the hub can't be reached: since when. */
  lostSince = $state<number | null>(null);
  refusal = $state<Refused | null>(null);
  private timer: ReturnType<typeof setTimeout> | undefined;
  private stopped = false;

  constructor(private path: string) {
    void this.load();
  }

  async load(): Promise<void> {
    clearTimeout(this.timer);
    try {
      this.data = await get<T>(this.path);
      this.lostSince = null;
      this.refusal = null;
    } catch (error) {
      if (error instanceof Refused && error.status < 500) this.refusal = error;
      else this.lostSince ??= Date.now();
    }
    if (!this.stopped) this.timer = setTimeout(() => void this.load(), EVERY_MS);
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }
}
