//! The hub's words: runners, tasks, runs, tokens.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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
    pub(crate) fn reaches(self, needed: Self) -> bool {
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
    pub(crate) const ALL: [Self; 11] = [
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

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing comes after it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Delivered | Self::Accepted | Self::Running)
    }
}

/// A task as the API shows it.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the OpenAPI document describes each")]
pub(crate) struct TaskView {
    pub id: String,
    pub operation: String,
    pub args: Box<RawValue>,
    pub select: Box<RawValue>,
    pub timeout_s: u64,
    pub created_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by_token: Option<String>,
    pub created_at_ms: u64,
    pub expires_at_ms: u64,
    /// All runs in one word.
    pub state: State,
    pub runs: Vec<RunView>,
}

/// A task on one runner.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the OpenAPI document describes each")]
pub(crate) struct RunView {
    pub id: String,
    pub runner: String,
    pub runner_id: String,
    pub state: State,
    pub exit_code: Option<i32>,
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    pub result: Option<Box<RawValue>>,
    pub queued_at_ms: u64,
    pub delivered_at_ms: Option<u64>,
    pub started_at_ms: Option<u64>,
    pub finished_at_ms: Option<u64>,
}

/// All runs in one word: what is still open, else the worst end.
pub(crate) fn overall(states: impl IntoIterator<Item = State>) -> State {
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
