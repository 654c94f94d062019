//! Tokens, known by the hashes of their secrets.

use crate::{Answer, Role, RunnerRow};

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// What it was made for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose it is, if it is a runner's.
    pub runner_id: Option<String>,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds; `None` if it lasts.
    pub expires_at_ms: Option<u64>,
    /// It opens nothing any more.
    pub revoked: bool,
}

/// What is kept of tokens; never a secret, only its hash.
pub trait Tokens {
    /// All whose role is known, with the hashes of their secrets.
    fn tokens(&self) -> Answer<'_, Vec<(String, Token)>>;
    /// Keeps a new one, and the runner that comes with it.
    fn keep_token(&self, hash: String, token: Token, runner: Option<RunnerRow>) -> Answer<'_, ()>;
    /// Ends one; false if it was ended before.
    fn revoke_token(&self, id: String, at_ms: u64) -> Answer<'_, bool>;
}
