//! The one writer: a queue with a bound, transactions of many writes, one flush each.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::{Lane, Step};
use crate::{Room, StoreError, Then};

/// Writes waiting; who has more waits.
const QUEUE: usize = 4096;
/// Most writes in one transaction.
const BATCH: usize = 512;

/// Runs in the transaction; what it returns runs when that is over, and is told how.
type Job = Box<dyn FnOnce(&Connection) -> AfterCommit + Send>;
type AfterCommit = Box<dyn FnOnce(Result<(), &str>) + Send>;

#[derive(Debug)]
pub(super) enum Writer {
    Thread(mpsc::Sender<Job>),
    Here(Here),
}

/// The caller's lane.
pub(super) struct Here {
    connection: Mutex<Connection>,
    path: PathBuf,
    /// Writes wait until they are asked for.
    held: AtomicBool,
    waiting: Mutex<VecDeque<Job>>,
}

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Here").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Here {
    pub(super) fn hold(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    /// Makes so many of the writes that wait, in one transaction; returns how many there were.
    pub(super) fn step(&self, most: usize, how: Step) -> usize {
        let mut batch: Vec<Job> = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let count = most.min(waiting.len());
            waiting.drain(..count).collect()
        };
        let count = batch.len();
        if how == Step::Lose {
            return count;
        }
        let tell = {
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            commit(&connection, &mut batch, &self.path, how == Step::Fail)
        };
        if how != Step::Crash {
            tell();
        }
        count
    }
}

impl Writer {
    pub(super) fn start(connection: Connection, lane: Lane, path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        if lane == Lane::Caller {
            return Ok(Self::Here(Here {
                connection: Mutex::new(connection),
                path,
                held: AtomicBool::new(false),
                waiting: Mutex::default(),
            }));
        }
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let work = move || {
            let mut batch = Vec::with_capacity(BATCH);
            while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
                commit(&connection, &mut batch, &path, false)();
            }
        };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(work)
            .map_err(|e| StoreError::new(e.to_string()))?;
        Ok(Self::Thread(jobs))
    }

    pub(super) fn queue<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        then: Then<T>,
    ) -> Room<'_> {
        let job: Job = Box::new(move |connection| {
            let result = in_savepoint(connection, write);
            Box::new(move |committed| {
                then(match (result, committed) {
                    (Ok(value), Ok(())) => Ok(value),
                    (Err(e), _) => Err(StoreError::new(e.to_string())),
                    (Ok(_), Err(e)) => Err(StoreError::new(e)),
                });
            })
        });
        Box::pin(async move {
            match self {
                // The thread lives as long as this.
                Self::Thread(jobs) => {
                    let _ = jobs.send(job).await;
                }
                Self::Here(here) => {
                    here.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
                    if !here.held.load(Ordering::Relaxed) {
                        here.step(usize::MAX, Step::Make);
                    }
                }
            }
        })
    }

    /// Reads where writes are made, in the caller's lane: what is not made is not seen.
    pub(super) fn read_here<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Option<Result<T, StoreError>> {
        let Self::Here(here) = self else { return None };
        let connection = here.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Some(read(&connection).map_err(|e| StoreError::new(e.to_string())))
    }
}

/// Makes the writes of a batch; what is returned tells who waits for them.
fn commit(connection: &Connection, batch: &mut Vec<Job>, path: &Path, fail: bool) -> impl FnOnce() + use<> {
    let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(|e| e.to_string());
    let after: Vec<AfterCommit> = batch.drain(..).map(|job| job(connection)).collect();
    let committed = match fail {
        false => begun.and_then(|()| connection.execute_batch("COMMIT").map_err(|e| e.to_string())),
        true => Err("the disk is full".into()),
    };
    if let Err(error) = &committed {
        tracing::error!("failed to write {}: {error}", path.display());
        let _ = connection.execute_batch("ROLLBACK");
    }
    move || {
        for then in after {
            then(committed.as_ref().map_err(String::as_str).copied());
        }
    }
}

/// One failing write must not take the others of its transaction along.
fn in_savepoint<T>(
    connection: &Connection,
    write: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached("SAVEPOINT one")?.execute([])?;
    let result = write(connection);
    if result.is_err() {
        connection.prepare_cached("ROLLBACK TO one")?.execute([])?;
    }
    connection.prepare_cached("RELEASE one")?.execute([])?;
    result
}
