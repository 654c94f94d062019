/** The hub's REST API as the page uses it. */

import type { Problem, Run, Runner, RunnerStatus, State, Task } from "./contract";

export type { Run, Runner, RunnerStatus, State, Task };

export const isOver = (state: State): boolean =>
  !["queued", "delivered", "held", "accepted", "running"].includes(state);

/** What the hub refused, in its own words. */
export class Refused extends Error {
  readonly status: number;
  /** What is wrong, for programs (docs/api.md); empty where no hub of ours answered. */
  readonly code: string;

  constructor(status: number, detail: string, code = "") {
    super(detail);
    this.status = status;
    this.code = code;
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
    const problem: Partial<Problem> = await response.json().catch(() => ({}));
    throw new Refused(response.status, problem.detail ?? response.statusText, problem.code);
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
