//! Who is called what. A name belongs to the credential that had it first.

use std::sync::Arc;

use legwork_store::{StoreError, Token, done};

use super::{Hub, no_randomness};
use crate::clock::sortable_id;
use crate::fleet::{Link, Runner};
use crate::model::Role;

/// Most runners of one fleet's credential.
const MAX_FLEET: usize = 20_000;
pub(crate) const MAX_NAME: usize = 255;

/// Why a runner does not get a name.
#[derive(Debug)]
pub(crate) enum NameError {
    /// Another one has it: its id.
    Taken {
        name: String,
        by: String,
    },
    /// One of a fleet must say who it is.
    Missing,
    /// Its credential has too many runners.
    TooMany,
    Store(StoreError),
}

impl From<StoreError> for NameError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl std::fmt::Display for NameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken { name, by } => write!(
                f,
                "the name '{name}' belongs to another runner ({by}); give this one a name of its own, or remove that one"
            ),
            Self::Missing => {
                f.write_str("a fleet's credential needs the runner's name in the header X-Worknode-Name")
            }
            Self::TooMany => write!(f, "this credential has {MAX_FLEET} runners, which is the most"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

/// A runner that may connect, under a name that is its own.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) runner_id: String,
    pub(crate) name: String,
}

/// What can be a name: what a header may hold, and no id of ours.
pub(crate) fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

impl Hub {
    /// Who may not be called so, as somebody else is, or may be.
    pub(crate) fn name_is_free(&self, name: &str, except: &str) -> Result<(), NameError> {
        let fleet = self.fleet.lock();
        let taken = |runner: &Runner| NameError::Taken { name: name.to_owned(), by: runner.id.clone() };
        if let Some(runner) = fleet.runners.get(name).filter(|runner| runner.id != except) {
            return Err(taken(runner));
        }
        fleet.holder_of(name, except).map_or(Ok(()), |runner| Err(taken(runner)))
    }

    /// The runner that a credential stands for, by the name that it says.
    pub(crate) async fn seat(self: &Arc<Self>, token: &Token, said: Option<&str>) -> Result<Seat, NameError> {
        let said = said.filter(|name| is_name(name));
        if token.role != Role::Fleet {
            let runner_id = token.runner_id.clone().unwrap_or_default();
            let name = said.unwrap_or(&token.name).to_owned();
            self.name_is_free(&name, &runner_id)?;
            return Ok(Seat { runner_id, name });
        }
        let name = said.ok_or(NameError::Missing)?.to_owned();
        {
            let fleet = self.fleet.lock();
            let mine = |runner: &&Runner| runner.token_id == token.id;
            let known = fleet.holders(&name).find(mine).map(|runner| runner.id.clone());
            if let Some(runner_id) = known {
                return Ok(Seat { runner_id, name });
            }
            if fleet.runners.values().filter(mine).count() >= MAX_FLEET {
                return Err(NameError::TooMany);
            }
        }
        self.name_is_free(&name, "")?;
        let id = sortable_id("wn").map_err(|e| no_randomness(&e))?;
        let runner = Runner::new(id.clone(), name.clone(), token.id.clone());
        let row = runner.row();
        // Two at once: the first one has it.
        {
            let mut fleet = self.fleet.lock();
            if let Some(other) = fleet.holder_of(&name, "") {
                return Err(NameError::Taken { name, by: other.id.clone() });
            }
            fleet.add_runner(runner);
        }
        done(|then| self.store.keep_runner(row, then)).await?;
        Ok(Seat { runner_id: id, name })
    }

    /// Takes a connection's seat; fails if the name was taken meanwhile, or the runner was
    /// removed.
    pub(crate) fn sit_down(&self, seat: &Seat, link: Link) -> Result<(), NameError> {
        let mut fleet = self.fleet.lock();
        if let Some(other) = fleet.holder_of(&seat.name, &seat.runner_id) {
            return Err(NameError::Taken { name: seat.name.clone(), by: other.id.clone() });
        }
        let seated = fleet.change(&seat.runner_id, |runner| {
            runner.name.clone_from(&seat.name);
            runner.link = Some(link);
        });
        seated.ok_or(NameError::Missing)
    }
}
