CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    runner_id TEXT,
    created_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER
) WITHOUT ROWID;
CREATE TABLE runners (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    version TEXT NOT NULL,
    environment TEXT,
    boot_id TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    operation TEXT NOT NULL,
    args TEXT NOT NULL,
    selection TEXT NOT NULL,
    timeout_s INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    idempotency_key TEXT UNIQUE,
    body_hash TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES tasks (id),
    ordinal INTEGER NOT NULL,
    runner_id TEXT NOT NULL,
    runner_name TEXT NOT NULL,
    state TEXT NOT NULL,
    delivered_boot TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    exit_code INTEGER,
    error TEXT,
    result TEXT,
    queued_at_ms INTEGER NOT NULL,
    delivered_at_ms INTEGER,
    started_at_ms INTEGER,
    finished_at_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX runs_of_task ON runs (task_id, ordinal);
CREATE INDEX open_runs ON runs (state) WHERE finished_at_ms IS NULL;
