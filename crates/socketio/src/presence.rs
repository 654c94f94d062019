//! Who is here, and who may come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::data::Payload;

/// How long a client may come back.
const RETURN: Duration = Duration::from_secs(120);

/// What carries a client: its session.
pub(crate) trait Carrier: Send + Sync {
    /// The client has come back by another connection: this one is over.
    fn give_way(&self);
}

/// A client's carrier, if it has one that it can change.
pub(crate) type Carried = Option<Weak<dyn Carrier>>;

struct Present<M> {
    client: Arc<Client<M>>,
    carrier: Carried,
}

struct Inner<M> {
    present: HashMap<u64, Present<M>>,
    /// Those whose connection broke, by their private names, and until when they may come back.
    away: HashMap<String, (Arc<Client<M>>, Instant)>,
    last_id: u64,
    /// When somebody was last heard of.
    busy: Instant,
}

/// The clients of a server.
pub struct Presence<M> {
    inner: Mutex<Inner<M>>,
    most: usize,
}

/// What became of a client whose connection has ended.
pub(crate) enum Left<M> {
    /// It goes on by another connection.
    GoesOn,
    /// It may come back; those who had to make place for it may not.
    Away(Vec<Arc<Client<M>>>),
    /// It will not come back.
    Gone,
}

impl<M> std::fmt::Debug for Presence<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence").field("most", &self.most).finish_non_exhaustive()
    }
}

impl<M> Presence<M> {
    /// With places for so many clients.
    pub fn new(most: usize) -> Arc<Self> {
        let inner = Inner { present: HashMap::new(), away: HashMap::new(), last_id: 0, busy: Instant::now() };
        Arc::new(Self { inner: Mutex::new(inner), most })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that are connected.
    pub fn all(&self) -> Vec<Arc<Client<M>>> {
        self.lock().present.values().map(|p| p.client.clone()).collect()
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.lock().present.len()
    }

    /// Sends an event to all that want to hear of it.
    pub fn tell(&self, name: &'static str, said: &Payload, wants: impl Fn(&M) -> bool) {
        for client in self.all() {
            if wants(&client.member) {
                client.tell(name, said.clone());
            }
        }
    }

    /// Whether anybody who is connected is like that.
    pub fn any(&self, is: impl Fn(&M) -> bool) -> bool {
        self.lock().present.values().any(|p| is(&p.client.member))
    }

    /// How long nobody has been here.
    pub fn idle_for(&self) -> Duration {
        let inner = self.lock();
        if inner.present.is_empty() { inner.busy.elapsed() } else { Duration::ZERO }
    }

    /// Somebody is here.
    pub(crate) fn touch(&self) {
        self.lock().busy = Instant::now();
    }

    /// Gives a client a place; `None` if all are taken.
    pub(crate) fn enter(&self, member: M, recoverable: bool, carrier: Carried) -> Option<Arc<Client<M>>> {
        let mut inner = self.lock();
        if inner.present.len() >= self.most {
            return None;
        }
        inner.last_id += 1;
        inner.busy = Instant::now();
        let client = Client::new(inner.last_id, member, recoverable);
        inner.present.insert(client.id, Present { client: client.clone(), carrier });
        Some(client)
    }

    /// Takes out a client that wants to come back, and what carried it, if that has not been
    /// missed yet.
    pub(crate) fn take(&self, pid: &str) -> Option<(Arc<Client<M>>, Carried)> {
        let mut inner = self.lock();
        if let Some((client, _)) = inner.away.remove(pid) {
            return Some((client, None));
        }
        let found = inner.present.values().find(|p| p.client.pid.as_deref() == Some(pid))?;
        let id = found.client.id;
        inner.present.remove(&id).map(|p| (p.client, p.carrier))
    }

    /// Gives a client its place again; `false` if all are taken.
    pub(crate) fn put_back(&self, client: &Arc<Client<M>>, carrier: Carried) -> bool {
        let mut inner = self.lock();
        if inner.present.len() >= self.most {
            return false;
        }
        inner.busy = Instant::now();
        inner.present.insert(client.id, Present { client: client.clone(), carrier });
        true
    }

    /// Whether there is a place for another client.
    pub(crate) fn has_place(&self) -> bool {
        self.count() < self.most
    }

    /// A client's connection has ended, which `is` says is the one that carried it. `for_good`:
    /// it has said so itself.
    pub(crate) fn leave(
        &self,
        client: &Arc<Client<M>>,
        is: impl FnOnce(&Carried) -> bool,
        for_good: bool,
    ) -> Left<M> {
        let mut inner = self.lock();
        if !inner.present.get(&client.id).is_some_and(|p| is(&p.carrier)) {
            return Left::GoesOn;
        }
        inner.present.remove(&client.id);
        inner.busy = Instant::now();
        let Some(pid) = client.pid.as_ref().filter(|_| !for_good) else { return Left::Gone };
        client.pause();
        inner.away.insert(pid.clone(), (client.clone(), Instant::now() + RETURN));
        // Those that were away longest make place.
        let mut gone = Vec::new();
        while inner.away.len() > self.most {
            let oldest = inner.away.iter().min_by_key(|(_, (_, until))| *until).map(|(pid, _)| pid.clone());
            gone.extend(oldest.and_then(|pid| inner.away.remove(&pid)).map(|(client, _)| client));
        }
        Left::Away(gone)
    }

    /// Those who may come back no longer.
    pub(crate) fn late(&self, now: Instant) -> Vec<Arc<Client<M>>> {
        let mut inner = self.lock();
        let late: Vec<String> =
            inner.away.iter().filter(|(_, (_, until))| *until <= now).map(|(pid, _)| pid.clone()).collect();
        late.iter().filter_map(|pid| inner.away.remove(pid)).map(|(client, _)| client).collect()
    }
}
