//! The embedded store: SQLite with one writer that batches requests into
//! transactions, each flushed to the disk before anybody is told.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

/// Writes waiting; who has more waits.
const QUEUE: usize = 4096;
/// Most writes in one transaction.
const BATCH: usize = 512;
/// Connections for reading.
const READERS: usize = 4;

/// Each step takes the store from one version to the next; steps are never changed.
const MIGRATIONS: &[&str] = &[
    "
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
",
    "
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
",
    "
    ALTER TABLE tokens ADD COLUMN expires_at_ms INTEGER;
    ALTER TABLE runners ADD COLUMN token_id TEXT;
    ALTER TABLE runners ADD COLUMN display_name TEXT;
    ALTER TABLE runners ADD COLUMN set_labels TEXT;
    ALTER TABLE runners ADD COLUMN drained INTEGER NOT NULL DEFAULT 0;
    UPDATE runners SET token_id = (SELECT id FROM tokens WHERE runner_id = runners.id);
    ALTER TABLE tasks ADD COLUMN brief TEXT;
    ALTER TABLE tasks ADD COLUMN token_id TEXT;
    ALTER TABLE runs ADD COLUMN unconfirmed INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX runs_of_runner ON runs (runner_id, task_id);
    CREATE INDEX runs_of_name ON runs (runner_name, task_id);
    CREATE INDEX unconfirmed_runs ON runs (runner_id) WHERE unconfirmed = 1;
    CREATE TABLE payloads (id TEXT PRIMARY KEY, body TEXT NOT NULL);
    INSERT INTO payloads SELECT id, args FROM tasks WHERE length(args) > 16384;
    UPDATE tasks SET args = '' WHERE id IN (SELECT id FROM payloads);
    INSERT INTO payloads SELECT id, result FROM runs WHERE length(result) > 16384;
    UPDATE runs SET result = NULL WHERE id IN (SELECT id FROM payloads);
",
    "
    INSERT INTO payloads SELECT 'pod-' || id, config FROM pod_tasks WHERE length(config) > 16384;
    UPDATE pod_tasks SET config = '' WHERE 'pod-' || id IN (SELECT id FROM payloads);
",
    "
    ALTER TABLE runs ADD COLUMN suggestion TEXT;
",
];

/// Arguments, results and configs beyond this size stand in a table of their own (`payloads`, by
/// the id of the task or the run, `pod-ID` for a task of pods): what comes after them in a row is only read through them.
pub(crate) const LARGE: usize = 16 * 1024;

/// Stores what may be large; returns what the row itself holds of it.
pub(crate) fn put_payload<'a>(c: &Connection, id: &str, body: &'a str) -> rusqlite::Result<Option<&'a str>> {
    if body.len() <= LARGE {
        return Ok(Some(body));
    }
    c.prepare_cached("INSERT OR REPLACE INTO payloads (id, body) VALUES (?1, ?2)")?.execute([id, body])?;
    Ok(None)
}

/// What a write gets: the connection within a transaction.
pub(crate) type Write<T> = Box<dyn FnOnce(&Connection) -> rusqlite::Result<T> + Send>;

/// Runs in the transaction; what it returns runs when that is over, and is told how.
type Job = Box<dyn FnOnce(&Connection) -> AfterCommit + Send>;
type AfterCommit = Box<dyn FnOnce(Result<(), &str>) + Send>;

/// Why the store could not do its work.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the hub's store failed: {0}")]
pub struct StoreError(String);

impl StoreError {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }
}

/// Handle to the store.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
    readers: Arc<Vec<Mutex<Connection>>>,
}

impl Store {
    /// Opens or creates the store and brings it up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |e: rusqlite::Error| StoreError(format!("{}: {e}", path.display()));
        let connection = Connection::open(path).map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                 PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000;",
            )
            .map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(64);
        migrate(&connection).map_err(failed)?;
        // What an earlier process left in the log is moved now: the first commit would wait for
        // it, and everybody with it.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
        let readers = (0..READERS)
            .map(|_| {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(path, flags).map(Mutex::new)
            })
            .collect::<rusqlite::Result<Vec<_>>>()
            .map_err(failed)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let path: PathBuf = path.to_owned();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(&connection, queue, &path))
            .map_err(|e| StoreError(e.to_string()))?;
        Ok(Self { jobs, readers: Arc::new(readers) })
    }

    /// Queues a write; `then` runs on the store's thread, in the order of the
    /// queue, when the write is on disk (or could not be made). Waits for room.
    pub(crate) async fn submit<T: Send + 'static>(
        &self,
        write: Write<T>,
        then: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) {
        let job: Job = Box::new(move |connection| {
            let result = in_savepoint(connection, write);
            Box::new(move |committed| {
                then(match (result, committed) {
                    (Ok(value), Ok(())) => Ok(value),
                    (Err(e), _) => Err(StoreError(e.to_string())),
                    (Ok(_), Err(e)) => Err(StoreError(e.to_owned())),
                });
            })
        });
        // The thread lives as long as the hub.
        let _ = self.jobs.send(job).await;
    }

    /// Writes and waits until it is on disk.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = oneshot::channel();
        self.submit(Box::new(write), move |result| {
            let _ = answer.send(result);
        })
        .await;
        wait.await.map_err(|_| StoreError("the writer is gone".into()))?
    }

    /// Reads, off the async threads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = self.readers.clone();
        tokio::task::spawn_blocking(move || {
            let free = readers.iter().find_map(|r| r.try_lock().ok());
            let connection = match free {
                Some(connection) => connection,
                None => readers[0].lock().unwrap_or_else(std::sync::PoisonError::into_inner),
            };
            read(&connection).map_err(|e| StoreError(e.to_string()))
        })
        .await
        .map_err(|e| StoreError(e.to_string()))?
    }
}

fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let version = version as usize;
    if version > MIGRATIONS.len() {
        return Err(rusqlite::Error::ToSqlConversionFailure(
            format!("the store is of a newer version ({version}) than this hub knows ({})", MIGRATIONS.len())
                .into(),
        ));
    }
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        connection.execute_batch(&format!("BEGIN; {sql} PRAGMA user_version = {}; COMMIT;", step + 1))?;
    }
    Ok(())
}

/// One failing write must not take the others of its transaction along.
fn in_savepoint<T>(connection: &Connection, write: Write<T>) -> rusqlite::Result<T> {
    connection.prepare_cached("SAVEPOINT one")?.execute([])?;
    let result = write(connection);
    if result.is_err() {
        connection.prepare_cached("ROLLBACK TO one")?.execute([])?;
    }
    connection.prepare_cached("RELEASE one")?.execute([])?;
    result
}

fn write_all(connection: &Connection, mut queue: mpsc::Receiver<Job>, path: &Path) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
        let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(|e| e.to_string());
        let after: Vec<AfterCommit> = batch.drain(..).map(|job| job(connection)).collect();
        let committed = begun.and_then(|()| connection.execute_batch("COMMIT").map_err(|e| e.to_string()));
        if let Err(error) = &committed {
            tracing::error!("failed to write {}: {error}", path.display());
            let _ = connection.execute_batch("ROLLBACK");
        }
        let outcome = committed.as_ref().map_err(String::as_str).copied();
        for then in after {
            then(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_write_leaves_the_others_of_its_batch() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&dir.path().join("hub.db")).expect("open");
        let insert = |id: &'static str| {
            store.write(move |c| {
                c.execute("INSERT INTO tokens (id, name, role, hash, created_at_ms) VALUES (?1, 'n', 'admin', 'h' || ?1, 0)", [id])
            })
        };
        let (a, b, again, c) = tokio::join!(insert("a"), insert("b"), insert("a"), insert("c"));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert!(again.is_err_and(|e| e.to_string().contains("UNIQUE")));
        let count =
            |c: &Connection| c.query_row("SELECT count(*) FROM tokens", [], |row| row.get::<_, i64>(0));
        assert_eq!(store.read(count).await.expect("read"), 3);
    }

    #[test]
    fn a_newer_store_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("hub.db");
        Connection::open(&path).expect("open").execute_batch("PRAGMA user_version = 99").expect("set");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let _guard = runtime.enter();
        assert!(Store::open(&path).is_err_and(|e| e.to_string().contains("newer version (99)")));
    }
}
