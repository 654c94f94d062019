//! Connections that are open, and which of them gives way when there is no place for another.
//!
//! Whoever connects and says nothing, or says half a request, must not keep others out: the
//! newcomer gets the place of the one that has been of no use for longest. Who has shown that
//! it may be here gives way last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::handler::Trust;

/// The level of who works here: they never give way.
const WORKS: u8 = 2;

/// What a connection's latest request has shown.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<AtomicU8>);

impl Standing {
    /// A new request has come, and has shown nothing yet.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// It may be here.
    pub fn raise(&self, trust: Trust) {
        self.0.fetch_max(level(trust), Ordering::Relaxed);
    }
}

fn level(trust: Trust) -> u8 {
    match trust {
        Trust::Unknown => 0,
        Trust::Looks => 1,
        Trust::Works => WORKS,
    }
}

#[derive(Debug)]
struct Taken {
    standing: Standing,
    gone: Arc<Notify>,
}

/// The places for connections.
#[derive(Debug)]
pub struct Seats {
    most: usize,
    inner: Mutex<(u64, BTreeMap<u64, Taken>)>,
}

/// A connection's place; dropped, it is free.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    number: u64,
    /// What its latest request has shown.
    pub standing: Standing,
    gone: Arc<Notify>,
}

impl Seats {
    /// Places for so many connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Taken>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if need be another's; `None` if all are taken by those who may be here.
    pub fn take(self: &Arc<Self>) -> Option<Seat> {
        if self.lock().1.len() >= self.most && !self.make_room() {
            return None;
        }
        let mut inner = self.lock();
        inner.0 += 1;
        let number = inner.0;
        let (standing, gone) = (Standing::default(), Arc::new(Notify::new()));
        inner.1.insert(number, Taken { standing: standing.clone(), gone: gone.clone() });
        drop(inner);
        Some(Seat { seats: self.clone(), number, standing, gone })
    }

    /// Lets the oldest of the least standing go.
    pub fn make_room(&self) -> bool {
        let mut inner = self.lock();
        let level = |taken: &Taken| taken.standing.0.load(Ordering::Relaxed);
        let least =
            inner.1.iter().filter(|(_, t)| level(t) < WORKS).min_by_key(|(number, t)| (level(t), **number));
        let Some(number) = least.map(|(number, _)| *number) else { return false };
        if let Some(taken) = inner.1.remove(&number) {
            taken.gone.notify_one();
        }
        true
    }
}

impl Seat {
    /// Waits until somebody else has this place.
    pub async fn gave_way(&self) {
        self.gone.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_says_nothing_gives_way_first_and_who_works_never() {
        let seats = Seats::new(3);
        let silent = seats.take().expect("a place");
        let works = seats.take().expect("a place");
        works.standing.raise(Trust::Works);
        let looks = seats.take().expect("a place");
        looks.standing.raise(Trust::Looks);
        let next = seats.take().expect("the silent one's place");
        silent.gave_way().await;
        drop(silent);
        next.standing.raise(Trust::Works);
        let last = seats.take().expect("the viewer's place");
        looks.gave_way().await;
        last.standing.raise(Trust::Works);
        assert!(seats.take().is_none());
        works.standing.forget();
        assert!(seats.take().is_some());
        works.gave_way().await;
    }
}
