//! The micro-runner's binaries, by the host they are for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use legwork_base::digest::hex;
use sha2::{Digest, Sha256};

use crate::Error;

/// Digits of a digest that tell binaries apart.
const DIGITS: usize = 16;

/// One binary, as it goes over to a host.
#[derive(Debug)]
pub(crate) struct Binary {
    source: Source,
    digest: OnceLock<String>,
}

#[derive(Debug)]
enum Source {
    Plain(Cow<'static, [u8]>),
    /// Unpacked for the first host that lacks it: most have theirs already.
    Packed {
        packed: Packed,
        plain: OnceLock<Vec<u8>>,
    },
}

/// A binary that its program brings along compressed.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    /// The binary, compressed with gzip.
    pub gzip: &'static [u8],
    /// How many bytes it has when it is unpacked.
    pub size: usize,
    /// The SHA-256 of those bytes. If what is unpacked has another one, nothing is uploaded.
    pub digest: [u8; 32],
}

impl Binary {
    fn plain(bytes: Cow<'static, [u8]>) -> Self {
        Self { source: Source::Plain(bytes), digest: OnceLock::new() }
    }

    /// The start of its SHA-256, in hex.
    pub(crate) fn digest(&self) -> &str {
        self.digest.get_or_init(|| match &self.source {
            Source::Plain(bytes) => short(&Sha256::digest(bytes)),
            Source::Packed { packed, .. } => short(&packed.digest),
        })
    }

    fn size(&self) -> usize {
        match &self.source {
            Source::Plain(bytes) => bytes.len(),
            Source::Packed { packed, .. } => packed.size,
        }
    }

    /// What is written to the host. Fails only if what this program brings along is damaged.
    pub(crate) fn bytes(&self) -> Result<&[u8], Error> {
        match &self.source {
            Source::Plain(bytes) => Ok(bytes),
            Source::Packed { packed, plain } => match plain.get() {
                Some(bytes) => Ok(bytes),
                None => {
                    let bytes = unpack(packed)?;
                    Ok(plain.get_or_init(|| bytes))
                }
            },
        }
    }
}

fn unpack(packed: &Packed) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(packed.size);
    // One byte more than promised is enough to see that it is another file.
    flate2::read::GzDecoder::new(packed.gzip)
        .take(packed.size as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::Upload(format!("the micro-runner in this program is damaged: {error}")))?;
    if Sha256::digest(&bytes)[..] != packed.digest {
        return Err(Error::Upload(
            "the micro-runner in this program is damaged: it has another digest".into(),
        ));
    }
    Ok(bytes)
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
        self.insert(system, processor, Binary::plain(bytes.into()))
    }

    /// Adds one that is unpacked when a host needs it.
    #[must_use]
    pub fn with_packed(self, system: &str, processor: &str, packed: Packed) -> Self {
        let source = Source::Packed { packed, plain: OnceLock::new() };
        self.insert(system, processor, Binary { source, digest: OnceLock::new() })
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
        self.0.values().map(|binary| binary.size()).max().unwrap_or(0)
    }

    /// Whether one of ours has this digest.
    pub(crate) fn has_digest(&self, digest: &str) -> bool {
        self.0.values().any(|binary| binary.digest() == digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(text: &[u8], size: usize, digest: [u8; 32]) -> Binaries {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, text).expect("compressed");
        let gzip = gzip.finish().expect("compressed").leak();
        Binaries::default().with_packed("Linux", "x86_64", Packed { gzip, size, digest })
    }

    #[test]
    fn a_packed_binary_is_the_same_as_a_plain_one() {
        let text = b"a micro-runner";
        let packed = packed(text, text.len(), Sha256::digest(text).into());
        let plain = Binaries::default().with("Linux", "x86_64", &text[..]);
        let (one, other) = (packed.find("Linux", "amd64"), plain.find("Linux", "amd64"));
        let (one, other) = (one.expect("a binary"), other.expect("a binary"));
        assert_eq!(one.bytes().expect("unpacked"), text);
        assert_eq!((one.digest(), packed.room()), (other.digest(), plain.room()));
        assert!(packed.has_digest(other.digest()));
    }

    #[test]
    fn a_damaged_binary_is_not_uploaded() {
        let text = b"a micro-runner";
        let digest = Sha256::digest(text).into();
        for (text, size) in [(&b"another runner"[..], 14), (text, 3), (b"a micro-runner and more", 14)] {
            let damaged = packed(text, size, digest).find("Linux", "x86_64").expect("a binary");
            assert!(damaged.bytes().is_err_and(|e| e.to_string().contains("is damaged")), "{size}");
        }
    }
}
