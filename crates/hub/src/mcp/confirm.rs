//! A person's yes, asked by the client at which that person sits.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_store::Approval;
use ring::hmac;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::act::asked;
use crate::clock::now_ms;

/// How long a person may think about a question; the approval itself may end before.
const LIFE_MS: u64 = 15 * 60 * 1000;
const QUESTION: &str = "yes";

/// Of this process: a question that was asked before a restart is asked again. Without randomness nothing is
/// asked.
static KEY: LazyLock<Option<hmac::Key>> =
    LazyLock::new(|| hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok());

/// What the question was about, whom it was for, and until when: sealed, as it comes back through the client.
fn facts(approval: &Approval, token: &str, until_ms: u64) -> String {
    format!("{until_ms}\n{}\n{}\n{token}", approval.id, approval.digest)
}

/// The question, with what must come back with the answer.
pub(super) fn ask(approval: &Approval, token: &str) -> Value {
    let until_ms = now_ms() + LIFE_MS;
    let seal =
        KEY.as_ref().map(|key| STANDARD.encode(hmac::sign(key, facts(approval, token, until_ms).as_bytes())));
    let schema = json!({
        "type": "object", "required": ["answer"],
        "properties": { "answer": { "type": "string", "enum": ["yes", "no"], "title": "May it run?" } },
    });
    let question = json!({
        "method": "elicitation/create",
        "params": { "mode": "form", "message": asked(approval), "requestedSchema": schema },
    });
    json!({
        "resultType": "input_required", "inputRequests": { QUESTION: question },
        "requestState": format!("{until_ms}.{}", seal.unwrap_or_default()),
    })
}

/// What the person said, if it was asked for this approval as it stands, of this token, and in time.
pub(super) fn said(
    approval: &Approval,
    token: &str,
    said: &Value,
    state: &str,
) -> Result<bool, &'static str> {
    let (until, seal) = state.split_once('.').unwrap_or_default();
    let until_ms: u64 = until.parse().unwrap_or(0);
    let seal = STANDARD.decode(seal).unwrap_or_default();
    let facts = facts(approval, token, until_ms);
    let is_ours = KEY.as_ref().is_some_and(|key| hmac::verify(key, facts.as_bytes(), &seal).is_ok());
    let now = now_ms();
    if !is_ours || until_ms <= now || until_ms > now + LIFE_MS {
        return Err("this answer is for another question, or too late: ask again");
    }
    let answer = &said[QUESTION];
    match (answer["action"].as_str(), answer["content"]["answer"].as_str()) {
        (Some("accept"), Some("yes")) => Ok(true),
        (Some("accept"), Some("no")) => Ok(false),
        _ => Err("the person did not answer"),
    }
}
