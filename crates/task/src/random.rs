//! Fresh ids, and jitter.

/// 64 random bits; without randomness the clock, which is enough for a name.
pub(crate) fn bits() -> u64 {
    let mut bytes = [0u8; 8];
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        return u64::from(now.subsec_nanos()) << 32 ^ now.as_secs();
    }
    u64::from_le_bytes(bytes)
}

/// `prefix` and 12 hex digits.
pub(crate) fn id(prefix: &str) -> String {
    format!("{prefix}_{:012x}", bits() & 0xffff_ffff_ffff)
}

/// From 0 to 1.
pub(crate) fn fraction() -> f64 {
    f64::from(u32::try_from(bits() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
