//! Fresh random names and secrets.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Random bytes, for secrets: without randomness it fails, and nothing may go on.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
    Ok(bytes)
}

/// 128 random bits as 32 digits that need no quoting anywhere: a name that can't be guessed.
///
/// # Panics
///
/// Without randomness there are no secrets, and nothing may go on.
pub fn secret() -> String {
    #[expect(clippy::expect_used, reason = "the kernel's generator does not fail once it has started")]
    let bits = bytes().map(u128::from_le_bytes).expect("the system has randomness");
    format!("{bits:032x}")
}

/// 128 bits that nobody else has, for names. Never a secret: where the system gives no
/// randomness they are made of clock, process and count.
pub fn unique() -> u128 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    bytes().map(u128::from_le_bytes).unwrap_or_else(|_| {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        u128::from(crate::clock::now_ms()) << 64 | u128::from(std::process::id()) << 32 | u128::from(count)
    })
}

/// A number from 0 up to 1, to spread what would else happen at the same moment.
pub fn fraction() -> f64 {
    let bits = u32::try_from(unique() & u128::from(u32::MAX)).unwrap_or(0);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_fractions_are_below_one() {
        let names: std::collections::BTreeSet<u128> = (0..1000).map(|_| unique()).collect();
        assert_eq!(names.len(), 1000);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&fraction())));
        assert_ne!(bytes::<16>().expect("randomness"), [0; 16]);
    }
}
