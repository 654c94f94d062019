//! Time and fresh ids.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use legwork_proto::base57;

/// A clock that can't jump.
#[cfg(test)]
pub(crate) use seeded::Instant;
#[cfg(not(test))]
pub(crate) use std::time::Instant;

/// Now, in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    #[cfg(test)]
    if let Some(now) = seeded::now_ms() {
        return now;
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds that measure spans: as the wall's clock when the process started, and from
/// there by one that can't jump.
pub(crate) fn steady_ms() -> u64 {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let (start, began_ms) = START.get_or_init(|| (Instant::now(), now_ms()));
    began_ms.saturating_add(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// 128 random bits.
pub(crate) fn random() -> std::io::Result<u128> {
    #[cfg(test)]
    if let Some(bits) = seeded::random() {
        return Ok(bits);
    }
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| std::io::Error::other(e.to_string()))?;
    Ok(u128::from_le_bytes(bytes))
}

/// An id that sorts by its time of making.
pub(crate) fn sortable_id(prefix: &str) -> std::io::Result<String> {
    let bits = u128::from(now_ms()) << 80 | random()? >> 48;
    Ok(format!("{prefix}_{}", base57::encode(bits, 22)))
}

/// A secret of 256 random bits, recognisable as ours.
pub(crate) fn secret() -> std::io::Result<String> {
    Ok(format!("lwk_{}{}", base57::encode(random()?, 22), base57::encode(random()?, 22)))
}

/// For simulations: the same time and the same chance each time, on one thread.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;
    use std::time::Duration;

    struct World {
        began: std::time::Instant,
        passed: Duration,
        chance: u64,
    }

    thread_local! {
        static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    }

    /// From here on this thread has a clock that stands still, and this chance.
    pub(crate) fn begin(seed: u64) {
        WORLD.set(Some(World { began: std::time::Instant::now(), passed: Duration::ZERO, chance: seed }));
    }

    pub(crate) fn end() {
        WORLD.set(None);
    }

    /// Lets time pass.
    pub(crate) fn pass(time: Duration) {
        WORLD.with_borrow_mut(|world| {
            if let Some(world) = world {
                world.passed += time;
            }
        });
    }

    /// As the one of the standard library, by the world's clock if there is one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(std::time::Instant);

    impl Instant {
        pub(crate) fn now() -> Self {
            let now = WORLD.with_borrow(|world| world.as_ref().map(|w| w.began + w.passed));
            Self(now.unwrap_or_else(std::time::Instant::now))
        }

        pub(crate) fn elapsed(&self) -> Duration {
            Self::now().0.saturating_duration_since(self.0)
        }

        pub(crate) fn checked_add(&self, time: Duration) -> Option<Self> {
            self.0.checked_add(time).map(Self)
        }
    }

    impl std::ops::Add<Duration> for Instant {
        type Output = Self;

        fn add(self, time: Duration) -> Self {
            Self(self.0 + time)
        }
    }

    pub(super) fn now_ms() -> Option<u64> {
        let passed = WORLD.with_borrow(|world| world.as_ref().map(|w| w.passed))?;
        Some(1_700_000_000_000 + u64::try_from(passed.as_millis()).unwrap_or(0))
    }

    pub(super) fn random() -> Option<u128> {
        Some(u128::from(next()?) << 64 | u128::from(next()?))
    }

    /// The next number of the world that is played, by the splitmix64 generator; `None` outside of one.
    pub(crate) fn next() -> Option<u64> {
        WORLD.with_borrow_mut(|world| {
            let world = world.as_mut()?;
            world.chance = world.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = world.chance;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            Some(z ^ (z >> 31))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time() {
        let first = sortable_id("tsk").expect("random");
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = sortable_id("tsk").expect("random");
        assert!(first < second);
        assert_eq!(first.len(), second.len());
    }
}
