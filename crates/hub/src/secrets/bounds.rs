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

    /// Whether a runner of some name may have all of the secrets.
    pub(crate) fn is_for_some_runner(&self) -> bool {
        // A name that all lists hold is an entry of one of them, or begins with one that holds as well.
        let entries = self.runners.iter().flat_map(|bound| &bound.names);
        let mut names = entries.map(|entry| entry.strip_suffix('*').unwrap_or(entry));
        self.runners.is_empty() || names.any(|name| against(&self.runners, name).is_none())
    }

    /// The runners that the secrets are for, in words; none if they are for all.
    pub(crate) fn runners_told(&self) -> Option<String> {
        const SHOWN: usize = 3;
        let told = |bound: &Bound| {
            let names: Vec<&str> = bound.names.iter().take(SHOWN).map(String::as_str).collect();
            let more = if bound.names.len() > SHOWN { ", …" } else { "" };
            format!("'{}' is for the runners {}{more}", bound.secret, names.join(", "))
        };
        let all: Vec<String> = self.runners.iter().take(SHOWN).map(told).collect();
        (!all.is_empty()).then(|| all.join("; "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_no_runner_is_on_are_found() {
        for (lists, wanted) in [
            (&[][..], true),
            (&[&["a"][..]][..], true),
            (&[&["*"], &["b"]], true),
            (&[&["build-*"], &["build-7"]], true),
            (&[&["build-*"], &["build-7*", "x"], &["b*"]], true),
            (&[&["a"], &["b"]], false),
            (&[&["a*"], &["b*"]], false),
            (&[&["a*", "b"], &["b*"], &["c", "a1"]], false),
        ] {
            let bound = |names: &&[&str]| Bound {
                secret: "S".into(),
                names: names.iter().map(|name| (*name).to_owned()).collect(),
            };
            let bounds = Bounds { runners: lists.iter().map(bound).collect(), ..Bounds::default() };
            assert_eq!(bounds.is_for_some_runner(), wanted, "{lists:?}");
        }
    }
}
