//! The runner's journal of tasks, in SQLite: what was accepted and not yet
//! delivered survives any kill of this process.
//!
//! Commits are not flushed to the platter one by one (`synchronous=NORMAL`): a
//! power cut ends the commands themselves, and the hub learns of it by the new boot
//! id, so it never hands out again what this journal may have forgotten.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use legwork_base::clock::now_ms;
use rusqlite::{Connection, OptionalExtension, params};

/// A task with effects, as accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) task_id: String,
    pub(crate) source: String,
    pub(crate) operation: String,
    /// The arguments as sent, of a command: the only work that can be taken up again.
    pub(crate) args: String,
    /// The name of the command's file.
    pub(crate) record: String,
    /// Who asked, as the hub says.
    pub(crate) who: String,
    /// That people have said yes to it, as JSON; empty where nobody was asked.
    pub(crate) approval: String,
}

/// A finished task whose result may not have arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) task_id: String,
    pub(crate) record: String,
    pub(crate) message_id: String,
}

/// What became of an attempt to accept a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// It is new, and recorded now.
    New,
    /// It was accepted before and is not finished.
    Running,
    /// It is finished; this is its result message.
    Finished { message_id: String, text: String },
}

/// Handle to the journal. A call takes tens of microseconds, less than a change of
/// threads would, so it is made in place.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    connection: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens or creates the journal.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -512;
             CREATE TABLE IF NOT EXISTS tasks (
                 task_id TEXT PRIMARY KEY,
                 source TEXT NOT NULL,
                 operation TEXT NOT NULL,
                 args TEXT NOT NULL,
                 record TEXT NOT NULL,
                 accepted_ms INTEGER NOT NULL,
                 message_id TEXT,
                 result TEXT,
                 delivered INTEGER NOT NULL DEFAULT 0
             ) WITHOUT ROWID;",
        )?;
        // Of an earlier version.
        for column in ["who", "approval"] {
            let has: bool = connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM pragma_table_info('tasks') WHERE name = ?1)",
                [column],
                |row| row.get(0),
            )?;
            if !has {
                let sql = format!("ALTER TABLE tasks ADD COLUMN {column} TEXT NOT NULL DEFAULT ''");
                connection.execute_batch(&sql)?;
            }
        }
        connection.set_prepared_statement_cache_capacity(32);
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    fn run<T>(&self, job: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        tokio::task::block_in_place(|| job(&self.connection.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Records a task before it starts, unless it is known.
    pub(crate) fn accept(&self, task: &Accepted) -> rusqlite::Result<Acceptance> {
        self.run(|c| {
            let known = c
                .prepare_cached("SELECT message_id, result FROM tasks WHERE task_id = ?1")?
                .query_row([&task.task_id], |row| {
                    Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?))
                })
                .optional()?;
            match known {
                Some((Some(message_id), Some(text))) => Ok(Acceptance::Finished { message_id, text }),
                Some(_) => Ok(Acceptance::Running),
                None => {
                    c.prepare_cached(
                        "INSERT INTO tasks (task_id, source, operation, args, record, accepted_ms, who, approval)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    )?
                    .execute(params![
                        task.task_id,
                        task.source,
                        task.operation,
                        task.args,
                        task.record,
                        signed(now_ms()),
                        task.who,
                        task.approval
                    ])?;
                    Ok(Acceptance::New)
                }
            }
        })
    }

    /// Whether a task was accepted before.
    pub(crate) fn knows(&self, task_id: &str) -> rusqlite::Result<bool> {
        self.run(|c| c.prepare_cached("SELECT 1 FROM tasks WHERE task_id = ?1")?.exists([task_id]))
    }

    /// Records a task's result.
    pub(crate) fn finish(&self, task_id: &str, message_id: &str, text: &str) -> rusqlite::Result<()> {
        self.run(|c| {
            // What was asked for is not needed any more, and may hold secrets.
            c.prepare_cached("UPDATE tasks SET message_id = ?2, result = ?3, args = '' WHERE task_id = ?1")?
                .execute(params![task_id, message_id, text])?;
            Ok(())
        })
    }

    /// Records that a task's result has arrived.
    pub(crate) fn delivered(&self, task_id: &str) -> rusqlite::Result<()> {
        self.run(|c| {
            c.prepare_cached("UPDATE tasks SET delivered = 1 WHERE task_id = ?1")?.execute([task_id])?;
            Ok(())
        })
    }

    /// The text of a task's result message.
    pub(crate) fn result(&self, task_id: &str) -> rusqlite::Result<Option<String>> {
        self.run(|c| {
            let mut select = c.prepare_cached("SELECT result FROM tasks WHERE task_id = ?1")?;
            Ok(select.query_row([task_id], |row| row.get(0)).optional()?.flatten())
        })
    }

    /// What an earlier process left: tasks without a result, and results that may
    /// not have arrived.
    pub(crate) fn left_over(&self) -> rusqlite::Result<(Vec<Accepted>, Vec<Finished>)> {
        self.run(|c| {
            let mut statement = c.prepare(
                "SELECT task_id, source, operation, args, record, message_id, who, approval FROM tasks
                 WHERE delivered = 0 ORDER BY accepted_ms",
            )?;
            let (mut open, mut done) = (Vec::new(), Vec::new());
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (task_id, record): (String, String) = (row.get(0)?, row.get(4)?);
                match row.get::<_, Option<String>>(5)? {
                    Some(message_id) => done.push(Finished { task_id, record, message_id }),
                    None => open.push(Accepted {
                        task_id,
                        source: row.get(1)?,
                        operation: row.get(2)?,
                        args: row.get(3)?,
                        record,
                        who: row.get(6)?,
                        approval: row.get(7)?,
                    }),
                }
            }
            Ok((open, done))
        })
    }

    /// The files of commands that are under way or wait for the hub.
    pub(crate) fn records(&self) -> rusqlite::Result<HashSet<String>> {
        self.run(|c| {
            let mut select = c.prepare("SELECT record FROM tasks WHERE delivered = 0")?;
            select.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Forgets delivered tasks that are older than `age`, or more than `most`. Until
    /// then a second delivery is known.
    pub(crate) fn forget_old(&self, age: Duration, most: u64) -> rusqlite::Result<()> {
        let before = signed(now_ms()).saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        self.run(|c| {
            c.execute("DELETE FROM tasks WHERE delivered = 1 AND accepted_ms < ?1", [before])?;
            c.execute(
                "DELETE FROM tasks WHERE delivered = 1 AND accepted_ms <=
                     (SELECT accepted_ms FROM tasks ORDER BY accepted_ms DESC LIMIT 1 OFFSET ?1)",
                [signed(most)],
            )?;
            Ok(())
        })
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str) -> Accepted {
        Accepted {
            task_id: id.into(),
            source: "s".into(),
            operation: "bash".into(),
            args: "{}".into(),
            record: format!("f-{id}"),
            who: "alice (tok_1) at hub_1".into(),
            approval: String::new(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_is_accepted_once_and_its_result_kept() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("journal.db");
        let store = Store::open(&path).expect("open");
        assert_eq!(store.accept(&task("a")).expect("accept"), Acceptance::New);
        assert_eq!(store.accept(&task("a")).expect("accept"), Acceptance::Running);
        assert_eq!(store.accept(&task("b")).expect("accept"), Acceptance::New);
        store.finish("a", "m", "text").expect("finish");
        // One process at a time has the journal.
        drop(store);
        let again = Store::open(&path).expect("open");
        let finished = Acceptance::Finished { message_id: "m".into(), text: "text".into() };
        assert_eq!(again.accept(&task("a")).expect("accept"), finished);
        let (open, done) = again.left_over().expect("left over");
        assert_eq!(open, [task("b")]);
        assert_eq!(done.iter().map(|d| d.task_id.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(again.result("a").expect("result").as_deref(), Some("text"));
        again.delivered("a").expect("delivered");
        assert!(again.left_over().expect("left over").1.is_empty());
        again.forget_old(Duration::from_secs(60), 10).expect("forget");
        assert_eq!(again.accept(&task("a")).expect("accept"), finished);
    }
}
