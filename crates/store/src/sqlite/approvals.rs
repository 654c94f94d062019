//! The tables `approvals` and `grants`.

use legwork_api::{ApprovalKind, ApprovalState, Vote};
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{Sqlite, number, signed, time};
use crate::{Answer, Approval, ApprovalFilter, Approvals, Decided, Decision, Room, State, Then};

const ALL: &str = "SELECT * FROM approvals";

fn approval_row(row: &Row<'_>) -> rusqlite::Result<Approval> {
    let votes: String = row.get("votes")?;
    let (kind, state): (String, String) = (row.get("kind")?, row.get("state")?);
    Ok(Approval {
        id: row.get("id")?,
        kind: ApprovalKind::parse(&kind).unwrap_or(ApprovalKind::Command),
        // One that a newer hub left says nothing to this one.
        state: ApprovalState::parse(&state).unwrap_or(ApprovalState::Closed),
        task_id: row.get("task_id")?,
        run_id: row.get("run_id")?,
        runner_id: row.get("runner_id")?,
        runner_name: row.get("runner_name")?,
        command: row.get("command")?,
        line: row.get("line")?,
        workdir: row.get("workdir")?,
        timeout_s: number(row, "timeout_s")?,
        part: row.get("part")?,
        rule: row.get("rule")?,
        digest: row.get("digest")?,
        ticket: row.get("ticket")?,
        persons: row.get("persons")?,
        reason: row.get("reason")?,
        asked_by: row.get("asked_by")?,
        asked_by_token: row.get("asked_by_token")?,
        refused: row.get("refused")?,
        votes: serde_json::from_str(&votes).unwrap_or_default(),
        note: row.get("note")?,
        edited: row.get("edited")?,
        grant_until_ms: time(row, "grant_until_ms")?,
        created_at_ms: number(row, "created_at_ms")?,
        expires_at_ms: number(row, "expires_at_ms")?,
        decided_at_ms: time(row, "decided_at_ms")?,
    })
}

fn one(c: &Connection, id: &str) -> rusqlite::Result<Option<Approval>> {
    let sql = format!("{ALL} WHERE id = ?1");
    c.prepare_cached(&sql)?.query_row([id], approval_row).optional()
}

fn keep(c: &Connection, a: &Approval) -> rusqlite::Result<()> {
    let sql = "INSERT INTO approvals (id, kind, state, task_id, run_id, runner_id, runner_name, command, line, workdir,
                   timeout_s, part, rule, digest, ticket, persons, reason, asked_by, asked_by_token, refused, votes,
                   note, edited, grant_until_ms, created_at_ms, expires_at_ms, decided_at_ms)
               VALUES (:id, :kind, :state, :task, :run, :runner, :runner_name, :command, :line, :workdir, :timeout,
                   :part, :rule, :digest, :ticket, :persons, :reason, :asked_by, :asked_by_token, :refused, :votes,
                   :note, :edited, :grant, :created, :expires, :decided)
               ON CONFLICT (id) DO UPDATE SET state = :state, votes = :votes, note = :note, edited = :edited,
                   grant_until_ms = :grant, expires_at_ms = :expires, decided_at_ms = :decided";
    c.prepare_cached(sql)?.execute(named_params! {
        ":id": a.id,
        ":kind": a.kind.as_str(),
        ":state": a.state.as_str(),
        ":task": a.task_id,
        ":run": a.run_id,
        ":runner": a.runner_id,
        ":runner_name": a.runner_name,
        ":command": a.command,
        ":line": a.line,
        ":workdir": a.workdir,
        ":timeout": signed(a.timeout_s),
        ":part": a.part,
        ":rule": a.rule,
        ":digest": a.digest,
        ":ticket": a.ticket,
        ":persons": a.persons,
        ":reason": a.reason,
        ":asked_by": a.asked_by,
        ":asked_by_token": a.asked_by_token,
        ":refused": a.refused,
        ":votes": serde_json::to_string(&a.votes).unwrap_or_default(),
        ":note": a.note,
        ":edited": a.edited,
        ":grant": a.grant_until_ms.map(signed),
        ":created": signed(a.created_at_ms),
        ":expires": signed(a.expires_at_ms),
        ":decided": a.decided_at_ms.map(signed),
    })?;
    Ok(())
}

fn put_run(c: &Connection, id: &str, from: &str, to: &str) -> rusqlite::Result<bool> {
    let sql = "UPDATE runs SET state = :to WHERE id = :id AND state = :from AND finished_at_ms IS NULL";
    Ok(c.prepare_cached(sql)?.execute(named_params! { ":id": id, ":from": from, ":to": to })? == 1)
}

fn hold(c: &Connection, mut approval: Approval) -> rusqlite::Result<Option<Approval>> {
    let granted = granted(c, &approval)?;
    let to = if granted.is_some() { "queued" } else { "held" };
    if !put_run(c, &approval.run_id, "delivered", to)? {
        return Ok(None);
    }
    if let Some((vote, until_ms)) = granted {
        approval.state = ApprovalState::Approved;
        approval.decided_at_ms = Some(vote.at_ms);
        approval.note = Some("said for a time, to this very line".into());
        approval.grant_until_ms = Some(until_ms);
        approval.votes = vec![vote];
    }
    keep(c, &approval)?;
    Ok(Some(approval))
}

/// A yes that was given for a time, and speaks for this one.
fn granted(c: &Connection, a: &Approval) -> rusqlite::Result<Option<(Vote, u64)>> {
    if a.persons > 1 {
        return Ok(None);
    }
    let sql = "SELECT by_name, by_token, until_ms FROM grants
               WHERE runner_id = :runner AND digest = :digest AND asked_by_token = :asker AND until_ms > :now
               ORDER BY until_ms DESC LIMIT 1";
    let params = named_params! {
        ":runner": a.runner_id, ":digest": a.digest, ":asker": a.asked_by_token, ":now": signed(a.created_at_ms),
    };
    c.prepare_cached(sql)?
        .query_row(params, |row| {
            let vote = Vote {
                by: row.get(0)?,
                by_token: row.get::<_, String>(1)?.into(),
                yes: true,
                at_ms: a.created_at_ms,
            };
            Ok((vote, number(row, "until_ms")?))
        })
        .optional()
}

fn decide(c: &Connection, decision: Decision) -> rusqlite::Result<Decided> {
    let Decision { id, vote, note, grant_until_ms, edited } = decision;
    let Some(mut a) = one(c, &id)? else { return Ok(Decided::Unknown) };
    let said = a.votes.iter().any(|other| other.by_token == vote.by_token);
    if a.state != ApprovalState::Waiting || said {
        return Ok(Decided::Late(Box::new(a)));
    }
    let at_ms = vote.at_ms;
    let yes = vote.yes;
    a.votes.push(vote);
    a.note = note.or(a.note);
    let enough = a.votes.iter().filter(|vote| vote.yes).count() >= usize::from(a.persons.max(1));
    if !yes {
        a.state = ApprovalState::Denied;
    } else if edited.is_some() {
        a.state = ApprovalState::Edited;
        a.edited = edited;
    } else if enough {
        a.state = ApprovalState::Approved;
        a.grant_until_ms = grant_until_ms;
    }
    if a.state != ApprovalState::Waiting {
        a.decided_at_ms = Some(at_ms);
    }
    let goes_on = matches!(a.state, ApprovalState::Approved | ApprovalState::Edited);
    if goes_on && a.kind == ApprovalKind::Command && !put_run(c, &a.run_id, "held", "queued")? {
        // Its run has come to its end meanwhile.
        return Ok(Decided::Late(Box::new(a)));
    }
    keep(c, &a)?;
    if let (ApprovalState::Approved, Some(until_ms), Some(last)) = (a.state, a.grant_until_ms, a.votes.last())
    {
        let sql = "INSERT INTO grants (id, runner_id, digest, asked_by_token, by_name, by_token, until_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let until = signed(until_ms);
        let params =
            (&a.id, &a.runner_id, &a.digest, &a.asked_by_token, &last.by, last.by_token.as_str(), until);
        c.prepare_cached(sql)?.execute(params)?;
        c.prepare_cached("DELETE FROM grants WHERE until_ms <= ?1")?.execute([signed(at_ms)])?;
    }
    Ok(Decided::Counts(Box::new(a)))
}

/// What still waits for a run that is over waits for nothing.
pub(super) fn close_of_run(c: &Connection, run_id: &str, end: State, at_ms: u64) -> rusqlite::Result<()> {
    let state = if end == State::Expired { ApprovalState::Expired } else { ApprovalState::Closed };
    let sql = "UPDATE approvals SET state = ?3, decided_at_ms = ?2 WHERE run_id = ?1 AND state = 'waiting'";
    c.prepare_cached(sql)?.execute((run_id, signed(at_ms), state.as_str())).map(|_| ())
}

/// What a person said for a time ends with the token it was said by.
pub(super) fn end_grants(c: &Connection, token_id: &str) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM grants WHERE by_token = ?1")?.execute([token_id]).map(|_| ())
}

fn list(c: &Connection, filter: &ApprovalFilter) -> rusqlite::Result<Vec<Approval>> {
    let mut sql = format!("{ALL} WHERE id < :before");
    if filter.state.is_some() {
        sql.push_str(" AND state = :state");
    } else {
        sql.push_str(" AND :state = ''");
    }
    if filter.task.is_some() {
        sql.push_str(" AND task_id = :task");
    } else {
        sql.push_str(" AND :task = ''");
    }
    sql.push_str(" ORDER BY id DESC LIMIT :limit");
    let params = named_params! {
        // Behind every id.
        ":before": filter.before.as_deref().unwrap_or("\u{7f}"),
        ":state": filter.state.map(|state| state.as_str()).unwrap_or_default(),
        ":task": filter.task.as_deref().unwrap_or_default(),
        ":limit": filter.limit,
    };
    c.prepare_cached(&sql)?.query_map(params, approval_row)?.collect()
}

impl Approvals for Sqlite {
    fn hold(&self, approval: Approval, then: Then<Option<Approval>>) -> Room<'_> {
        self.queue(move |c| hold(c, approval), then)
    }

    fn ask(&self, approval: Approval) -> Answer<'_, ()> {
        self.write(move |c| keep(c, &approval))
    }

    fn decide(&self, decision: Decision) -> Answer<'_, Decided> {
        self.write(move |c| decide(c, decision))
    }

    fn close(&self, id: String, state: ApprovalState, at_ms: u64) -> Answer<'_, Option<Approval>> {
        self.write(move |c| {
            let sql =
                "UPDATE approvals SET state = ?2, decided_at_ms = ?3 WHERE id = ?1 AND state = 'waiting'";
            let changed = c.prepare_cached(sql)?.execute((&id, state.as_str(), signed(at_ms)))?;
            if changed == 1 { one(c, &id) } else { Ok(None) }
        })
    }

    fn approval(&self, id: String) -> Answer<'_, Option<Approval>> {
        self.read(move |c| one(c, &id))
    }

    fn approvals(&self, filter: ApprovalFilter) -> Answer<'_, Vec<Approval>> {
        self.read(move |c| list(c, &filter))
    }
}
