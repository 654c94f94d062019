/** The hub's REST API as the page uses it. */

export type State =
  | "queued"
  | "delivered"
  | "accepted"
  | "running"
  | "succeeded"
  | "failed"
  | "denied"
  | "cancelled"
  | "timed_out"
  | "expired"
  | "lost";

export interface Runner {
  id: string;
  name: string;
  status: "online" | "offline";
  labels: string[];
  version: string;
  environment: { os?: string; os_version?: string; arch?: string; workspace_root?: string } | null;
  metrics: { cpu_percent?: number; memory_percent?: number; disk_percent?: number } | null;
  open_runs: number;
  last_seen_ms: number;
}

export interface Run {
  id: string;
  runner: string;
  runner_id: string;
  state: State;
  exit_code: number | null;
  error: string | null;
  result: Record<string, unknown> | null;
  queued_at_ms: number;
  started_at_ms: number | null;
  finished_at_ms: number | null;
}

export interface Task {
  id: string;
  operation: string;
  args: Record<string, unknown>;
  state: State;
  created_by: string;
  created_at_ms: number;
  timeout_s: number;
  runs: Run[];
}

export const isOver = (state: State): boolean =>
  !["queued", "delivered", "accepted", "running"].includes(state);

/** What the hub refused, in its own words. */
export class Refused extends Error {
  readonly status: number;

  constructor(status: number, detail: string) {
    super(detail);
    this.status = status;
  }
}

const KEY = "legwork.token";

export const token = {
  get: (): string => localStorage.getItem(KEY) ?? "",
  set: (value: string): void => localStorage.setItem(KEY, value),
  clear: (): void => localStorage.removeItem(KEY),
};

export async function request(
  path: string,
  options: RequestInit = {},
  headers: Record<string, string> = {},
): Promise<Response> {
  const response = await fetch(`/api/v1${path}`, {
    ...options,
    headers: { ...headers, Authorization: `Bearer ${token.get()}` },
  });
  if (!response.ok) {
    const problem: { detail?: string } = await response.json().catch(() => ({}));
    throw new Refused(response.status, problem.detail ?? response.statusText);
  }
  return response;
}

export async function get<T>(path: string): Promise<T> {
  return (await (await request(path)).json()) as T;
}

export async function cancel(id: string): Promise<void> {
  await request(`/tasks/${encodeURIComponent(id)}/cancel`, { method: "POST" });
}

/** What a task is about, for one line. */
export function subject(task: Task): string {
  for (const key of ["command", "path", "pattern", "url", "tool_name", "skill_dir"]) {
    const value = task.args[key];
    if (typeof value === "string") return value;
  }
  const server = task.args["server"] as { name?: unknown } | undefined;
  return typeof server?.name === "string" ? server.name : "";
}
