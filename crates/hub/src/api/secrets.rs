//! Named secrets.

use std::sync::Arc;

use legwork_api::{Code, ListSecrets, RemoveSecret, Secret, Secrets as Listed, SetSecret};

use super::door::Asked;
use super::problem::Problem;
use crate::engine::Hub;
use crate::secrets::{About, MAX_VALUE, Scope, SecretError, Secrets};

/// Most bytes of a name, and most entries of what bounds it.
const MAX_NAME: usize = 100;
const MAX_LISTED: usize = 64;
/// Fewest characters of a line that is masked.
const LEAST: usize = 4;

fn shown(about: About) -> Secret {
    let About { name, scope: Scope { tokens, tasks, runners }, set_by, set_at_ms } = about;
    Secret { name, tokens, tasks, runners, set_by, set_at_ms }
}

fn failed(error: &std::io::Error) -> Problem {
    tracing::error!("the secrets can't be kept or read: {error}");
    Problem::new(Code::StoreFailed, "the secrets can't be kept or read")
}

pub(super) async fn set(hub: Arc<Hub>, asked: Asked<SetSecret>) -> Result<Secret, Problem> {
    let new = asked.body;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if new.name.is_empty() || new.name.len() > MAX_NAME || !new.name.chars().all(is_plain) {
        return Err(Problem::field("name", "must be 1 to 100 letters, digits, -, _ and ."));
    }
    if new.value.len() > MAX_VALUE {
        return Err(Problem::field("value", "must be 4 to 32768 bytes long"));
    }
    if !new.value.lines().any(|line| line.trim().chars().count() >= LEAST) {
        let told = "must have a line of at least 4 characters: a shorter one stands in every other word, and could not be \
                    masked in what tasks tell; take a longer secret";
        return Err(Problem::field("value", told));
    }
    if new.value.contains('\0') {
        let told = "must have no NUL, which no variable can hold; encode it, as by base64, and let the task decode it";
        return Err(Problem::field("value", told));
    }
    if let Some(other) = new.tasks.iter().find(|kind| !["agent", "workflow"].contains(&kind.as_str())) {
        return Err(Problem::field("tasks", &format!("'{other}' is neither agent nor workflow")));
    }
    for (field, list) in [("tokens", &new.tokens), ("tasks", &new.tasks), ("runners", &new.runners)] {
        if list.len() > MAX_LISTED || list.iter().any(|entry| entry.is_empty() || entry.len() > 253) {
            return Err(Problem::field(field, "must be at most 64 names"));
        }
    }
    let scope = Scope { tokens: new.tokens, tasks: new.tasks, runners: new.runners };
    match hub.set_secret((new.name, scope, asked.by.name), new.value).await {
        Ok(about) => Ok(shown(about)),
        Err(SecretError::TooMany) => Err(Problem::field("name", "there are as many secrets as there may be")),
        Err(SecretError::Io(error)) => Err(failed(&error)),
        Err(error @ (SecretError::Unreadable(_) | SecretError::NoKey(_))) => {
            tracing::error!("{error}");
            Err(Problem::new(Code::StoreFailed, error.to_string()))
        }
    }
}

pub(super) async fn list(hub: Arc<Hub>, _: Asked<ListSecrets>) -> Result<Listed, Problem> {
    let secrets = Secrets::new(&hub.data);
    let listed = tokio::task::spawn_blocking(move || secrets.list()).await.map_err(Problem::internal)?;
    let listed = listed.map_err(|error| failed(&error))?;
    Ok(Listed { items: listed.items.into_iter().map(shown).collect(), damaged: listed.damaged })
}

pub(super) async fn remove(hub: Arc<Hub>, asked: Asked<RemoveSecret>) -> Result<(), Problem> {
    let (secrets, name) = (Secrets::new(&hub.data), asked.id.0.clone());
    let removed =
        tokio::task::spawn_blocking(move || secrets.remove(&name)).await.map_err(Problem::internal)?;
    match removed.map_err(|error| failed(&error))? {
        true => Ok(()),
        false => Err(Problem::absent::<legwork_api::SecretName>(&asked.id.0)),
    }
}
