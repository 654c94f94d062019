//! Names that can't be guessed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// 120 random bits, as 20 characters that need no quoting anywhere.
pub(crate) fn random() -> String {
    let mut bytes = [0u8; 15];
    // Without randomness there are no secrets: nothing may go on.
    #[expect(clippy::expect_used, reason = "the kernel's generator does not fail once it has started")]
    getrandom::fill(&mut bytes).expect("the system has randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}
