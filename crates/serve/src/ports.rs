//! Which ports the user's programs listen on.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::client::{Client, payload};
use crate::room::Room;

const LOOK: Duration = Duration::from_secs(1);

/// Ports that somebody listens on, by the kernel's tables: of this machine, and of the networks
/// of terminals behind walls.
pub(crate) fn listening(room: &Room) -> BTreeSet<u16> {
    let mut ports = on_this_machine();
    ports.remove(&room.own_port());
    ports.extend(room.terminals.shells.networks.listening());
    ports
}

fn on_this_machine() -> BTreeSet<u16> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    tables.iter().flat_map(|table| listeners(&std::fs::read_to_string(table).unwrap_or_default())).collect()
}

/// The ports of a table's listening sockets.
pub(crate) fn listeners(table: &str) -> BTreeSet<u16> {
    table.lines().filter_map(listener).collect()
}

/// The port of a line of `/proc/net/tcp`, if it is a listening socket's (proc(5)).
fn listener(line: &str) -> Option<u16> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
}

fn wants(client: &Client) -> bool {
    client.watches.ports.load(Ordering::Relaxed)
}

/// What those who asked were told last; `None` while nobody asks.
#[derive(Default)]
pub(crate) struct Told(Mutex<Option<BTreeSet<u16>>>);

impl Told {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeSet<u16>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of ports that are opened and closed. Never ends.
pub(crate) async fn watch(room: Arc<Room>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if !room.present().iter().any(|c| wants(c)) {
            *room.ports_told.lock() = None;
            continue;
        }
        let looking = room.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || listening(&looking)).await else { continue };
        let Some(before) = room.ports_told.lock().replace(now.clone()) else { continue };
        for (event, ports) in
            [("port:open", now.difference(&before)), ("port:close", before.difference(&now))]
        {
            for port in ports {
                let said = json!({ "port": port, "preview": *port == room.settings.user_port });
                room.tell(event, &payload(&said), wants);
            }
        }
    }
}

/// What a client that asks for ports is told at once. What comes after that is told to it, too.
pub(crate) fn tell_now(room: &Room, client: &Client) {
    let ports = listening(room);
    room.ports_told.lock().get_or_insert_with(|| ports.clone());
    client.tell("port:list", payload(&json!({ "ports": ports, "preview": room.settings.user_port })));
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
        assert_eq!(listener("junk"), None);
    }
}
