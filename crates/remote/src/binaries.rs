//! The micro-runner's binaries, by the host they are for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use legwork_base::digest::hex;
use sha2::{Digest, Sha256};

use crate::Error;

/// Digits of a digest that tell binaries apart.
const DIGITS: usize = 16;

/// One binary.
#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) bytes: Cow<'static, [u8]>,
    digest: OnceLock<String>,
}

impl Binary {
    /// The start of its SHA-256, in hex.
    pub(crate) fn digest(&self) -> &str {
        self.digest.get_or_init(|| short(&Sha256::digest(&self.bytes)))
    }
}

fn short(digest: &[u8]) -> String {
    hex(&digest[..DIGITS / 2])
}

/// Binaries by operating system and processor, as `uname -s` and `uname -m` name them.
#[derive(Debug, Clone, Default)]
pub struct Binaries(BTreeMap<(String, String), Arc<Binary>>);

impl Binaries {
    /// Adds one, for `Linux` on `x86_64`, say.
    #[must_use]
    pub fn with(self, system: &str, processor: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        let binary = Binary { bytes: bytes.into(), digest: OnceLock::new() };
        self.insert(system, processor, binary)
    }

    /// The same for one whose SHA-256 is known.
    #[must_use]
    pub fn with_digest(
        self,
        system: &str,
        processor: &str,
        bytes: impl Into<Cow<'static, [u8]>>,
        digest: &[u8; 32],
    ) -> Self {
        let binary = Binary { bytes: bytes.into(), digest: OnceLock::from(short(digest)) };
        self.insert(system, processor, binary)
    }

    fn insert(mut self, system: &str, processor: &str, binary: Binary) -> Self {
        self.0.insert((system.to_owned(), processor.to_owned()), Arc::new(binary));
        self
    }

    /// Those that `make dist` puts into a folder: `legwork-micro-x86_64-linux`, ….
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let mut found = Self::default();
        for processor in ["x86_64", "aarch64"] {
            let file = dir.as_ref().join(format!("legwork-micro-{processor}-linux"));
            if let Ok(bytes) = std::fs::read(file) {
                found = found.with("Linux", processor, bytes);
            }
        }
        if found.0.is_empty() {
            let dir = dir.as_ref().display();
            return Err(Error::Upload(format!(
                "no legwork-micro-*-linux in {dir}; `make micro` builds them"
            )));
        }
        Ok(found)
    }

    /// A binary that serves every host, whatever it says it is.
    pub fn single(bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        Self::default().with("*", "*", bytes)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn find(&self, system: &str, processor: &str) -> Result<Arc<Binary>, Error> {
        let processor = match processor {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        };
        let own = self.0.get(&(system.to_owned(), processor.to_owned()));
        own.or_else(|| self.0.get(&("*".to_owned(), "*".to_owned()))).cloned().ok_or_else(|| {
            let have: Vec<String> =
                self.0.keys().map(|(system, processor)| format!("{system} {processor}")).collect();
            let have =
                if have.is_empty() { "none (`make micro` builds them)".to_owned() } else { have.join(", ") };
            Error::NoBinary(format!("{system} {processor}"), have)
        })
    }

    /// So many bytes must be free on a host, whichever it needs.
    pub(crate) fn room(&self) -> usize {
        self.0.values().map(|binary| binary.bytes.len()).max().unwrap_or(0)
    }

    /// Whether one of ours has this digest.
    pub(crate) fn has_digest(&self, digest: &str) -> bool {
        self.0.values().any(|binary| binary.digest() == digest)
    }
}
