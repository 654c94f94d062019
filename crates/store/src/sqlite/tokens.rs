//! The table `tokens`.

use rusqlite::named_params;

use super::{Sqlite, number, runners, signed, text, time};
use crate::{Answer, Role, RunnerRow, Token, Tokens};

impl Tokens for Sqlite {
    fn tokens(&self) -> Answer<'_, Vec<(String, Token)>> {
        self.read(|c| {
            let mut statement = c.prepare(
                "SELECT hash, id, name, role, runner_id, created_at_ms, revoked_at_ms, expires_at_ms
                 FROM tokens ORDER BY id",
            )?;
            let rows = statement.query_map([], |row| {
                // A role that this hub does not know opens nothing.
                let Some(role) = Role::parse(&text(row, "role")?) else { return Ok(None) };
                let token = Token {
                    id: row.get("id")?,
                    name: row.get("name")?,
                    role,
                    runner_id: row.get("runner_id")?,
                    created_at_ms: number(row, "created_at_ms")?,
                    expires_at_ms: time(row, "expires_at_ms")?,
                    revoked: time(row, "revoked_at_ms")?.is_some(),
                };
                Ok(Some((row.get("hash")?, token)))
            })?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    fn keep_token(&self, hash: String, token: Token, runner: Option<RunnerRow>) -> Answer<'_, ()> {
        self.write(move |c| {
            let sql = "INSERT INTO tokens (id, name, role, hash, runner_id, created_at_ms, expires_at_ms)
                 VALUES (:id, :name, :role, :hash, :runner_id, :created_at_ms, :expires_at_ms)";
            c.prepare_cached(sql)?.execute(named_params! {
                ":id": token.id,
                ":name": token.name,
                ":role": token.role.as_str(),
                ":hash": hash,
                ":runner_id": token.runner_id,
                ":created_at_ms": signed(token.created_at_ms),
                ":expires_at_ms": token.expires_at_ms.map(signed),
            })?;
            runner.map_or(Ok(()), |runner| runners::keep(c, &runner))
        })
    }

    fn revoke_token(&self, id: String, at_ms: u64) -> Answer<'_, bool> {
        self.write(move |c| {
            super::approvals::end_grants(c, &id)?;
            let sql = "UPDATE tokens SET revoked_at_ms = :at WHERE id = :id AND revoked_at_ms IS NULL";
            Ok(c.prepare_cached(sql)?.execute(named_params! { ":id": id, ":at": signed(at_ms) })? == 1)
        })
    }
}
