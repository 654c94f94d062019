//! What the workspace knows of each client, beside how it is connected.

use std::sync::atomic::{AtomicBool, Ordering};

use legwork_socketio::{Hello, Trust};
use serde_json::Value;

use crate::access::{Access, Rights};
use crate::queue::Queue;

/// A client of the workspace.
pub(crate) type Client = legwork_socketio::Client<Member>;
/// Those who are here.
pub(crate) type Presence = legwork_socketio::Presence<Member>;

/// What is known of a client.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) rights: Rights,
    /// Whether it wants to see what the shared terminal has shown before.
    pub(crate) replay: bool,
    pub(crate) watches: Watches,
    /// Its requests about files.
    pub(crate) requests: Queue,
}

impl legwork_socketio::Member for Member {
    fn trust(&self) -> Trust {
        self.rights.trust()
    }
}

impl Member {
    /// Lets somebody in by their token.
    pub(crate) fn admit(access: &Access, hello: &Hello<'_>) -> Option<Self> {
        let rights = access.rights(hello.token())?;
        let asked_to_look = hello.auth("mode").and_then(Value::as_str) == Some("read");
        let no_replay = matches!(hello.query("replay"), Some("0" | "false"))
            || hello.auth("replay") == Some(&Value::Bool(false));
        Some(Self {
            rights: if asked_to_look { Rights::Look } else { rights },
            replay: !no_replay,
            watches: Watches::default(),
            requests: Queue::default(),
        })
    }
}

/// What a client has subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    pub(crate) files: Watch,
    pub(crate) ports: Watch,
    pub(crate) usage: Watch,
    pub(crate) terminals: Watch,
    pub(crate) storage: Watch,
}

/// Whether a client wants to hear of something.
#[derive(Debug, Default)]
pub(crate) struct Watch(AtomicBool);

impl Watch {
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}
