//! The words for what a token may do and where a run stands.

use serde::{Deserialize, Serialize};

/// What a token may do. Each role includes what the ones before it may, except
/// `runner`, `fleet` and `enroll`, which may only connect and enrol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See everything.
    Viewer,
    /// Run and cancel tasks.
    Operator,
    /// Make and revoke tokens.
    Admin,
    /// Connect as a runner.
    Runner,
    /// Connect as any number of runners, each by its name.
    Fleet,
    /// Be exchanged, once, for a runner's token.
    Enroll,
}

impl Role {
    /// The role's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Runner => "runner",
            Self::Fleet => "fleet",
            Self::Enroll => "enroll",
        }
    }

    /// Parses a role's name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin, Self::Runner, Self::Fleet, Self::Enroll]
            .into_iter()
            .find(|role| role.as_str() == text)
    }

    /// Whether this role may do what `needed` may.
    pub fn reaches(self, needed: Self) -> bool {
        let rank = |role| match role {
            Self::Viewer => 1,
            Self::Operator => 2,
            Self::Admin => 3,
            Self::Runner | Self::Fleet | Self::Enroll => 0,
        };
        self == needed || (rank(needed) > 0 && rank(self) >= rank(needed))
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "docs/hub.md describes each")]
pub enum State {
    Queued,
    Delivered,
    Accepted,
    Running,
    Succeeded,
    Failed,
    Denied,
    Cancelled,
    TimedOut,
    Expired,
    Lost,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Delivered,
        Self::Accepted,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Denied,
        Self::Cancelled,
        Self::TimedOut,
        Self::Expired,
        Self::Lost,
    ];

    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Expired => "expired",
            Self::Lost => "lost",
        }
    }

    /// Parses a state's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing comes after it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Delivered | Self::Accepted | Self::Running)
    }
}

/// All runs in one word: what is still open, else the worst end.
pub fn overall(states: impl IntoIterator<Item = State>) -> State {
    let rank = |state: &State| match state {
        State::Succeeded => 0,
        State::Cancelled => 1,
        State::Failed => 2,
        State::TimedOut => 3,
        State::Denied => 4,
        State::Expired => 5,
        State::Lost => 6,
        State::Queued => 7,
        State::Delivered => 8,
        State::Accepted => 9,
        State::Running => 10,
    };
    states.into_iter().max_by_key(rank).unwrap_or(State::Succeeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_reach_down_and_never_across() {
        assert!(Role::Admin.reaches(Role::Viewer) && Role::Operator.reaches(Role::Operator));
        assert!(!Role::Viewer.reaches(Role::Operator) && !Role::Operator.reaches(Role::Admin));
        for person in [Role::Viewer, Role::Operator, Role::Admin] {
            assert!(!person.reaches(Role::Runner) && !Role::Runner.reaches(person));
            assert!(!Role::Enroll.reaches(person) && !Role::Fleet.reaches(person));
        }
    }

    #[test]
    fn one_word_for_many_runs() {
        assert_eq!(overall([State::Succeeded, State::Failed]), State::Failed);
        assert_eq!(overall([State::Lost, State::Running]), State::Running);
        assert_eq!(overall([State::Succeeded]), State::Succeeded);
    }
}
