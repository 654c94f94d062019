//! Tokens: kept as hashes, found by hash, failures limited per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::clock::now_ms;
use crate::model::Role;

/// Failures an address may have within [`WINDOW`] before it has to wait.
const MAX_FAILURES: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; beyond it the table starts anew.
const MAX_ADDRESSES: usize = 100_000;
/// How long a wait for a token's expiry trusts the clock.
const LOOK: Duration = Duration::from_millis(500);

/// A token without its secret.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) runner_id: Option<String>,
    pub(crate) created_at_ms: u64,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) revoked: bool,
}

impl Token {
    pub(crate) fn is_expired(&self) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms())
    }

    /// Whether it opens anything.
    pub(crate) fn is_good(&self) -> bool {
        !self.revoked && !self.is_expired()
    }
}

/// A token that was shown and is good, until it ends.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) token: Token,
    over: watch::Receiver<bool>,
}

impl Grant {
    /// Waits until the token is revoked or expires. What hangs on it ends then.
    pub(crate) async fn ended(mut self) {
        let token = self.token.clone();
        let expired = async {
            match token.expires_at_ms {
                None => std::future::pending().await,
                Some(_) => {
                    while !token.is_expired() {
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
        };
        tokio::select! {
            _ = self.over.wait_for(|over| *over) => {}
            () = expired => {}
        }
    }
}

/// What a presented secret is worth.
#[derive(Debug, Clone)]
pub(crate) enum Checked {
    Valid(Grant),
    /// Known, but not good any more.
    Revoked,
    Expired,
    Unknown,
    /// Too many unknown ones from this address.
    Limited,
}

#[derive(Debug)]
struct Known {
    token: Token,
    over: watch::Sender<bool>,
}

#[derive(Debug, Default)]
pub(crate) struct Auth {
    by_hash: RwLock<HashMap<String, Known>>,
    failures: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

/// What is stored of a secret. Secrets are 256 random bits, so that one fast hash
/// is enough.
pub(crate) fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

impl Auth {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Vec<(String, Token)>> {
        let mut statement = connection.prepare(
            "SELECT hash, id, name, role, runner_id, created_at_ms, revoked_at_ms, expires_at_ms FROM tokens",
        )?;
        let rows = statement.query_map([], |row| {
            let role: String = row.get(3)?;
            // A role that this hub does not know opens nothing.
            let Some(role) = Role::parse(&role) else { return Ok(None) };
            let token = Token {
                id: row.get(1)?,
                name: row.get(2)?,
                role,
                runner_id: row.get(4)?,
                created_at_ms: u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0),
                expires_at_ms: row.get::<_, Option<i64>>(7)?.map(|at| u64::try_from(at).unwrap_or(0)),
                revoked: row.get::<_, Option<i64>>(6)?.is_some(),
            };
            Ok(Some((row.get(0)?, token)))
        })?;
        rows.filter_map(Result::transpose).collect()
    }

    pub(crate) fn insert(connection: &Connection, hash: &str, token: &Token) -> rusqlite::Result<()> {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        connection.execute(
            "INSERT INTO tokens (id, name, role, hash, runner_id, created_at_ms, expires_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                token.id,
                token.name,
                token.role.as_str(),
                hash,
                token.runner_id,
                signed(token.created_at_ms),
                token.expires_at_ms.map(signed)
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

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Known>> {
        self.by_hash.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn add(&self, hash: String, token: Token) {
        let known = Known { over: watch::Sender::new(token.revoked), token };
        self.by_hash.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(hash, known);
    }

    /// Ends a token, and all that hangs on it.
    pub(crate) fn revoke(&self, id: &str) {
        let mut tokens = self.by_hash.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for known in tokens.values_mut().filter(|known| known.token.id == id) {
            known.token.revoked = true;
            known.over.send_replace(true);
        }
    }

    pub(crate) fn list(&self) -> Vec<Token> {
        let mut list: Vec<Token> = self.read().values().map(|known| known.token.clone()).collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    /// Those that expire, revoked ones left out.
    pub(crate) fn list_expiring(&self) -> Vec<Token> {
        let expires = |t: &&Token| t.expires_at_ms.is_some() && !t.revoked;
        self.read().values().map(|known| &known.token).filter(expires).cloned().collect()
    }

    /// Whether a token is the only way in that lasts.
    pub(crate) fn is_last_admin(&self, id: &str) -> bool {
        let lasts = |t: &Token| t.role == Role::Admin && t.is_good() && t.expires_at_ms.is_none();
        let tokens = self.read();
        let mut admins = tokens.values().map(|known| &known.token).filter(|t| lasts(t));
        admins.clone().any(|t| t.id == id) && admins.all(|t| t.id == id)
    }

    /// Checks a secret. Only unknown ones count against the address, and a valid
    /// one is never refused for the failures of others.
    pub(crate) fn check(&self, secret: &str, from: IpAddr) -> Checked {
        let found = {
            let tokens = self.read();
            tokens
                .get(&hash(secret))
                .map(|known| Grant { token: known.token.clone(), over: known.over.subscribe() })
        };
        match found {
            Some(grant) if grant.token.revoked => Checked::Revoked,
            Some(grant) if grant.token.is_expired() => Checked::Expired,
            Some(grant) => Checked::Valid(grant),
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

    fn token(id: &str) -> Token {
        Token {
            id: id.into(),
            name: "n".into(),
            role: Role::Admin,
            runner_id: None,
            created_at_ms: 0,
            expires_at_ms: None,
            revoked: false,
        }
    }

    #[tokio::test]
    async fn a_grant_ends_with_its_token() {
        let auth = Auth::default();
        let from: IpAddr = [127, 0, 0, 1].into();
        auth.add(hash("a"), token("a"));
        auth.add(hash("b"), Token { expires_at_ms: Some(now_ms() + 300), ..token("b") });
        let grant = |secret: &str| match auth.check(secret, from) {
            Checked::Valid(grant) => grant,
            other => panic!("{other:?}"),
        };
        let (a, b) = (grant("a"), grant("b"));
        assert!(auth.is_last_admin("a") && !auth.is_last_admin("b"));
        b.ended().await;
        assert!(matches!(auth.check("b", from), Checked::Expired));
        auth.revoke("a");
        a.ended().await;
        assert!(!auth.is_last_admin("a"));
    }

    #[test]
    fn failures_are_limited_and_valid_tokens_are_not() {
        let auth = Auth::default();
        auth.add(hash("good"), token("t"));
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
