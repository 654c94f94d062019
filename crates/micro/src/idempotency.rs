//! Results kept for the process's life, so that a command with a key runs once (§9).

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::request::Request;

/// Keys; a command with one more is refused, as forgetting one could run it twice.
const MAX_KEYS: usize = 10_000;
/// Bytes of results kept in all. The result of a command beyond it is not kept, but that
/// it ran is.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// Nothing: run it.
    New,
    /// The result, as it was sent.
    Result(&'a str),
    /// Why it can't be run.
    Refused(&'static str),
}

#[derive(Debug)]
struct Kept {
    digest: [u8; 32],
    result: Option<String>,
}

/// The keys of this process.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    kept: HashMap<String, Kept>,
    bytes: usize,
}

impl Keys {
    /// Looks a command up.
    pub(crate) fn look_up(&self, key: &str, request: &Request) -> Known<'_> {
        match self.kept.get(key) {
            None if self.kept.len() >= MAX_KEYS => Known::Refused("too many idempotency keys"),
            None => Known::New,
            Some(kept) if kept.digest != digest(request) => {
                Known::Refused("idempotency key was used for another command")
            }
            Some(Kept { result: Some(result), .. }) => Known::Result(result),
            Some(_) => Known::Refused("the command has run, but its result was too large to be kept"),
        }
    }

    /// Keeps a result.
    pub(crate) fn keep(&mut self, key: String, request: &Request, result: String) {
        let fits = self.bytes + result.len() + key.len() <= MAX_BYTES;
        self.bytes += key.len() + if fits { result.len() } else { 0 };
        self.kept.insert(key, Kept { digest: digest(request), result: fits.then_some(result) });
    }
}

fn digest(request: &Request) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(request.kind.name());
    hash.update(b"\n");
    hash.update(&request.params);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use legwork_proto::micro::CommandType;

    use super::*;

    fn request(params: &str) -> Request {
        let params = params.to_owned();
        Request { id: "a".into(), kind: CommandType::Exec, timeout: 1, params, key: None, signature: None }
    }

    #[test]
    fn a_key_stands_for_one_command() {
        let mut keys = Keys::default();
        assert_eq!(keys.look_up("k", &request("1")), Known::New);
        keys.keep("k".into(), &request("1"), "r".into());
        assert_eq!(keys.look_up("k", &request("1")), Known::Result("r"));
        assert!(matches!(keys.look_up("k", &request("2")), Known::Refused(_)));
    }

    #[test]
    fn what_is_too_large_is_not_run_again() {
        let mut keys = Keys::default();
        keys.keep("k".into(), &request("1"), "x".repeat(MAX_BYTES));
        assert!(matches!(keys.look_up("k", &request("1")), Known::Refused(_)));
    }
}
