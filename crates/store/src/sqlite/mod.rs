//! The embedded store: SQLite with one writer that batches writes into transactions, each
//! flushed to the disk before anybody is told.

mod approvals;
mod migrate;
mod pool;
mod runners;
mod runs;
mod sessions;
mod tasks;
mod tokens;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use tokio::sync::Semaphore;

use crate::{Answer, Room, Store, StoreError, Then};
use writer::Writer;

/// Connections for reading: so many reads at a time, the others wait for their turn.
const READERS: usize = 4;

/// Where the work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Writes on a thread of the store's own, reads on others: callers wait without blocking.
    Threads,
    /// Everything where it is asked for, one after the other: for tests whose order must be the
    /// same each time.
    Caller,
}

/// How writes that wait in the caller's lane are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// As ever.
    Make,
    /// They fail: the disk is full.
    Fail,
    /// They are made, and nobody is told: the process is gone.
    Crash,
    /// They are not made either.
    Lose,
}

/// A store in one file.
#[derive(Debug)]
pub struct Sqlite {
    writer: Writer,
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    /// `None` in the caller's lane: the writer's connection reads as well.
    free: Option<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Sqlite {
    /// Opens or creates the store and brings it up to date. What it can't read it leaves as it is.
    pub fn open(path: &Path, lane: Lane) -> Result<Self, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::new(format!("{}: {e}", path.display()));
        let connection = Connection::open(path).map_err(failed)?;
        // Looked at before anything is changed.
        let version = migrate::version(&connection).map_err(failed)?;
        migrate::check(&connection, version)
            .map_err(|why| StoreError::new(format!("{}: {why}", path.display())))?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                 PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000;",
            )
            .map_err(failed)?;
        if lane == Lane::Caller {
            // There is no crash to be safe from that the test does not make itself.
            connection.execute_batch("PRAGMA synchronous = OFF;").map_err(failed)?;
        }
        connection.set_prepared_statement_cache_capacity(64);
        migrate::migrate(&connection, version)
            .map_err(|why| StoreError::new(format!("{}: {why}", path.display())))?;
        // What an earlier process left in the log is moved now: the first commit would wait for
        // it, and everybody with it.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
        let free = match lane {
            Lane::Caller => None,
            Lane::Threads => Some(Mutex::new(readers(path).map_err(failed)?)),
        };
        let readers = Arc::new(Readers { free, turns: Arc::new(Semaphore::new(READERS)) });
        Ok(Self { writer: Writer::start(connection, lane, path)?, readers })
    }

    /// In the caller's lane: from now on writes wait until [`Sqlite::step`] makes them, so that a test
    /// decides what is on disk when.
    pub fn hold(&self) {
        if let Writer::Here(here) = &self.writer {
            here.hold();
        }
    }

    /// Makes so many of the writes that wait; returns how many there were.
    pub fn step(&self, most: usize, how: Step) -> usize {
        match &self.writer {
            Writer::Here(here) => here.step(most, how),
            Writer::Thread(_) => 0,
        }
    }

    /// Queues a write; `then` is told when it is on disk.
    fn queue<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        then: Then<T>,
    ) -> Room<'_> {
        self.writer.queue(write, then)
    }

    /// Writes, and answers when it is on disk.
    fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(crate::done(move |then| self.queue(write, then)))
    }

    /// Reads, off the async threads.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        if self.readers.free.is_none() {
            let result = self.writer.read_here(read);
            return Box::pin(std::future::ready(
                result.unwrap_or_else(|| Err(StoreError::new("a reader is missing"))),
            ));
        }
        Box::pin(async move {
            let readers = self.readers.clone();
            let closed = |_| StoreError::new("it is closed");
            let turn = readers.turns.clone().acquire_owned().await.map_err(closed)?;
            let done = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                let free = || readers.free.as_ref().map(|f| f.lock().unwrap_or_else(PoisonError::into_inner));
                let Some(connection) = free().and_then(|mut free| free.pop()) else {
                    return Err(StoreError::new("a reader is missing"));
                };
                let result = read(&connection).map_err(|e| StoreError::new(e.to_string()));
                if let Some(mut free) = free() {
                    free.push(connection);
                }
                result
            });
            done.await.map_err(|e| StoreError::new(e.to_string()))?
        })
    }
}

impl Store for Sqlite {
    fn check(&self) -> Answer<'_, ()> {
        // An empty transaction would not show a full disk; a number that is set to itself does.
        self.write(|c| c.execute("UPDATE numbers SET last = last", []).map(|_| ()))
    }
}

fn readers(path: &Path) -> rusqlite::Result<Vec<Connection>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    (0..READERS)
        .map(|_| {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        })
        .collect()
}

/// Stores what may be large in a table of its own, by the id of its task or run; returns what the
/// row itself holds of it. What comes after a large value in a row is only read through it.
fn put_payload<'a>(c: &Connection, id: &str, body: &'a str) -> rusqlite::Result<Option<&'a str>> {
    if body.len() <= crate::LARGE {
        return Ok(Some(body));
    }
    c.prepare_cached("INSERT OR REPLACE INTO payloads (id, body) VALUES (?1, ?2)")?.execute([id, body])?;
    Ok(None)
}

fn payload(c: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    c.prepare_cached("SELECT body FROM payloads WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// A time that may be absent.
fn time(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(unsigned))
}

/// A number, 0 where it is absent.
fn number(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(time(row, column)?.unwrap_or(0))
}

/// A text, empty where it is absent.
fn text(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<String> {
    Ok(row.get::<_, Option<String>>(column)?.unwrap_or_default())
}

/// A list of texts, as JSON.
fn texts(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Vec<String>> {
    Ok(serde_json::from_str(&text(row, column)?).unwrap_or_default())
}

fn json(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[tokio::test]
    async fn it_keeps_what_a_store_promises() {
        for lane in [Lane::Threads, Lane::Caller] {
            let dir = tempfile::tempdir().expect("tempdir");
            let path = dir.path().join("hub.db");
            conformance::run(|| Sqlite::open(&path, lane).expect("open")).await;
        }
    }

    #[tokio::test]
    async fn a_failing_write_leaves_the_others_of_its_batch() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Sqlite::open(&dir.path().join("hub.db"), Lane::Threads).expect("open");
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
}
