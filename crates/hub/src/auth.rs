//! Tokens: kept as hashes, found by hash, failures limited per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

use crate::clock::now_ms;
use crate::model::Role;

/// Failures an address may have within [`WINDOW`] before it has to wait.
const MAX_FAILURES: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; beyond it the table starts anew.
const MAX_ADDRESSES: usize = 100_000;

/// A token without its secret.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) runner_id: Option<String>,
    pub(crate) created_at_ms: u64,
    pub(crate) revoked: bool,
}

/// What a presented secret is worth.
#[derive(Debug, Clone)]
pub(crate) enum Checked {
    Valid(Token),
    /// Known, but not good any more.
    Revoked,
    Unknown,
    /// Too many unknown ones from this address.
    Limited,
}

#[derive(Debug, Default)]
pub(crate) struct Auth {
    by_hash: RwLock<HashMap<String, Token>>,
    failures: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

/// What is stored of a secret. Secrets are 256 random bits, so that one fast hash
/// is enough.
pub(crate) fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

impl Auth {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Vec<(String, Token)>> {
        let mut statement = connection
            .prepare("SELECT hash, id, name, role, runner_id, created_at_ms, revoked_at_ms FROM tokens")?;
        let rows = statement.query_map([], |row| {
            let role: String = row.get(3)?;
            let token = Token {
                id: row.get(1)?,
                name: row.get(2)?,
                role: Role::parse(&role).unwrap_or(Role::Viewer),
                runner_id: row.get(4)?,
                created_at_ms: u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0),
                revoked: row.get::<_, Option<i64>>(6)?.is_some(),
            };
            Ok((row.get(0)?, token))
        })?;
        rows.collect()
    }

    pub(crate) fn insert(connection: &Connection, hash: &str, token: &Token) -> rusqlite::Result<()> {
        connection.execute(
            "INSERT INTO tokens (id, name, role, hash, runner_id, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                token.id,
                token.name,
                token.role.as_str(),
                hash,
                token.runner_id,
                i64::try_from(token.created_at_ms).unwrap_or(i64::MAX)
            ],
        )?;
        Ok(())
    }

    /// Marks a token as revoked; false if it was already.
    pub(crate) fn revoke_stored(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
        let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
        let sql = "UPDATE tokens SET revoked_at_ms = ?2 WHERE id = ?1 AND revoked_at_ms IS NULL";
        Ok(connection.execute(sql, params![id, now])? == 1)
    }

    pub(crate) fn add(&self, hash: String, token: Token) {
        self.by_hash.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(hash, token);
    }

    pub(crate) fn revoke(&self, id: &str) {
        let mut tokens = self.by_hash.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for token in tokens.values_mut().filter(|t| t.id == id) {
            token.revoked = true;
        }
    }

    pub(crate) fn list(&self) -> Vec<Token> {
        let tokens = self.by_hash.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut list: Vec<Token> = tokens.values().cloned().collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    /// Checks a secret. Only unknown ones count against the address, and a valid
    /// one is never refused for the failures of others.
    pub(crate) fn check(&self, secret: &str, from: IpAddr) -> Checked {
        let found = {
            let tokens = self.by_hash.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            tokens.get(&hash(secret)).cloned()
        };
        match found {
            Some(token) if token.revoked => Checked::Revoked,
            Some(token) => Checked::Valid(token),
            None if self.failed(from) => Checked::Limited,
            None => Checked::Unknown,
        }
    }

    /// Counts a failure; true if there were too many.
    fn failed(&self, from: IpAddr) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if failures.len() > MAX_ADDRESSES {
            failures.clear();
        }
        let now = Instant::now();
        let entry = failures.entry(from).or_insert((now, 0));
        if now.duration_since(entry.0) > WINDOW {
            *entry = (now, 0);
        }
        entry.1 += 1;
        entry.1 > MAX_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_limited_and_valid_tokens_are_not() {
        let auth = Auth::default();
        let token = Token {
            id: "t".into(),
            name: "n".into(),
            role: Role::Admin,
            runner_id: None,
            created_at_ms: 0,
            revoked: false,
        };
        auth.add(hash("good"), token);
        let from: IpAddr = [127, 0, 0, 1].into();
        for _ in 0..MAX_FAILURES {
            assert!(matches!(auth.check("bad", from), Checked::Unknown));
        }
        assert!(matches!(auth.check("bad", from), Checked::Limited));
        assert!(matches!(auth.check("good", from), Checked::Valid(_)));
        assert!(matches!(auth.check("bad", [127, 0, 0, 2].into()), Checked::Unknown));
        auth.revoke("t");
        assert!(matches!(auth.check("good", from), Checked::Revoked));
    }
}
