ALTER TABLE tasks ADD COLUMN number INTEGER;
ALTER TABLE tasks ADD COLUMN session_id TEXT;
CREATE UNIQUE INDEX tasks_by_number ON tasks (number) WHERE number IS NOT NULL;
ALTER TABLE runs ADD COLUMN key TEXT;
ALTER TABLE runs ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN has_effects INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN code TEXT;
ALTER TABLE runs ADD COLUMN usage TEXT;
CREATE TABLE numbers (name TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO numbers (name, last)
    SELECT 'pool', coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'pod_tasks'), 0);
INSERT INTO tasks (id, operation, args, selection, timeout_s, created_by, created_at_ms, expires_at_ms,
        idempotency_key, body_hash, brief, number, session_id)
    SELECT printf('pod-%010d', id), kind, config, iif(wanted IS NULL, '{}', json_object('runner', wanted)), 86400,
        created_by, created_at_ms, expires_at_ms, char(31) || 'pool' || char(31) || idempotency_key, body_hash, '{}',
        id, session_id
    FROM pod_tasks;
INSERT INTO runs (id, task_id, ordinal, runner_id, runner_name, state, cancel_requested, error, queued_at_ms,
        delivered_at_ms, started_at_ms, finished_at_ms, key, attempts, has_effects, code, usage)
    SELECT printf('run-pod-%010d', id), printf('pod-%010d', id), 0, '', coalesce(runner, ''), state, cancel, error,
        created_at_ms, assigned_at_ms, started_at_ms, finished_at_ms, key, attempts, has_effects, code, usage
    FROM pod_tasks;
UPDATE payloads SET id = printf('pod-%010d', CAST(substr(id, 5) AS INTEGER)) WHERE id LIKE 'pod-%';
DROP TABLE pod_tasks;
ALTER TABLE pod_runners RENAME TO pool_runners;
DROP INDEX open_runs;
CREATE INDEX open_runs ON runs (state, task_id) WHERE finished_at_ms IS NULL;
CREATE INDEX ended_runs ON runs (state, task_id) WHERE finished_at_ms IS NOT NULL;
