//! The table `runs`, as runs move.

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{Sqlite, number, payload, put_payload, signed, text, time};
use crate::{
    Answer, ApprovalState, Assignment, End, GivenUp, OpenApproval, OpenRun, Room, Runs, State, Then,
};

fn open_row(row: &Row<'_>) -> rusqlite::Result<OpenRun> {
    Ok(OpenRun {
        id: row.get("id")?,
        task_id: row.get("task_id")?,
        number: row.get("number")?,
        ordinal: row.get("ordinal")?,
        runner_id: row.get("runner_id")?,
        runner_name: row.get("runner_name")?,
        state: State::parse(&text(row, "state")?),
        delivered_boot: text(row, "delivered_boot")?,
        cancel_requested: row.get("cancel_requested")?,
        delivered_at_ms: time(row, "delivered_at_ms")?,
        key: row.get("key")?,
        attempts: row.get("attempts")?,
        has_effects: row.get("has_effects")?,
        operation: row.get("operation")?,
        args: row.get("args")?,
        selection: row.get("selection")?,
        timeout_s: number(row, "timeout_s")?,
        created_by: row.get("created_by")?,
        token_id: text(row, "token_id")?,
        session_id: row.get("session_id")?,
        expires_at_ms: number(row, "expires_at_ms")?,
        others_over: row.get("others_over")?,
        approval: match row.get::<_, Option<String>>("approval")? {
            Some(id) => Some(OpenApproval {
                id,
                state: ApprovalState::parse(&text(row, "approval_state")?).unwrap_or(ApprovalState::Closed),
                until_ms: number(row, "approval_expires")?,
                edited: row.get("approval_edited")?,
            }),
            None => None,
        },
        reason: row.get("reason")?,
    })
}

const GIVEN_UP: &str =
    "SELECT r.id, r.state, r.task_id, r.ordinal, r.runner_id, r.runner_name, r.delivered_boot, r.delivered_at_ms,
         r.cancel_requested, t.operation, t.timeout_s
     FROM runs r JOIN tasks t ON t.id = r.task_id WHERE r.unconfirmed = 1";

fn given_up_row(row: &Row<'_>) -> rusqlite::Result<GivenUp> {
    Ok(GivenUp {
        id: row.get("id")?,
        state: State::parse(&text(row, "state")?).unwrap_or(State::Lost),
        task_id: row.get("task_id")?,
        ordinal: row.get("ordinal")?,
        runner_id: row.get("runner_id")?,
        runner_name: row.get("runner_name")?,
        delivered_boot: text(row, "delivered_boot")?,
        delivered_at_ms: number(row, "delivered_at_ms")?,
        cancel_requested: row.get("cancel_requested")?,
        operation: row.get("operation")?,
        timeout_s: number(row, "timeout_s")?,
    })
}

fn assign(c: &Connection, id: &str, to: &Assignment) -> rusqlite::Result<String> {
    let sql = "UPDATE runs SET state = 'delivered', runner_name = :runner, key = :key, attempts = :attempts,
                   delivered_at_ms = :at
               WHERE id = :id AND finished_at_ms IS NULL RETURNING task_id";
    let task_id: String = c.prepare_cached(sql)?.query_row(
        named_params! {
            ":id": id,
            ":runner": to.runner,
            ":key": to.key,
            ":attempts": to.attempts,
            ":at": signed(to.at_ms),
        },
        |row| row.get(0),
    )?;
    if let Some((hash, session, expires_at_ms)) = &to.session {
        super::sessions::keep_token(c, hash, session, to.at_ms, *expires_at_ms)?;
    }
    let args: String =
        c.prepare_cached("SELECT args FROM tasks WHERE id = ?1")?.query_row([&task_id], |row| row.get(0))?;
    if args.is_empty() { Ok(payload(c, &task_id)?.unwrap_or_default()) } else { Ok(args) }
}

fn finish(c: &Connection, id: &str, end: &End, at_ms: u64) -> rusqlite::Result<bool> {
    let sql = "UPDATE runs SET state = :state, exit_code = :exit_code, error = :error, suggestion = :suggestion, code = :code, usage = :usage,
                   finished_at_ms = :at, unconfirmed = :unconfirmed, key = NULL,
                   started_at_ms = coalesce(started_at_ms, delivered_at_ms)
               WHERE id = :id AND finished_at_ms IS NULL";
    let changed = c.prepare_cached(sql)?.execute(named_params! {
        ":id": id,
        ":state": end.state.as_str(),
        ":exit_code": end.exit_code,
        ":error": end.error,
        ":suggestion": end.suggestion,
        ":code": end.code,
        ":usage": end.usage,
        ":at": signed(at_ms),
        ":unconfirmed": end.unconfirmed,
    })?;
    if changed == 1
        && let Some(result) = &end.result
        && let Some(result) = put_payload(c, id, result)?
    {
        c.prepare_cached("UPDATE runs SET result = ?2 WHERE id = ?1")?.execute([id, result])?;
    }
    if changed == 1 {
        super::approvals::close_of_run(c, id, end.state, at_ms)?;
    }
    Ok(changed == 1)
}

impl Runs for Sqlite {
    fn open_runs(&self) -> Answer<'_, Vec<OpenRun>> {
        self.read(|c| {
            let mut statement = c.prepare(
                "SELECT r.id, r.task_id, r.ordinal, r.runner_id, r.runner_name, r.state, r.delivered_boot,
                     r.cancel_requested, r.delivered_at_ms, r.key, r.attempts, r.has_effects, t.number,
                     t.operation, t.args, t.selection, t.timeout_s, t.created_by, t.token_id, t.session_id,
                     t.expires_at_ms,
                     EXISTS (SELECT 1 FROM runs o WHERE o.task_id = t.id AND o.finished_at_ms IS NOT NULL)
                         AS others_over,
                     t.reason, a.id AS approval, a.state AS approval_state,
                     a.expires_at_ms AS approval_expires, a.edited AS approval_edited
                 FROM runs r JOIN tasks t ON t.id = r.task_id
                     LEFT JOIN approvals a ON a.id = (SELECT max(id) FROM approvals WHERE run_id = r.id)
                 WHERE r.finished_at_ms IS NULL ORDER BY r.id",
            )?;
            statement.query_map([], open_row)?.collect()
        })
    }

    fn deliver(&self, ids: Vec<String>, boot: String, at_ms: u64) -> Answer<'_, ()> {
        self.write(move |c| {
            let mut update = c.prepare_cached(
                "UPDATE runs SET state = 'delivered', delivered_boot = :boot, delivered_at_ms = :at
                 WHERE id = :id AND finished_at_ms IS NULL",
            )?;
            ids.iter().try_for_each(|id| {
                update.execute(named_params! { ":id": id, ":boot": boot, ":at": signed(at_ms) }).map(|_| ())
            })
        })
    }

    fn assign(&self, id: String, to: Assignment) -> Answer<'_, String> {
        self.write(move |c| assign(c, &id, &to))
    }

    fn requeue(&self, id: String) -> Answer<'_, ()> {
        self.write(move |c| {
            let sql = "UPDATE runs SET state = 'queued', runner_name = '', key = NULL, delivered_at_ms = NULL
                       WHERE id = ?1 AND finished_at_ms IS NULL";
            c.prepare_cached(sql)?.execute([id]).map(|_| ())
        })
    }

    fn accept(&self, id: String, has_effects: bool, at_ms: u64, then: Then<()>) -> Room<'_> {
        let write = move |c: &Connection| {
            let sql = "UPDATE runs SET state = 'running', has_effects = has_effects OR :has_effects,
                           started_at_ms = coalesce(started_at_ms, :at)
                       WHERE id = :id AND state IN ('delivered', 'accepted', 'running')";
            c.prepare_cached(sql)?
                .execute(named_params! { ":id": id, ":has_effects": has_effects, ":at": signed(at_ms) })
                .map(|_| ())
        };
        self.queue(write, then)
    }

    fn finish(&self, id: String, end: End, at_ms: u64, then: Then<bool>) -> Room<'_> {
        self.queue(move |c| finish(c, &id, &end, at_ms), then)
    }

    fn revive(&self, id: String) -> Answer<'_, bool> {
        self.write(move |c| {
            let sql =
                "UPDATE runs SET state = 'running', finished_at_ms = NULL, error = NULL, unconfirmed = 0
                       WHERE id = ?1 AND unconfirmed = 1";
            Ok(c.prepare_cached(sql)?.execute([id])? == 1)
        })
    }

    fn cancel(&self, ids: Vec<String>) -> Answer<'_, ()> {
        self.write(move |c| {
            let mut update = c.prepare_cached("UPDATE runs SET cancel_requested = 1 WHERE id = ?1")?;
            ids.iter().try_for_each(|id| update.execute([id]).map(|_| ()))
        })
    }

    fn cancel_given_up(&self, task_id: String) -> Answer<'_, Vec<(String, String)>> {
        self.write(move |c| {
            let mut statement = c.prepare_cached(
                "UPDATE runs SET cancel_requested = 1 WHERE task_id = ?1 AND unconfirmed = 1
                 RETURNING id, runner_id",
            )?;
            statement.query_map([task_id], |row| Ok((row.get("id")?, row.get("runner_id")?)))?.collect()
        })
    }

    fn given_up_of(&self, runner_id: String, since_ms: u64) -> Answer<'_, Vec<GivenUp>> {
        self.read(move |c| {
            let sql =
                format!("{GIVEN_UP} AND r.runner_id = :runner AND r.finished_at_ms > :since ORDER BY r.id");
            let mut statement = c.prepare_cached(&sql)?;
            let params = named_params! { ":runner": runner_id, ":since": signed(since_ms) };
            statement.query_map(params, given_up_row)?.collect()
        })
    }

    fn given_up(&self, id: String, runner_id: String) -> Answer<'_, Option<GivenUp>> {
        self.read(move |c| {
            let sql = format!("{GIVEN_UP} AND r.id = :id AND r.runner_id = :runner");
            c.prepare_cached(&sql)?
                .query_row(named_params! { ":id": id, ":runner": runner_id }, given_up_row)
                .optional()
        })
    }
}
