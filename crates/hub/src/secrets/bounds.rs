//! What binds a task by the secrets it asks for: who may steer it, and who may work on it.

use serde::{Deserialize, Serialize};

use super::Scope;

/// A secret's list of names: who is not on it may not have the secret, nor what is done with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) secret: String,
    pub(crate) names: Vec<String>,
}

/// All of them, each of which binds by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tokens: Vec<Bound>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) runners: Vec<Bound>,
}

/// Whether a list has a name; one that ends in `*` stands for all that begin so, an empty list for all.
pub(super) fn holds(list: &[String], name: &str) -> bool {
    list.is_empty()
        || list.iter().any(|entry| match entry.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => entry == name,
        })
}

/// The first secret that is not for that name.
pub(crate) fn against<'a>(bounds: &'a [Bound], name: &str) -> Option<&'a str> {
    bounds.iter().find(|bound| !holds(&bound.names, name)).map(|bound| bound.secret.as_str())
}

impl Bounds {
    pub(super) fn add(&mut self, secret: &str, scope: Scope) {
        let Scope { tokens, runners, tasks: _ } = scope;
        for (bounds, names) in [(&mut self.tokens, tokens), (&mut self.runners, runners)] {
            if !names.is_empty() {
                bounds.push(Bound { secret: secret.to_owned(), names });
            }
        }
    }

    /// Binds by those tokens as well.
    pub(crate) fn also(&mut self, tokens: &[Bound]) {
        for bound in tokens {
            if !self.tokens.contains(bound) {
                self.tokens.push(bound.clone());
            }
        }
    }
}
