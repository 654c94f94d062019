//! Ids as types of their own: a run's id cannot stand where a task's is wanted.

use std::borrow::Borrow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::Code;

/// What names a resource in a path.
pub trait PathId: Sized {
    /// What it names, in the words of an error.
    const WHAT: &'static str;
    /// The error of an id that names nothing.
    const ABSENT: Code;

    /// Reads the id from a decoded part of a path; `None` if nothing can be called so.
    fn from_part(part: &str) -> Option<Self>;

    /// The id as a part of a path, before encoding.
    fn to_part(&self) -> String;
}

macro_rules! text_id {
    ($(#[doc = $doc:literal])* $name:ident, $what:literal, $absent:ident, $example:literal) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        #[schemars(example = &$example)]
        pub struct $name(pub String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl PathId for $name {
            const WHAT: &'static str = $what;
            const ABSENT: Code = Code::$absent;

            fn from_part(part: &str) -> Option<Self> {
                Some(Self(part.to_owned()))
            }

            fn to_part(&self) -> String {
                self.0.clone()
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(id)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// The id of a task, such as `tsk_…`. Ids of later tasks sort behind those of earlier ones.
    TaskId, "task", NoSuchTask, "tsk_01m8w2k3x4"
}
text_id! {
    /// The id of a run, such as `run_…`.
    RunId, "run", NoSuchTask, "run_01m8w2k3x5"
}
text_id! {
    /// The id of a runner, such as `wn_…`. It stays when the runner is called otherwise.
    RunnerId, "runner", NoSuchRunner, "wn_01m8w2k3x6"
}
text_id! {
    /// A runner by its id or by its name.
    RunnerName, "runner", NoSuchRunner, "web-1"
}
text_id! {
    /// The id of a token, such as `tok_…`. It is no secret.
    TokenId, "token", NoSuchToken, "tok_01m8w2k3x7"
}
text_id! {
    /// The id of an approval, such as `apr_…`. Ids of later ones sort behind those of earlier ones.
    ApprovalId, "approval", NoSuchApproval, "apr_01m8w2k3x8"
}
text_id! {
    /// The id of a session that agents keep their messages in. Its name is the client's choice.
    SessionId, "session", NoSuchSession, "session-7"
}
text_id! {
    /// The name of a secret.
    SecretName, "secret", NoSuchSecret, "NPM_TOKEN"
}

/// The number of a task of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PodTaskId(#[schemars(range(max = u32::MAX))] pub u32);

impl PathId for PodTaskId {
    const WHAT: &'static str = "task of pods";
    const ABSENT: Code = Code::NoSuchTask;

    fn from_part(part: &str) -> Option<Self> {
        part.parse().ok().map(Self)
    }

    fn to_part(&self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for PodTaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of an operation whose path names no resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub struct NoId;

impl PathId for NoId {
    const WHAT: &'static str = "";
    const ABSENT: Code = Code::NoSuchPath;

    fn from_part(_: &str) -> Option<Self> {
        Some(Self)
    }

    fn to_part(&self) -> String {
        String::new()
    }
}
