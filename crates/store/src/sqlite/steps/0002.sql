CREATE TABLE pod_runners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    ip TEXT NOT NULL,
    version TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    seen_at_ms INTEGER NOT NULL
);
CREATE TABLE pod_tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    config TEXT NOT NULL,
    wanted TEXT,
    session_id TEXT,
    state TEXT NOT NULL,
    runner TEXT,
    key TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    has_effects INTEGER NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    code TEXT,
    usage TEXT,
    created_by TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    assigned_at_ms INTEGER,
    started_at_ms INTEGER,
    finished_at_ms INTEGER,
    idempotency_key TEXT UNIQUE,
    body_hash TEXT NOT NULL
);
CREATE INDEX open_pod_tasks ON pod_tasks (id) WHERE finished_at_ms IS NULL;
CREATE TABLE agent_tokens (
    hash TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE agent_messages (
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    role TEXT NOT NULL,
    status TEXT NOT NULL,
    thinking_text TEXT,
    error_message TEXT,
    created_at_ms INTEGER NOT NULL,
    completed_at_ms INTEGER
);
CREATE INDEX messages_of_session ON agent_messages (session_id);
CREATE TABLE agent_parts (
    id TEXT PRIMARY KEY,
    message_id TEXT NOT NULL REFERENCES agent_messages (id),
    kind TEXT NOT NULL,
    text TEXT,
    tool_name TEXT,
    tool_state TEXT,
    mime TEXT,
    url TEXT,
    filename TEXT,
    sort_order INTEGER NOT NULL,
    time_start INTEGER,
    time_end INTEGER
);
CREATE INDEX parts_of_message ON agent_parts (message_id);
