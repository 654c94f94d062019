//! Releases: a signed manifest that says which archive is which version for which
//! machine; making it, checking it, and putting a release in the place of a program.
//!
//! Nothing of a release is believed before the manifest's signature was checked with
//! a key that the operator configured.

mod fetch;
mod install;
mod keys;
mod manifest;

use std::sync::OnceLock;

pub use fetch::{Fetcher, Progress};
pub use install::{Staged, stage};
pub use keys::{PublicKey, SecretKey};
pub use manifest::{Archive, MANIFEST, Manifest, SIGNATURE, make};

/// Why something about a release failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(crate) String);

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

static VERSION: OnceLock<&'static str> = OnceLock::new();

/// The version of this program.
pub fn version() -> &'static str {
    VERSION.get().copied().unwrap_or(env!("CARGO_PKG_VERSION"))
}

/// Sets the version, for a program that is built from the same crates under another
/// one. To be called before anything asks for it.
pub fn set_version(version: &'static str) {
    let _ = VERSION.set(version);
}

/// What this program was built for, as archives name it.
pub fn target() -> String {
    let os = match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "Darwin",
        "windows" => "Windows",
        other => other,
    };
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    };
    format!("{os}_{arch}")
}
