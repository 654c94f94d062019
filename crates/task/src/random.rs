//! Fresh ids, and jitter.

use legwork_base::ids::unique;

pub(crate) use legwork_base::ids::fraction;

/// 64 random bits, for a name.
pub(crate) fn bits() -> u64 {
    u64::try_from(unique() & u128::from(u64::MAX)).unwrap_or_default()
}

/// `prefix` and 12 hex digits.
pub(crate) fn id(prefix: &str) -> String {
    format!("{prefix}_{:012x}", bits() & 0xffff_ffff_ffff)
}
