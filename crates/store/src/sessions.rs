//! What agents say, by session.

use crate::Answer;

/// A message of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "docs/protocols/task.md §7 describes each")]
pub struct Message {
    pub id: String,
    pub role: String,
    pub status: String,
    pub thinking_text: Option<String>,
    pub error_message: Option<String>,
    pub created_at_ms: u64,
    pub completed_at_ms: Option<u64>,
    /// In their order.
    pub parts: Vec<Part>,
}

/// What changes of a message; what is absent stays.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "as in Message")]
pub struct MessageChange {
    pub status: Option<String>,
    pub thinking_text: Option<String>,
    pub error_message: Option<String>,
    pub completed_at_ms: Option<u64>,
}

/// A part of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "docs/protocols/task.md §7 describes each")]
pub struct Part {
    pub id: String,
    pub kind: String,
    pub text: Option<String>,
    pub tool_name: Option<String>,
    pub tool_state: Option<String>,
    pub mime: Option<String>,
    pub url: Option<String>,
    pub filename: Option<String>,
    pub sort_order: i64,
    pub time_start: Option<i64>,
    pub time_end: Option<i64>,
}

/// What is kept of agents' sessions.
pub trait Sessions {
    /// The session that a token speaks for at a time, by the token's hash.
    fn session_of(&self, hash: String, now_ms: u64) -> Answer<'_, Option<String>>;
    /// Keeps a new message; its parts are added one by one.
    fn add_message(&self, session: String, message: Message) -> Answer<'_, ()>;
    /// Changes a message; false if the session has none of that id.
    fn change_message(&self, session: String, id: String, change: MessageChange) -> Answer<'_, bool>;
    /// Adds a part; false if the session has no such message.
    fn add_part(&self, session: String, message: String, part: Part) -> Answer<'_, bool>;
    /// All of a session, oldest first.
    fn messages(&self, session: String) -> Answer<'_, Vec<Message>>;
}
