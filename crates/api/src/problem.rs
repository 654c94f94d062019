//! Errors as `application/problem+json` (RFC 9457), each with a code that programs may rely on.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::open::{Open, Word};

/// An error for who asked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `about:blank`: the code says what it is.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The HTTP status in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What is wrong, for people. Its words may change.
    #[serde(default)]
    pub detail: String,
    /// What is wrong, for programs. Codes stay; there may be new ones.
    #[serde(default = "unnamed")]
    pub code: Open<Code>,
    /// The field or the parameter that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Hubs of version 0.1 name no code.
fn unnamed() -> Open<Code> {
    Open::Other(String::new())
}

impl Problem {
    /// A problem in the words of its code.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".into(),
            title: code.title().into(),
            status: code.status(),
            detail: detail.into(),
            code: code.into(),
            field: None,
        }
    }

    /// Names the field that is wrong.
    #[must_use]
    pub fn about(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal $status:literal,)+) => {
        /// What is wrong with a request, in one word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Code {
            $($(#[doc = $doc])* #[serde(rename = $word)] $name,)+
        }

        impl Word for Code {
            const ALL: &'static [Self] = &[$(Self::$name),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }

        impl Code {
            /// The HTTP status of the answer.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)+
                }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*),)+
                }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    BadJson = "bad_json" 400,
    /// The body is JSON, and not of the form that the document describes.
    BadBody = "bad_body" 400,
    /// The body has a field that the operation does not know; `field` names it.
    UnknownField = "unknown_field" 400,
    /// A parameter of the query has a value that it cannot have; `field` names it.
    BadQuery = "bad_query" 400,
    /// The query has a parameter that the operation does not know; `field` names it.
    UnknownParameter = "unknown_parameter" 400,
    /// The path is not UTF-8 once it is decoded.
    BadPath = "bad_path" 400,
    /// `Last-Event-ID` is not an id of an event of this hub.
    BadEventId = "bad_event_id" 400,
    /// The body ended, or paused for 30 s, before it was whole.
    IncompleteBody = "incomplete_body" 400,
    /// The request has no `Authorization: Bearer TOKEN`.
    NoToken = "no_token" 401,
    /// No token has this secret.
    UnknownToken = "unknown_token" 401,
    /// The token was revoked, also while the request was waiting.
    RevokedToken = "revoked_token" 401,
    /// The token has expired.
    ExpiredToken = "expired_token" 401,
    /// The enrolment token was exchanged before.
    UsedToken = "used_token" 401,
    /// The token's role does not reach so far, or what is asked for has secrets that are for other tokens.
    Forbidden = "forbidden" 403,
    /// Who asked for something, or wrote it, does not say yes to it.
    OwnRequest = "own_request" 403,
    /// The API has nothing at this path.
    NoSuchPath = "no_such_path" 404,
    /// There is no task of this id.
    NoSuchTask = "no_such_task" 404,
    /// There is no runner of this id or name.
    NoSuchRunner = "no_such_runner" 404,
    /// There is no token of this id.
    NoSuchToken = "no_such_token" 404,
    /// There is no session of this name.
    NoSuchSession = "no_such_session" 404,
    /// There is no secret of this name.
    NoSuchSecret = "no_such_secret" 404,
    /// There is no approval of this id.
    NoSuchApproval = "no_such_approval" 404,
    /// There is no such file of a release.
    NoSuchRelease = "no_such_release" 404,
    /// The path is known, and not with this method; the header `Allow` lists those that it has.
    WrongMethod = "wrong_method" 405,
    /// The idempotency key was used for another body.
    KeyReused = "key_reused" 409,
    /// Several runners have this name; the id says which one is meant.
    AmbiguousName = "ambiguous_name" 409,
    /// Another runner has this name.
    NameTaken = "name_taken" 409,
    /// This is the last admin token that does not expire.
    LastAdmin = "last_admin" 409,
    /// The task is over, so there is nobody who could be told anything.
    TaskOver = "task_over" 409,
    /// The approval was answered before, or ended before anybody answered.
    AlreadyDecided = "already_decided" 409,
    /// The body is larger than the operation takes.
    TooLarge = "too_large" 413,
    /// A field has a value that it cannot have, such as a selection that no runner matches;
    /// `field` names it.
    InvalidField = "invalid_field" 422,
    /// More than 60 unknown tokens a minute came from this address; `Retry-After` says when to
    /// try again. Valid tokens are never refused for that.
    TooManyTokens = "too_many_tokens" 429,
    /// The hub failed in a way that it did not foresee; its log says more.
    Internal = "internal" 500,
    /// The hub's store could not do its work, such as on a full disk.
    StoreFailed = "store_failed" 503,
    /// The hub is reading other large requests; the same request may be sent again.
    Busy = "busy" 503,
}

impl Code {
    /// All of them, in the order of their statuses.
    pub const ALL: &'static [Self] = <Self as Word>::ALL;

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        Word::as_str(self)
    }

    /// The HTTP status in words (RFC 9110).
    fn title(self) -> &'static str {
        match self.status() {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            413 => "Payload Too Large",
            422 => "Unprocessable Entity",
            429 => "Too Many Requests",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        }
    }
}
