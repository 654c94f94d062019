//! The words of the contract: roles, states, operations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::open::Word;

/// Defines a set of words; the first text of each is its word on the wire.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[doc = $doc:literal])* $value:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[doc = $doc])* #[serde(rename = $word)] $value,)+
        }

        impl Word for $name {
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = <Self as Word>::ALL;

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                Word::as_str(self)
            }

            /// The value that a word stands for.
            pub fn parse(text: &str) -> Option<Self> {
                Word::parse(text)
            }
        }
    };
}

words! {
    /// What a token may do. `viewer`, `operator`, `approver` and `admin` each include the one before;
    /// `runner`, `fleet` and `enroll` may only connect and enrol.
    Role {
        /// Sees everything.
        Viewer = "viewer",
        /// Also runs and cancels tasks.
        Operator = "operator",
        /// Also says yes or no to what others ask for.
        Approver = "approver",
        /// Also makes and revokes tokens and looks after runners.
        Admin = "admin",
        /// Connects as one runner.
        Runner = "runner",
        /// Connects as any number of runners, each by its name.
        Fleet = "fleet",
        /// Is exchanged, once, for a runner's token.
        Enroll = "enroll",
    }
}

impl Role {
    /// Whether this role may do what `needed` may.
    pub fn reaches(self, needed: Self) -> bool {
        let rank = |role| match role {
            Self::Viewer => 1,
            Self::Operator => 2,
            Self::Approver => 3,
            Self::Admin => 4,
            Self::Runner | Self::Fleet | Self::Enroll => 0,
        };
        self == needed || (rank(needed) > 0 && rank(self) >= rank(needed))
    }
}

words! {
    /// Where a run stands. A run reaches exactly one final state.
    State {
        /// Waits for its runner.
        Queued = "queued",
        /// Was handed to the runner's connection.
        Delivered = "delivered",
        /// Waits for a person's yes.
        Held = "held",
        /// Stands in the runner's journal.
        Accepted = "accepted",
        /// Is under way, or waits for a free slot on the runner.
        Running = "running",
        /// Is done; for `bash`, with the exit status 0.
        Succeeded = "succeeded",
        /// Could not be done, or exited with another status.
        Failed = "failed",
        /// Was refused by the runner's policy, or by a person who was asked.
        Denied = "denied",
        /// Was ended by who asked for it.
        Cancelled = "cancelled",
        /// Ran out of time.
        TimedOut = "timed_out",
        /// Its runner, or a person's yes, did not come in time.
        Expired = "expired",
        /// Was started, and its end is not known.
        Lost = "lost",
    }
}

impl State {
    /// Whether nothing comes after it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Delivered | Self::Held | Self::Accepted | Self::Running)
    }
}

/// The state of a task: what is still open among its runs, else the worst end.
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
        // Somebody has to do something.
        State::Held => 11,
    };
    states.into_iter().max_by_key(rank).unwrap_or(State::Succeeded)
}

words! {
    /// Where an approval stands.
    ApprovalState {
        /// People may say yes or no.
        Waiting = "waiting",
        /// So many people as are needed have said yes.
        Approved = "approved",
        /// A person has said no.
        Denied = "denied",
        /// A person has written another line, which is judged in its place.
        Edited = "edited",
        /// Nobody answered in time.
        Expired = "expired",
        /// It ended before anybody answered, such as by a cancel.
        Closed = "closed",
    }
}

words! {
    /// What is asked for.
    ApprovalKind {
        /// A line of shell on a runner.
        Command = "command",
        /// A call that an agent wants to make.
        Tool = "tool",
    }
}

words! {
    /// What a runner is asked to do.
    Action {
        /// A line of shell: `command`, `workdir`, `timeout`.
        Bash = "bash",
        /// A file's content: `path`, `offset`, `limit`.
        Read = "read",
        /// A file to write: `path`, `content` in base64.
        Write = "write",
        /// A folder's entries: `path`, `recursive`, `ignore`.
        List = "list",
        /// Files by name: `pattern`.
        Glob = "glob",
        /// Lines by content: `pattern`, `include`.
        Grep = "grep",
        /// A web page: `url`, `format`, `timeout`.
        Webfetch = "webfetch",
        /// A tool of an MCP server: `server`, `tool_name`, `args`, `timeout`.
        McpCall = "mcp_call",
        /// The tools of an MCP server: `server`.
        McpListTools = "mcp_list_tools",
        /// A skill to unpack: `skill_name`, `skill_dir`, `zip_data`, `checksum`.
        SyncSkill = "sync_skill",
    }
}

words! {
    /// Whether a runner is there.
    RunnerStatus {
        /// It is connected.
        Online = "online",
        /// It is known, and not connected.
        Offline = "offline",
        /// Its credential was revoked.
        Revoked = "revoked",
    }
}

words! {
    /// What a task runner does.
    PodStatus {
        /// It waits for work.
        Available = "available",
        /// It works on a task.
        Busy = "busy",
        /// It has been silent for a minute, and is given no work.
        Stale = "stale",
    }
}

words! {
    /// What a task of pods is.
    PodKind {
        /// A model with tools.
        Agent = "agent",
        /// Steps in an order.
        Workflow = "workflow",
    }
}

words! {
    /// Where output was written to.
    Stream {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_reach_down_and_never_across() {
        assert!(Role::Admin.reaches(Role::Viewer) && Role::Operator.reaches(Role::Operator));
        assert!(!Role::Viewer.reaches(Role::Operator) && !Role::Operator.reaches(Role::Admin));
        assert!(Role::Approver.reaches(Role::Operator) && Role::Admin.reaches(Role::Approver));
        assert!(!Role::Operator.reaches(Role::Approver) && !Role::Approver.reaches(Role::Admin));
        for person in [Role::Viewer, Role::Operator, Role::Approver, Role::Admin] {
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
