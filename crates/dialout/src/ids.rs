//! Fresh ids.

use legwork_proto::base57;

/// 128 random bits; the clock where the system has none to give.
fn random() -> u128 {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return u128::from(crate::clock::now_ms()) << 64 | u128::from(std::process::id());
    }
    u128::from_le_bytes(bytes)
}

/// A message id.
pub(crate) fn message_id() -> String {
    base57::message_id(random())
}

/// A name for a command's file.
pub(crate) fn record_name() -> String {
    base57::encode(random(), 22)
}

/// A number below one, for jitter.
#[allow(clippy::cast_precision_loss, reason = "jitter needs no 53 bits")]
pub(crate) fn fraction() -> f64 {
    (random() % 1_000_000) as f64 / 1_000_000.0
}
