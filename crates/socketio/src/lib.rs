//! A server of Engine.IO 4 and Socket.IO 5, over polling and WebSocket, and of a bare WebSocket
//! that carries the same events as JSON.
//!
//! What is served is a [`Handler`]'s business; this crate knows sessions, clients, and what they
//! are owed. It is a layer of its own because the ones there are take messages by a callback and
//! queue answers without waiting: a client that sends or reads at its own pace would lose messages
//! or fill the memory. Here a client that floods is read no further, one that stalls is sent no
//! more, and every way to queue something for a client is bounded:
//!
//! - answers by [`Room`], which is waited for;
//! - events that nobody asked for are dropped, and the client is told so ([`Client::tell`]), or
//!   take the place of an older one ([`Client::tell_newest`]);
//! - streams are not queued at all: the client has a place in a [`Source`].

mod client;
mod data;
mod engine;
mod event;
mod handler;
mod json;
mod log;
mod meter;
mod packet;
mod plain;
mod polling;
mod presence;
pub mod reply;
mod seats;
mod server;
mod session;
mod source;
mod websocket;

pub use client::{Client, Room};
pub use data::{Data, Payload, payload};
pub use handler::{Handler, Hello, Member, Request, Seen, Settings, Trust, Unreadable};
pub use presence::Presence;
pub use reply::Refusal;
pub use seats::{Seat, Seats, Standing};
pub use server::Server;
pub use source::{Again, Next, Past, Piece, Source};
pub use websocket::is_upgrade;

/// What strangers send, for the fuzzer.
#[doc(hidden)]
pub mod fuzzing {
    /// Reads a text as everything that clients send.
    pub fn wire(text: &str) {
        for packet in crate::packet::decode_body(text).unwrap_or_default() {
            if let crate::packet::Incoming::Message(message) = packet {
                let _ = crate::event::decode(&message);
            }
        }
        let _ = crate::event::decode(text);
    }
}
