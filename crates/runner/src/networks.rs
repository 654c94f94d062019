//! The networks of commands behind walls: each has its own, with nothing in it but what runs
//! there, and our proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use legwork_process::Inside;
use legwork_process::sandbox::PROXY_PORT;
use tokio::net::TcpStream;

/// All of them; at most one a command.
#[derive(Debug, Default)]
pub struct Networks {
    all: Mutex<BTreeMap<u64, Arc<Inside>>>,
    count: AtomicU64,
}

/// One of them, known as long as this is not dropped.
pub(crate) struct Network {
    networks: Arc<Networks>,
    id: u64,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.networks.all().remove(&self.id);
    }
}

impl Networks {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Inside>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a network known until what is returned is dropped.
    pub(crate) fn add(self: &Arc<Self>, inside: Inside) -> Network {
        let id = self.count.fetch_add(1, Ordering::Relaxed);
        self.all().insert(id, Arc::new(inside));
        Network { networks: self.clone(), id }
    }

    /// What listens in them.
    pub fn listening(&self) -> BTreeSet<u16> {
        let all: Vec<_> = self.all().values().cloned().collect();
        all.iter().flat_map(|inside| listening(inside)).collect()
    }

    /// The network in which somebody listens on a port; that of the command that was started
    /// first, if there are several.
    pub fn find(&self, port: u16) -> Option<u64> {
        let all: Vec<_> = self.all().iter().map(|(id, inside)| (*id, inside.clone())).collect();
        all.into_iter().find(|(_, inside)| listening(inside).contains(&port)).map(|(id, _)| id)
    }

    /// Connects to a port in one of them.
    pub async fn connect(&self, id: u64, port: u16) -> io::Result<TcpStream> {
        let inside = self.all().get(&id).cloned();
        match inside {
            Some(inside) => inside.connect(port).await,
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

fn listening(inside: &Inside) -> BTreeSet<u16> {
    let mut ports = listeners(&inside.tables().unwrap_or_default());
    ports.remove(&PROXY_PORT);
    ports
}

/// The ports of the listening sockets in a table such as `/proc/net/tcp`.
pub fn listeners(table: &str) -> BTreeSet<u16> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_what_else_a_table_holds() {
        let table = "  sl  local_address rem_address   st\n   \
                     0: 0100007F:1F90 00000000:0000 0A 0\n   1: 0100007F:1F91 0100007F:1F90 01 0\njunk\n";
        assert_eq!(listeners(table), BTreeSet::from([8080]));
    }
}
