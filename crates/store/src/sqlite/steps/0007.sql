ALTER TABLE tasks ADD COLUMN reason TEXT;
CREATE TABLE approvals (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    task_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    runner_id TEXT NOT NULL,
    runner_name TEXT NOT NULL,
    command TEXT NOT NULL,
    line TEXT NOT NULL,
    workdir TEXT NOT NULL,
    timeout_s INTEGER NOT NULL,
    part TEXT NOT NULL,
    rule TEXT NOT NULL,
    digest TEXT NOT NULL,
    ticket TEXT NOT NULL,
    persons INTEGER NOT NULL,
    reason TEXT,
    asked_by TEXT NOT NULL,
    asked_by_token TEXT NOT NULL,
    refused TEXT,
    votes TEXT NOT NULL DEFAULT '[]',
    note TEXT,
    edited TEXT,
    grant_until_ms INTEGER,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    decided_at_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX approvals_of_run ON approvals (run_id, id);
CREATE INDEX approvals_of_task ON approvals (task_id);
CREATE INDEX waiting_approvals ON approvals (run_id) WHERE state = 'waiting';
CREATE INDEX approvals_by_state ON approvals (state, id);
CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    runner_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    asked_by_token TEXT NOT NULL,
    by_name TEXT NOT NULL,
    by_token TEXT NOT NULL,
    until_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX grants_for ON grants (runner_id, digest);
