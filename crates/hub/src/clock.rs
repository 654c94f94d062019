//! Time and fresh ids.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use legwork_proto::base57;

/// Now, in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
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
