//! The manifest, and making a release of a folder of archives.

use std::fs::File;
use std::path::Path;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::{Error, PublicKey, SecretKey};

/// The manifest's name beside the archives.
pub const MANIFEST: &str = "manifest.json";
/// Its signature's.
pub const SIGNATURE: &str = "manifest.json.sig";
const CHECKSUMS: &str = "checksums.txt";
const PRODUCT: &str = "legwork";

/// What a release consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `legwork`.
    pub product: String,
    /// The release.
    pub version: Version,
    /// One for each kind of machine.
    pub archives: Vec<Archive>,
}

/// An archive with the program for one kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Which: `Linux_x86_64`.
    pub target: String,
    /// The file beside the manifest.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
}

impl Manifest {
    /// Reads a manifest whose signature is checked first.
    pub fn verified(bytes: &[u8], signature: &str, key: &PublicKey) -> Result<Self, Error> {
        key.verify(bytes, signature)?;
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::new(format!("the manifest can't be read: {e}")))?;
        if manifest.product != PRODUCT {
            return Err(Error::new(format!("the manifest is of '{}', not of {PRODUCT}", manifest.product)));
        }
        Ok(manifest)
    }

    /// The archive for a kind of machine.
    pub fn archive(&self, target: &str) -> Result<&Archive, Error> {
        self.archives.iter().find(|archive| archive.target == target).ok_or_else(|| {
            let there: Vec<&str> = self.archives.iter().map(|a| a.target.as_str()).collect();
            Error::new(format!(
                "release {} has no archive for {target}; it has {}",
                self.version,
                there.join(", ")
            ))
        })
    }
}

/// Writes checksums, manifest and signature for the archives `legwork_TARGET.tar.gz`
/// of a folder.
pub fn make(folder: &Path, version: &str, key: &SecretKey) -> Result<Manifest, Error> {
    let version = Version::parse(version)
        .map_err(|e| Error::new(format!("'{version}' is no version such as 1.2.3: {e}")))?;
    let failed = |what: &Path, e: std::io::Error| Error::new(format!("{}: {e}", what.display()));
    let mut archives = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let path = entry.map_err(|e| failed(folder, e))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let Some(target) = name.strip_prefix("legwork_").and_then(|n| n.strip_suffix(".tar.gz")) else {
            continue;
        };
        let (size, sha256) = digest(&path).map_err(|e| failed(&path, e))?;
        archives.push(Archive { target: target.to_owned(), name, size, sha256 });
    }
    if archives.is_empty() {
        return Err(Error::new(format!("{} holds no legwork_TARGET.tar.gz", folder.display())));
    }
    archives.sort_by(|a, b| a.name.cmp(&b.name));
    let checksums: String = archives.iter().map(|a| format!("{}  {}\n", a.sha256, a.name)).collect();
    let manifest = Manifest { product: PRODUCT.into(), version, archives };
    let bytes = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::new(e.to_string()))?;
    let signature = format!("{}\n", key.sign(&bytes));
    for (name, bytes) in
        [(CHECKSUMS, checksums.as_bytes()), (MANIFEST, bytes.as_slice()), (SIGNATURE, signature.as_bytes())]
    {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|e| failed(&path, e))?;
    }
    Ok(manifest)
}

/// Size and SHA-256 of a file.
pub(crate) fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    legwork_base::digest::of_stream(File::open(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_signed_and_read_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let key = SecretKey::generate().expect("key");
        assert!(make(dir.path(), "1.0.0", &key).is_err_and(|e| e.to_string().contains("legwork_TARGET")));
        std::fs::write(dir.path().join("legwork_Linux_x86_64.tar.gz"), "abc").expect("archive");
        std::fs::write(dir.path().join("other.tar.gz"), "abc").expect("other");
        assert!(make(dir.path(), "one", &key).is_err());
        let made = make(dir.path(), "1.2.3", &key).expect("made");
        let read = |name: &str| std::fs::read(dir.path().join(name)).expect(name);
        let signature = String::from_utf8(read(SIGNATURE)).expect("text");
        let manifest = Manifest::verified(&read(MANIFEST), &signature, &key.public()).expect("verified");
        assert_eq!(manifest, made);
        let archive = manifest.archive("Linux_x86_64").expect("there");
        assert_eq!(archive.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(manifest.archive("Plan9_mips").is_err_and(|e| e.to_string().contains("it has Linux_x86_64")));
        assert!(String::from_utf8(read(CHECKSUMS)).expect("text").starts_with("ba7816bf"));
        let mut changed = read(MANIFEST);
        changed[20] ^= 1;
        assert!(Manifest::verified(&changed, &signature, &key.public()).is_err());
    }
}
