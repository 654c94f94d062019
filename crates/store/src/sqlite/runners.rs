//! The table `runners`.

use rusqlite::{Connection, named_params};

use super::{Sqlite, json, number, signed, text, texts};
use crate::{Answer, Room, RunnerRow, Runners, Then};

pub(super) fn keep(c: &Connection, runner: &RunnerRow) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO runners (id, name, labels, version, environment, boot_id, created_at_ms, last_seen_ms,
             token_id, display_name, set_labels, drained)
         VALUES (:id, :name, :labels, :version, :environment, :boot_id, :created_at_ms, :last_seen_ms,
             :token_id, :display_name, :set_labels, :drained)
         ON CONFLICT (id) DO UPDATE SET name = :name, labels = :labels, version = :version,
             environment = :environment, boot_id = :boot_id, last_seen_ms = :last_seen_ms,
             display_name = :display_name, set_labels = :set_labels, drained = :drained";
    c.prepare_cached(sql)?.execute(named_params! {
        ":id": runner.id,
        ":name": runner.name,
        ":labels": json(&runner.labels),
        ":version": runner.version,
        ":environment": runner.environment,
        ":boot_id": runner.boot_id,
        ":created_at_ms": signed(runner.created_at_ms),
        ":last_seen_ms": signed(runner.last_seen_ms),
        ":token_id": runner.token_id,
        ":display_name": runner.display_name,
        ":set_labels": json(&runner.set_labels),
        ":drained": runner.drained,
    })?;
    Ok(())
}

impl Runners for Sqlite {
    fn runners(&self) -> Answer<'_, Vec<RunnerRow>> {
        self.read(|c| {
            let mut statement = c.prepare(
                "SELECT id, name, labels, version, environment, boot_id, created_at_ms, last_seen_ms, token_id,
                     display_name, set_labels, drained,
                     (SELECT name FROM tokens WHERE tokens.id = token_id AND tokens.role = 'runner') AS given_name
                 FROM runners ORDER BY id",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(RunnerRow {
                    id: row.get("id")?,
                    name: row.get("name")?,
                    labels: texts(row, "labels")?,
                    version: row.get("version")?,
                    environment: row.get("environment")?,
                    boot_id: row.get("boot_id")?,
                    created_at_ms: number(row, "created_at_ms")?,
                    last_seen_ms: number(row, "last_seen_ms")?,
                    token_id: text(row, "token_id")?,
                    display_name: row.get("display_name")?,
                    set_labels: texts(row, "set_labels")?,
                    drained: row.get("drained")?,
                    given_name: text(row, "given_name")?,
                })
            })?;
            rows.collect()
        })
    }

    fn keep_runner(&self, runner: RunnerRow, then: Then<()>) -> Room<'_> {
        self.queue(move |c| keep(c, &runner), then)
    }

    fn forget_runner(&self, id: String) -> Answer<'_, ()> {
        self.write(move |c| c.prepare_cached("DELETE FROM runners WHERE id = ?1")?.execute([id]).map(|_| ()))
    }
}
