//! Tokens: kept as hashes, found by hash, failures limited per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use legwork_store::Token;
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

/// Whether a token's time is over.
pub(crate) fn is_expired(token: &Token) -> bool {
    token.expires_at_ms.is_some_and(|at| at <= now_ms())
}

/// Whether a token opens anything.
pub(crate) fn is_good(token: &Token) -> bool {
    !token.revoked && !is_expired(token)
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
                    while !is_expired(&token) {
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
        let lasts = |t: &Token| t.role == Role::Admin && is_good(t) && t.expires_at_ms.is_none();
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
            Some(grant) if is_expired(&grant.token) => Checked::Expired,
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
