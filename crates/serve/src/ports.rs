//! Which ports the user's programs listen on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use legwork_runner::{Networks, listeners};
use legwork_socketio::payload;
use serde_json::json;

use crate::member::{Client, Presence};

const LOOK: Duration = Duration::from_secs(1);

/// The ports of the user's programs. Whoever has subscribed hears of those that are opened and
/// closed.
pub(crate) struct Ports {
    networks: Arc<Networks>,
    presence: Arc<Presence>,
    /// The port we listen on ourselves.
    pub(crate) own: u16,
    /// The one that the preview is of, where nobody says another.
    pub(crate) user: u16,
    /// What those who asked were told last; `None` while nobody asks.
    told: Mutex<Option<BTreeSet<u16>>>,
}

fn on_this_machine() -> BTreeSet<u16> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    tables.iter().flat_map(|table| listeners(&std::fs::read_to_string(table).unwrap_or_default())).collect()
}

impl Ports {
    pub(crate) fn new(networks: Arc<Networks>, presence: Arc<Presence>, own: u16, user: u16) -> Arc<Self> {
        Arc::new(Self { networks, presence, own, user, told: Mutex::default() })
    }

    fn told(&self) -> MutexGuard<'_, Option<BTreeSet<u16>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ports that somebody listens on, by the kernel's tables: of this machine, and of the
    /// networks of terminals behind walls. Blocks.
    pub(crate) fn listening(&self) -> BTreeSet<u16> {
        let mut ports = on_this_machine();
        ports.remove(&self.own);
        ports.extend(self.networks.listening());
        ports
    }

    /// Tells of ports that are opened and closed. Never ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.presence.any(|m| m.watches.ports.is_on()) {
                *self.told() = None;
                continue;
            }
            let looking = self.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || looking.listening()).await else { continue };
            let Some(before) = self.told().replace(now.clone()) else { continue };
            for (event, ports) in
                [("port:open", now.difference(&before)), ("port:close", before.difference(&now))]
            {
                for port in ports {
                    let said = json!({ "port": port, "preview": *port == self.user });
                    self.presence.tell(event, &payload(&said), |m| m.watches.ports.is_on());
                }
            }
        }
    }

    /// What a client that asks for ports is told at once. What comes after that is told to it, too.
    pub(crate) fn tell_now(&self, client: &Client) {
        let ports = self.listening();
        self.told().get_or_insert_with(|| ports.clone());
        client.tell("port:list", payload(&json!({ "ports": ports, "preview": self.user })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_seen_while_it_listens() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = socket.local_addr().expect("address").port();
        assert!(on_this_machine().contains(&port));
        drop(socket);
        assert!(!on_this_machine().contains(&port));
    }
}
