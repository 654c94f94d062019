// Made from the contract by `cargo test -p legwork-api`; crates/api says what each field means.

/** What a runner is asked to do. */
export type Action = "bash" | "read" | "write" | "list" | "glob" | "grep" | "webfetch" | "mcp_call" | "mcp_list_tools" | "sync_skill";

/** What waits for a person's yes, or waited. */
export interface Approval {
  /** Who asked, or wrote the line. */
  asked_by: string;
  /** That one's token. Nobody says yes to what was asked with the own token. */
  asked_by_token: TokenId;
  /** The very text that would run, byte for byte. Before people it belongs as `shown`. */
  command: string;
  /** When it began to wait, in milliseconds since 1970. */
  created_at_ms: number;
  /** When it was decided, or ended. */
  decided_at_ms?: number | null;
  /** SHA-256 of all that says what would run. The runner starts nothing of another one. */
  digest: string;
  /** The line that a person wrote in its place. */
  edited?: string | null;
  /** Until when it may be answered. */
  expires_at_ms: number;
  /** Until when the same line of the same asker on the same runner needs no further yes, in milliseconds since 1970. */
  grant_until_ms?: number | null;
  /** Its id. */
  id: ApprovalId;
  /** What is asked for. */
  kind: ApprovalKind;
  /** The line as it was asked for: the runner may have quoted its words. */
  line: string;
  /** What who decided had to say about it. */
  note?: string | null;
  /** The part of the line that it asks about. */
  part: string;
  /** How many people must say yes. */
  persons: number;
  /** Why it was asked for, in the words of who asked. */
  reason?: string | null;
  /** Why an earlier yes to the same run was not good enough for the runner. */
  refused?: string | null;
  /** The rule of the runner's policy that asks. */
  rule: string;
  /** Its run. */
  run: RunId;
  /** The runner that it would run on. */
  runner: string;
  /** That runner's id. */
  runner_id: RunnerId;
  /** The same in pieces, of which those are marked that a person would not see, or take for others. */
  shown: Piece[];
  /** Where it stands. */
  state: ApprovalState;
  /** The task that asks. */
  task: TaskId;
  /** Seconds that it may take. */
  timeout_s: number;
  /** What was said, and by whom. */
  votes: Vote[];
  /** The folder beneath the runner's workspace; empty for the workspace itself. */
  workdir: string;
}

/** The id of an approval, such as `apr_…`. Ids of later ones sort behind those of earlier ones. */
export type ApprovalId = string;

/** What is asked for. */
export type ApprovalKind = "command" | "tool";

/** A page of a list. */
export interface ApprovalPage {
  /** What is on it. */
  items: Approval[];
  /** The `cursor` of the next page; null if this is the last one. */
  next: ApprovalId | null;
}

/** Where an approval stands. */
export type ApprovalState = "waiting" | "approved" | "denied" | "edited" | "expired" | "closed";

/** What is wrong with a request, in one word. */
export type Code = "bad_json" | "bad_body" | "unknown_field" | "bad_query" | "unknown_parameter" | "bad_path" | "bad_event_id" | "incomplete_body" | "no_token" | "unknown_token" | "revoked_token" | "expired_token" | "used_token" | "forbidden" | "own_request" | "no_such_path" | "no_such_task" | "no_such_runner" | "no_such_token" | "no_such_session" | "no_such_secret" | "no_such_approval" | "no_such_release" | "wrong_method" | "key_reused" | "ambiguous_name" | "name_taken" | "last_admin" | "task_over" | "already_decided" | "too_large" | "invalid_field" | "too_many_tokens" | "internal" | "store_failed" | "busy";

/** How many of the runners that match: a number, or `"all"`. */
export type Count = number | "all";

/** What a machine says that enrols. */
export interface Enrolment {
  /** What the runner shall be called; by default what the enrolment token is called. */
  name?: string | null;
}

/** The machine of a runner, as the runner says. */
export interface Environment {
  /** The processor's architecture. */
  arch: string;
  /** The machine's time when it connected. */
  current_time: string;
  /** That user's home folder. */
  home_dir: string;
  /** The machine's name. */
  hostname: string;
  /** How many processors the machine has. */
  num_cpu: number;
  /** The operating system, such as `linux`. */
  os: string;
  /** Its version. */
  os_version: string;
  /** The shell of the runner's user. */
  shell: string;
  /** Its time zone. */
  timezone: string;
  /** Memory in MiB. */
  total_memory_mb: number;
  /** The runner's user. */
  username: string;
  /** That zone's distance from UTC. */
  utc_offset: string;
  /** The folder beneath which files are read and written. */
  workspace_root: string;
}

/** `event: gap`: output is missing, and does not come. */
export interface GapEvent {
  /** The first byte that is missing. */
  from: number;
  /** Why it is missing. */
  reason: string;
  /** The run. */
  run: string;
  /** The stream. */
  stream: string;
  /** The first byte that is there again; null if there is none. */
  to: number | null;
}

/** A new token with its secret, which is shown this once. */
export interface IssuedToken {
  /** When it ends; null for never. */
  expires_at_ms: number | null;
  /** Its id. */
  id: TokenId;
  /** What it is called. */
  name: string;
  /** What it may do. */
  role: Role;
  /** The runner that it was made for. */
  runner_id: RunnerId | null;
  /** The secret. */
  token: string;
}

/** Why a character is marked. */
export interface Mark {
  /** Its code point, such as `U+202E`. */
  code: string;
  /** What is wrong with it, in words. */
  why: string;
}

/** What agents kept of a session. */
export interface Messages {
  /** The messages, oldest first, in the words of the task protocol. */
  items: Record<string, unknown>[];
}

/** The load of a machine in percent; what it could not measure is absent. */
export interface Metrics {
  /** All processors. */
  cpu_percent?: number | null;
  /** The workspace's file system. */
  disk_percent?: number | null;
  /** Memory that is not available. */
  memory_percent?: number | null;
}

/** Whether a call of a tool may be made. The first answer counts. */
export interface NewAnswer {
  /** Whether it may be made. */
  allow: boolean;
  /** Why not: the model is told. */
  note?: string | null;
  /** The call: the event's `tool_id`. */
  tool_id: string;
}

/** What a task is told that runs: one of the two. */
export interface NewInput {
  /** The answer to an event `ask`. */
  answer?: NewAnswer | null;
  /** Words for its agent, 1 to 32768 bytes. It hears them before it asks the model again. */
  say?: string | null;
}

/** A task of pods to be. */
export interface NewPodTask {
  /** The task JSON that docs/task.md describes; its `type` is `agent` or `workflow`, by default `agent`. */
  config: Record<string, unknown>;
  /** Seconds that it may wait for a task runner: 1 to 604800, by default 3600. */
  expires_s?: number | null;
  /** 1 to 200 bytes. The same key with the same body is the same task; with another body it is refused. */
  idempotency_key?: string | null;
  /** Only this task runner. */
  runner?: string | null;
  /** The session that its messages belong to, 1 to 200 bytes. */
  session_id?: string | null;
}

/** A secret to be kept, in place of what was called so. */
export interface NewSecret {
  /** 1 to 100 letters, digits, `-`, `_` and `.`. */
  name: string;
  /** Names of task runners: only they may have it. A name that ends in `*` stands for all that begin so. Empty for all. */
  runners?: string[];
  /** `agent`, `workflow`: only such tasks may have it. Empty for all. */
  tasks?: string[];
  /** Names of tokens: only what they submit may have it. Empty for all. */
  tokens?: string[];
  /** The secret itself: 4 to 32768 bytes without NUL, of which a line has 4 characters or more. It is never shown again. */
  value: string;
}

/** A task to be. */
export interface NewTask {
  /** The operation's arguments; docs/hub.md lists them. */
  args?: Record<string, unknown> | null;
  /** Seconds that a run waits for a runner that is away: 1 to 2592000, by default 86400. */
  expires_s?: number | null;
  /** 1 to 255 bytes. The same key with the same body is the same task; with another body it is refused. */
  idempotency_key?: string | null;
  /** What to do. */
  operation: Action;
  /** Why it is asked for, at most 1000 bytes: people read it who are asked for their yes. */
  reason?: string | null;
  /** Which runners it is for. The set is fixed when the task is taken. */
  select: Select;
  /** Seconds that it may take, from the start of the command: 1 to 604800, by default 120. */
  timeout_s?: number | null;
}

/** A token to be. */
export interface NewToken {
  /** Seconds until it ends, at most ten years; by default it does not end. */
  expires_s?: number | null;
  /** What it is called, 1 to 100 bytes; a runner's token gives the runner this name. */
  name: string;
  /** What it may do. */
  role: Role;
}

/** A no. */
export interface No {
  /** What there is to say about it, at most 1000 bytes: who asked reads it. */
  note?: string | null;
}

/** `event: output`: a piece of what a command wrote. */
export interface OutputEvent {
  /** The text. */
  data: string;
  /** `base64` where the bytes are no UTF-8: `data` is then encoded so. */
  encoding?: string | null;
  /** How many bytes of this stream came before. */
  offset: number;
  /** The run. */
  run: RunId;
  /** Where it was written to. */
  stream: Stream;
}

/** A piece of a text. */
export interface Piece {
  /** Why it is marked; absent for plain text. */
  mark?: Mark | null;
  /** The text; of a marked piece one character, as `\u{…}`, `\n`, `\t` or, if it can be seen, itself. */
  text: string;
}

/** What a task of pods is. */
export type PodKind = "agent" | "workflow";

/** A task runner. */
export interface PodRunner {
  /** What it can beyond an original. */
  capabilities: string[];
  /** Its number. */
  id: number;
  /** Where it is reached. */
  ip: string;
  /** When it was heard last, in milliseconds since 1970. */
  last_seen_ms: number;
  /** The name of its pod. */
  name: string;
  /** What it does. */
  status: PodStatus;
  /** The task that it works on. */
  task: PodTaskId | null;
  /** The version of its program; empty for an original. */
  version: string;
}

/** All task runners. */
export interface PodRunners {
  /** The task runners, by name. */
  items: PodRunner[];
}

/** `event: end` of a task of pods, and its `event` whose `type` is `state`: what happened to the task itself. */
export interface PodStateEvent {
  /** When, in milliseconds since 1970. */
  at_ms: number;
  /** What there is to say about it. */
  message: string;
  /** The task runner. */
  runner: string | null;
  /** The state's word. */
  state: string;
}

/** What a task runner does. */
export type PodStatus = "available" | "busy" | "stale";

/** A task of pods. */
export interface PodTask {
  /** How often it was given to a task runner. */
  attempts: number;
  /** The error's code in the words of the task protocol. */
  code: string | null;
  /** As submitted, with its type. Only operators see it, and no list has it. */
  config?: Record<string, unknown> | null;
  /** When it was taken, in milliseconds since 1970. */
  created_at_ms: number;
  /** The name of the token that submitted it. */
  created_by: string;
  /** Why it did not succeed. */
  error: string | null;
  /** Until when it waits for a task runner. */
  expires_at_ms: number;
  /** When it reached its final state. */
  finished_at_ms: number | null;
  /** Its number. */
  id: PodTaskId;
  /** The task runner that has it. */
  runner: string | null;
  /** The session that its messages belong to. */
  session_id: string | null;
  /** When a task runner started it. */
  started_at_ms: number | null;
  /** Where it stands. */
  state: State;
  /** What it is. */
  type: PodKind;
  /** What the model used. */
  usage: Record<string, unknown> | null;
}

/** The number of a task of pods. */
export type PodTaskId = number;

/** A page of a list. */
export interface PodTaskPage {
  /** What is on it. */
  items: PodTask[];
  /** The `cursor` of the next page; null if this is the last one. */
  next: PodTaskId | null;
}

/** An error for who asked. */
export interface Problem {
  /** What is wrong, for programs. Codes stay; there may be new ones. */
  code: Code;
  /** What is wrong, for people. Its words may change. */
  detail: string;
  /** The field or the parameter that is wrong. */
  field?: string | null;
  /** The HTTP status. */
  status: number;
  /** The HTTP status in words. */
  title: string;
  /** `about:blank`: the code says what it is. */
  type: string;
}

/** Where task runners register. */
export interface Registration {
  /** The path, which holds a key. */
  path: string;
  /** The address to put before it; null if it is the one that the hub is asked at. */
  public_url: string | null;
}

/** What a token may do. `viewer`, `operator`, `approver` and `admin` each include the one before; `runner`, `fleet` and `enroll` may only connect and enrol. */
export type Role = "viewer" | "operator" | "approver" | "admin" | "runner" | "fleet" | "enroll";

/** A task on one runner. */
export interface Run {
  /** The approval that it waits for, or the last one that it waited for. */
  approval?: ApprovalId | null;
  /** When it was handed to its runner's connection. */
  delivered_at_ms: number | null;
  /** Why it did not succeed. */
  error: string | null;
  /** The exit status of a command; -1 if a signal ended it. */
  exit_code: number | null;
  /** When it reached its final state. */
  finished_at_ms: number | null;
  /** Its id. */
  id: RunId;
  /** When it began to wait, in milliseconds since 1970. */
  queued_at_ms: number;
  /** What the operation gave; left out of lists. */
  result: Record<string, unknown> | null;
  /** The runner's name when the task was taken. */
  runner: string;
  /** The runner's id. */
  runner_id: RunnerId;
  /** When its runner started it. */
  started_at_ms: number | null;
  /** Where it stands. */
  state: State;
  /** Of a line that was denied: one that does the same and passes, where the runner knows one. */
  suggestion?: string | null;
}

/** The id of a run, such as `run_…`. */
export type RunId = string;

/** A runner, connected or not. */
export interface Runner {
  /** When it became known, in milliseconds since 1970. */
  created_at_ms: number;
  /** What people call it. */
  display_name: string | null;
  /** Whether it is given no new work. */
  drained: boolean;
  /** The machine that it is on; null before its first connection. */
  environment: Environment | null;
  /** Its id. */
  id: RunnerId;
  /** The labels by which it is chosen: its own, and those that were set. */
  labels: string[];
  /** When it was heard last; 0 for never. */
  last_seen_ms: number;
  /** The load of that machine, as it said last. */
  metrics: Metrics | null;
  /** Its name, which no other runner has. */
  name: string;
  /** How many of its runs are not over. */
  open_runs: number;
  /** The labels that were set here. */
  set_labels: string[];
  /** Whether it is there. */
  status: RunnerStatus;
  /** The token that it belongs to. */
  token_id: TokenId;
  /** The version of its program; empty before its first connection. */
  version: string;
}

/** What is to be changed of a runner; what is absent stays. */
export interface RunnerChange {
  /** What people call it, at most 200 bytes; empty for nothing. */
  display_name?: string | null;
  /** Whether it is given no new work. */
  drained?: boolean | null;
  /** At most 64 labels of 1 to 256 bytes, beside those that the runner says of itself. */
  labels?: string[] | null;
}

/** The id of a runner, such as `wn_…`. It stays when the runner is called otherwise. */
export type RunnerId = string;

/** A runner by its id or by its name. */
export type RunnerName = string;

/** A page of a list. */
export interface RunnerPage {
  /** What is on it. */
  items: Runner[];
  /** The `cursor` of the next page; null if this is the last one. */
  next: RunnerId | null;
}

/** Whether a runner is there. */
export type RunnerStatus = "online" | "offline" | "revoked";

/** A secret without itself. */
export interface Secret {
  /** Its name. */
  name: string;
  /** Which task runners may have it; empty for all. */
  runners: string[];
  /** When it was set, in milliseconds since 1970. */
  set_at_ms: number;
  /** The name of the token that set it. */
  set_by: string;
  /** Which tasks may have it; empty for all. */
  tasks: string[];
  /** Whose tasks may have it; empty for all. */
  tokens: string[];
}

/** All secrets, by name. */
export interface Secrets {
  /** Files of the hub's folder `secrets` that can't be read: secrets that are to be set anew. */
  damaged?: string[];
  /** The secrets, without themselves. */
  items: Secret[];
}

/** Which runners a task is for: those with all `labels`, or the one that is named; connected ones first, the least busy first. */
export interface Select {
  /** How many of them; 1 by default. */
  count?: Count | null;
  /** The runner must have all of these labels. */
  labels?: string[];
  /** Only runners that are connected now. */
  online?: boolean;
  /** This runner, by name or id. */
  runner?: string | null;
}

/** Which runners a task was for, as its submission said. */
export interface Selected {
  /** How many were asked for. */
  count?: Count | null;
  /** The labels that were asked for. */
  labels?: string[];
  /** Only runners that were connected then. */
  online?: boolean;
  /** The runner that was named. */
  runner?: string | null;
}

/** Where a run stands. A run reaches exactly one final state. */
export type State = "queued" | "delivered" | "held" | "accepted" | "running" | "succeeded" | "failed" | "denied" | "cancelled" | "timed_out" | "expired" | "lost";

/** `event: state`: a run reached a state. */
export interface StateEvent {
  /** Of a run that is held, or was: the approval. */
  approval?: ApprovalId | null;
  /** When, in milliseconds since 1970. */
  at_ms: number;
  /** Why it did not succeed. */
  error?: string | null;
  /** The exit status of a command that is over. */
  exit_code?: number | null;
  /** The run. */
  run: RunId;
  /** Its runner's name. */
  runner: string;
  /** The state. */
  state: State;
  /** Of a line that was denied: one that does the same and passes. */
  suggestion?: string | null;
}

/** Where output was written to. */
export type Stream = "stdout" | "stderr";

/** A task. */
export interface Task {
  /** The operation's arguments; the values of a server's `env` and headers are masked, and a list shortens long texts. */
  args: Record<string, unknown>;
  /** When it was taken, in milliseconds since 1970. */
  created_at_ms: number;
  /** The name of the token that submitted it. */
  created_by: string;
  /** That token's id; absent for tasks of a hub before version 0.1. */
  created_by_token?: TokenId | null;
  /** Until when its runs wait for their runners, in milliseconds since 1970. */
  expires_at_ms: number;
  /** Its id. */
  id: TaskId;
  /** What is done: an operation of runners, or `agent` or `workflow`, which task runners do. */
  operation: string;
  /** Why it was asked for, in the words of who asked. */
  reason?: string | null;
  /** The task on each runner. */
  runs: Run[];
  /** Which runners it was for. */
  select: Selected;
  /** All runs in one word: what is still open, else the worst end. */
  state: State;
  /** Seconds that it may take. */
  timeout_s: number;
}

/** The id of a task, such as `tsk_…`. Ids of later tasks sort behind those of earlier ones. */
export type TaskId = string;

/** A page of a list. */
export interface TaskPage {
  /** What is on it. */
  items: Task[];
  /** The `cursor` of the next page; null if this is the last one. */
  next: TaskId | null;
}

/** A token without its secret. */
export interface Token {
  /** When it was made, in milliseconds since 1970. */
  created_at_ms: number;
  /** Whether it has ended. */
  expired: boolean;
  /** When it ends; null for never. */
  expires_at_ms: number | null;
  /** Its id. */
  id: TokenId;
  /** What it is called. */
  name: string;
  /** Whether it was revoked. */
  revoked: boolean;
  /** What it may do. */
  role: Role;
  /** The runner that it was made for. */
  runner_id: RunnerId | null;
}

/** The id of a token, such as `tok_…`. It is no secret. */
export type TokenId = string;

/** A page of a list. */
export interface TokenPage {
  /** What is on it. */
  items: Token[];
  /** The `cursor` of the next page; null if this is the last one. */
  next: TokenId | null;
}

/** What a person said. */
export interface Vote {
  /** When, in milliseconds since 1970. */
  at_ms: number;
  /** The name of the token. */
  by: string;
  /** Its id. */
  by_token: TokenId;
  /** Whether it was a yes. */
  yes: boolean;
}

/** A yes. */
export interface Yes {
  /** Another line, which stands for it from now on and is judged anew. */
  command?: string | null;
  /** The approval's digest as it was read, or its first 16 digits or more: if it is another one, the yes is for something else, and refused. */
  digest?: string | null;
  /** Seconds for which the very same line of the same asker on the same runner needs no further yes: 1 to 28800. */
  for_s?: number | null;
  /** What there is to say about it, at most 1000 bytes. */
  note?: string | null;
}
