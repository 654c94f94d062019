//! Which ports the user's programs listen on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use crate::client::{Client, payload};
use crate::room::Room;

const LOOK: Duration = Duration::from_secs(1);

/// Ports that somebody listens on, by the kernel's tables of this network namespace.
pub(crate) fn listening() -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(text) = std::fs::read_to_string(table) else { continue };
        ports.extend(text.lines().skip(1).filter_map(listener));
    }
    ports
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

/// Tells of ports that are opened and closed. Never ends.
pub(crate) async fn watch(room: Arc<Room>, own: u16) {
    let mut known: Option<BTreeSet<u16>> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        if !room.present().iter().any(|c| wants(c)) {
            known = None;
            continue;
        }
        let Ok(mut now) = tokio::task::spawn_blocking(listening).await else { continue };
        now.remove(&own);
        if let Some(before) = &known {
            for port in now.difference(before) {
                let said = json!({ "port": port, "preview": *port == room.settings.user_port });
                room.tell("port:open", &payload(&said), wants);
            }
            for port in before.difference(&now) {
                let said = json!({ "port": port, "preview": *port == room.settings.user_port });
                room.tell("port:close", &payload(&said), wants);
            }
        }
        known = Some(now);
    }
}

/// What a client that asks for ports is told at once.
pub(crate) fn tell_now(room: &Room, client: &Client) {
    let ports: Vec<u16> = listening().into_iter().filter(|p| *p != room.own_port()).collect();
    client.tell("port:list", payload(&json!({ "ports": ports, "preview": room.settings.user_port })));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_seen_while_it_listens() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = socket.local_addr().expect("address").port();
        assert!(listening().contains(&port));
        drop(socket);
        assert!(!listening().contains(&port));
        assert_eq!(listener("junk"), None);
    }
}
