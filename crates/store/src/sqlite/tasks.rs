//! The tables `tasks` and `runs`, as tasks are seen.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, named_params};

use super::{Sqlite, number, payload, put_payload, signed, text, time};
use crate::{
    Answer, Filter, Keyed, LARGE, NewRun, NewTask, Room, Run, Scope, State, Submitted, Task, Tasks, Then,
};

const TASK: &str =
    "id, number, operation, selection, timeout_s, created_by, token_id, created_at_ms, expires_at_ms,
     session_id, reason";
const RUN: &str =
    "id, ordinal, runner_id, runner_name, state, exit_code, error, suggestion, code, usage, attempts, queued_at_ms,
     delivered_at_ms, started_at_ms, finished_at_ms,
     (SELECT max(a.id) FROM approvals a WHERE a.run_id = runs.id) AS approval";

/// Keys of different scopes never meet.
fn scoped(scope: Scope, key: &str) -> String {
    match scope {
        Scope::Runners => key.to_owned(),
        Scope::Pool => format!("\u{1f}pool\u{1f}{key}"),
    }
}

fn key_lookup(c: &Connection, key: &str) -> rusqlite::Result<Option<Keyed>> {
    c.prepare_cached("SELECT id, number, body_hash FROM tasks WHERE idempotency_key = ?1")?
        .query_row([key], |row| {
            Ok(Keyed { id: row.get("id")?, number: row.get("number")?, body_hash: row.get("body_hash")? })
        })
        .optional()
}

fn next_number(c: &Connection) -> rusqlite::Result<u32> {
    let sql = "INSERT INTO numbers (name, last) VALUES ('pool', 1)
               ON CONFLICT (name) DO UPDATE SET last = last + 1 RETURNING last";
    c.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

fn insert_task(
    c: &Connection,
    task: &NewTask,
    key: Option<&str>,
    number: Option<u32>,
) -> rusqlite::Result<()> {
    let args = put_payload(c, &task.id, &task.args)?.unwrap_or_default();
    c.prepare_cached(
        "INSERT INTO tasks (id, number, operation, args, brief, selection, timeout_s, created_by, token_id,
             created_at_ms, expires_at_ms, idempotency_key, body_hash, session_id, reason)
         VALUES (:id, :number, :operation, :args, :brief, :selection, :timeout_s, :created_by, :token_id,
             :created_at_ms, :expires_at_ms, :key, :body_hash, :session_id, :reason)",
    )?
    .execute(named_params! {
        ":id": task.id,
        ":number": number,
        ":operation": task.operation,
        ":args": args,
        ":brief": task.brief,
        ":selection": task.selection,
        ":timeout_s": signed(task.timeout_s),
        ":created_by": task.created_by,
        ":token_id": task.token_id,
        ":created_at_ms": signed(task.created_at_ms),
        ":expires_at_ms": signed(task.expires_at_ms),
        ":key": key,
        ":body_hash": task.body_hash,
        ":session_id": task.session_id,
        ":reason": task.reason,
    })?;
    Ok(())
}

fn insert_runs(c: &Connection, task: &NewTask, runs: &[NewRun]) -> rusqlite::Result<()> {
    let mut insert = c.prepare_cached(
        "INSERT INTO runs (id, task_id, ordinal, runner_id, runner_name, state, delivered_boot, queued_at_ms,
             delivered_at_ms)
         VALUES (:id, :task_id, :ordinal, :runner_id, :runner_name, :state, :delivered_boot, :queued_at_ms,
             :delivered_at_ms)",
    )?;
    for run in runs {
        insert.execute(named_params! {
            ":id": run.id,
            ":task_id": task.id,
            ":ordinal": run.ordinal,
            ":runner_id": run.runner_id,
            ":runner_name": run.runner_name,
            ":state": run.state.as_str(),
            ":delivered_boot": run.delivered_boot,
            ":queued_at_ms": signed(task.created_at_ms),
            ":delivered_at_ms": (run.state == State::Delivered).then_some(signed(task.created_at_ms)),
        })?;
    }
    Ok(())
}

fn submit(c: &Connection, task: &NewTask, runs: &[NewRun]) -> rusqlite::Result<Submitted> {
    let key = task.idempotency_key.as_deref().map(|key| scoped(task.scope, key));
    if let Some(key) = &key
        && let Some(known) = key_lookup(c, key)?
    {
        return Ok(Submitted::Known(known));
    }
    let number = match task.scope {
        Scope::Runners => None,
        Scope::Pool => Some(next_number(c)?),
    };
    insert_task(c, task, key.as_deref(), number)?;
    insert_runs(c, task, runs)?;
    Ok(Submitted::New(number))
}

fn task_row(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        id: row.get("id")?,
        number: row.get("number")?,
        operation: row.get("operation")?,
        args: String::new(),
        selection: row.get("selection")?,
        timeout_s: number(row, "timeout_s")?,
        created_by: row.get("created_by")?,
        token_id: row.get("token_id")?,
        created_at_ms: number(row, "created_at_ms")?,
        expires_at_ms: number(row, "expires_at_ms")?,
        session_id: row.get("session_id")?,
        reason: row.get("reason")?,
        runs: Vec::new(),
    })
}

fn run_row(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: row.get("id")?,
        ordinal: row.get("ordinal")?,
        runner_id: row.get("runner_id")?,
        runner_name: row.get("runner_name")?,
        state: State::parse(&text(row, "state")?).unwrap_or(State::Lost),
        exit_code: row.get("exit_code")?,
        error: row.get("error")?,
        suggestion: row.get("suggestion")?,
        approval: row.get("approval")?,
        code: row.get("code")?,
        usage: row.get("usage")?,
        result: None,
        attempts: row.get("attempts")?,
        queued_at_ms: number(row, "queued_at_ms")?,
        delivered_at_ms: time(row, "delivered_at_ms")?,
        started_at_ms: time(row, "started_at_ms")?,
        finished_at_ms: time(row, "finished_at_ms")?,
    })
}

/// A task's runs, with results if they are wanted.
fn runs_of(c: &Connection, id: &str, results: bool) -> rusqlite::Result<Vec<Run>> {
    let sql = format!("SELECT {RUN} FROM runs WHERE task_id = ?1 ORDER BY ordinal");
    let mut runs = c.prepare_cached(&sql)?.query_map([id], run_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
    if results {
        let mut stored = c.prepare_cached("SELECT result FROM runs WHERE id = ?1")?;
        for run in &mut runs {
            let inline: Option<String> = stored.query_row([&run.id], |row| row.get(0))?;
            run.result = match inline {
                Some(result) => Some(result),
                None => payload(c, &run.id)?,
            };
        }
    }
    Ok(runs)
}

fn arguments(c: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    let stored: Option<String> = c
        .prepare_cached("SELECT args FROM tasks WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    match stored {
        Some(args) if args.is_empty() => payload(c, id),
        stored => Ok(stored),
    }
}

fn whole(c: &Connection, id: &str) -> rusqlite::Result<Option<Task>> {
    let sql = format!("SELECT {TASK} FROM tasks WHERE id = ?1");
    let Some(mut task) = c.prepare_cached(&sql)?.query_row([id], task_row).optional()? else {
        return Ok(None);
    };
    task.args = arguments(c, id)?.unwrap_or_default();
    task.runs = runs_of(c, id, true)?;
    Ok(Some(task))
}

/// Tasks as a list shows them. Long arguments of old hubs, which kept no short form, are left out.
fn briefly(c: &Connection, ids: &[String]) -> rusqlite::Result<Vec<Task>> {
    let sql = format!(
        "SELECT {TASK}, coalesce(brief, iif(length(args) BETWEEN 1 AND {LARGE}, args, '{{}}')) AS shown
         FROM tasks WHERE id = ?1"
    );
    let mut statement = c.prepare_cached(&sql)?;
    let mut tasks = Vec::with_capacity(ids.len());
    for id in ids {
        let found = statement
            .query_row([id], |row| Ok(Task { args: row.get("shown")?, ..task_row(row)? }))
            .optional()?;
        if let Some(mut task) = found {
            task.runs = runs_of(c, id, false)?;
            tasks.push(task);
        }
    }
    Ok(tasks)
}

pub(super) fn ids(
    c: &Connection,
    sql: &str,
    params: &[(&str, &dyn rusqlite::ToSql)],
) -> rusqlite::Result<Vec<String>> {
    c.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect()
}

fn newest(c: &Connection, filter: &Filter) -> rusqlite::Result<Vec<String>> {
    let runner = filter.runner.as_ref().map(|runner| Along::runner(c, runner)).transpose()?;
    let state = filter.state.map(|state| Along::state(c, state)).transpose()?;
    let mut wanted: Vec<Along<'_>> = runner.into_iter().chain(state).collect();
    // Every id comes before this; with an "or" in the question all newer rows would be read as well.
    let mut before = filter.before.clone().unwrap_or_else(|| char::MAX.to_string());
    if wanted.is_empty() {
        let sql = "SELECT id FROM tasks WHERE id < :before ORDER BY id DESC LIMIT :limit";
        return ids(c, sql, named_params! { ":before": before, ":limit": filter.limit });
    }
    let mut found = Vec::new();
    while found.len() < filter.limit as usize {
        let Some(next) = newest_of_all(&mut wanted, &before)? else { break };
        before.clone_from(&next);
        found.push(next);
    }
    Ok(found)
}

/// The newest task before one that is in each of the sets. Each skips what another has not: what is
/// read is bound by the smallest of them.
fn newest_of_all(sets: &mut [Along<'_>], before: &str) -> rusqlite::Result<Option<String>> {
    let mut bound = before.to_owned();
    'again: loop {
        let mut candidate: Option<String> = None;
        for set in &mut *sets {
            let Some(next) = set.newest_before(&bound)? else { return Ok(None) };
            // Before this text comes what the next set may have at most.
            bound = format!("{next}\u{1}");
            if candidate.replace(next.clone()).is_some_and(|other| other != next) {
                continue 'again;
            }
        }
        return Ok(candidate);
    }
}

/// A set of tasks, read along indices from its newest on.
struct Along<'c> {
    /// Each of them a part of the set.
    parts: Vec<CachedStatement<'c>>,
    word: String,
}

impl<'c> Along<'c> {
    fn runner(c: &'c Connection, runner: &str) -> rusqlite::Result<Self> {
        Self::new(c, ["runner_id = :word", "runner_name = :word"], runner)
    }

    fn state(c: &'c Connection, state: State) -> rusqlite::Result<Self> {
        let halves =
            ["state = :word AND finished_at_ms IS NULL", "state = :word AND finished_at_ms IS NOT NULL"];
        Self::new(c, halves, state.as_str())
    }

    fn new(c: &'c Connection, parts: [&str; 2], word: &str) -> rusqlite::Result<Self> {
        let statement = |part| {
            let sql = format!(
                "SELECT task_id FROM runs WHERE {part} AND task_id < :before ORDER BY task_id DESC LIMIT 1"
            );
            c.prepare_cached(&sql)
        };
        let parts = parts.into_iter().map(statement).collect::<rusqlite::Result<_>>()?;
        Ok(Self { parts, word: word.to_owned() })
    }

    fn newest_before(&mut self, before: &str) -> rusqlite::Result<Option<String>> {
        let mut newest: Option<String> = None;
        for part in &mut self.parts {
            let params = named_params! { ":word": self.word, ":before": before };
            newest = newest.max(part.query_row(params, |row| row.get(0)).optional()?);
        }
        Ok(newest)
    }
}

fn forget(c: &Connection, id: &str) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM payloads WHERE id IN (SELECT id FROM runs WHERE task_id = ?1)",
        "DELETE FROM payloads WHERE id = ?1",
        "DELETE FROM approvals WHERE task_id = ?1",
        "DELETE FROM runs WHERE task_id = ?1",
        "DELETE FROM tasks WHERE id = ?1",
    ] {
        c.prepare_cached(sql)?.execute([id])?;
    }
    Ok(())
}

impl Tasks for Sqlite {
    fn submit(&self, task: NewTask, runs: Vec<NewRun>, then: Then<Submitted>) -> Room<'_> {
        self.queue(move |c| submit(c, &task, &runs), then)
    }

    fn find_key(&self, scope: Scope, key: String) -> Answer<'_, Option<Keyed>> {
        self.read(move |c| key_lookup(c, &scoped(scope, &key)))
    }

    fn task(&self, id: String) -> Answer<'_, Option<Task>> {
        self.read(move |c| whole(c, &id))
    }

    fn numbered(&self, number: u32) -> Answer<'_, Option<Task>> {
        self.read(move |c| {
            let found: Option<String> = c
                .prepare_cached("SELECT id FROM tasks WHERE number = ?1")?
                .query_row([number], |row| row.get(0))
                .optional()?;
            found.map_or(Ok(None), |id| whole(c, &id))
        })
    }

    fn list(&self, filter: Filter) -> Answer<'_, Vec<Task>> {
        self.read(move |c| briefly(c, &newest(c, &filter)?))
    }

    fn list_numbered(&self, before: Option<u32>, limit: u32) -> Answer<'_, Vec<Task>> {
        self.read(move |c| {
            let before = before.map_or(i64::MAX, i64::from);
            let sql = "SELECT id FROM tasks WHERE number IS NOT NULL AND number < :before
                       ORDER BY number DESC LIMIT :limit";
            briefly(c, &ids(c, sql, named_params! { ":before": before, ":limit": limit })?)
        })
    }

    fn arguments(&self, id: String) -> Answer<'_, String> {
        self.read(move |c| arguments(c, &id)?.ok_or(rusqlite::Error::QueryReturnedNoRows))
    }

    fn over_before(&self, before_ms: u64, limit: u32) -> Answer<'_, Vec<String>> {
        // Ids sort by time, so that only the oldest are looked at.
        let sql = "SELECT id FROM (SELECT id, created_at_ms FROM tasks ORDER BY id LIMIT 2000) AS old
             WHERE created_at_ms < :before
                 AND NOT EXISTS (SELECT 1 FROM runs WHERE task_id = old.id AND finished_at_ms IS NULL)
             LIMIT :limit";
        self.read(move |c| ids(c, sql, named_params! { ":before": signed(before_ms), ":limit": limit }))
    }

    fn kept(&self, wanted: Vec<String>) -> Answer<'_, Vec<String>> {
        self.read(move |c| {
            let mut exists = c.prepare_cached("SELECT 1 FROM tasks WHERE id = ?1")?;
            let mut kept = Vec::with_capacity(wanted.len());
            for id in wanted {
                if exists.exists([&id])? {
                    kept.push(id);
                }
            }
            Ok(kept)
        })
    }

    fn forget(&self, ids: Vec<String>) -> Answer<'_, ()> {
        self.write(move |c| ids.iter().try_for_each(|id| forget(c, id)))
    }
}
