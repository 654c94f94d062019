//! What the workspace holds now, by digests.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::time::SystemTime;

use legwork_workspace::{Error, Root};
use sha2::{Digest, Sha256};

use super::manifest::{Manifest, NOTES, Stored};

/// Digests of files that have not changed since.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<String, (Stamp, Stored)>);

/// What tells that a file is the same: when and how large it was, and which.
type Stamp = (SystemTime, u64, u64, u32);

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// The digest of a file, and how long it was.
pub(crate) fn digest(file: &mut File) -> std::io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 256 * 1024];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hex(&hasher.finalize()), size)),
            len => {
                hasher.update(&buffer[..len]);
                size += len as u64;
            }
        }
    }
}

impl Known {
    /// Looks at all files; reads those that may have changed. Blocks.
    pub(crate) fn scan(&mut self, root: &Root, exclude: &[String]) -> Result<Manifest, Error> {
        let mut manifest = Manifest { version: 1, saved_ms: now_ms(), ..Manifest::default() };
        let mut known = HashMap::with_capacity(self.0.len());
        root.each_file("", &excluded(exclude), &mut |path, mut file, meta| {
            let stamp = (meta.modified, meta.size, meta.inode, meta.mode);
            let stored = match self.0.remove(path) {
                Some((same, stored)) if same == stamp => stored,
                _ => {
                    let Ok((sha256, size)) = digest(&mut file) else { return };
                    Stored { size, sha256, mode: meta.mode & 0o777 }
                }
            };
            manifest.files.insert(path.to_owned(), stored.clone());
            known.insert(path.to_owned(), (stamp, stored));
        })?;
        self.0 = known;
        Ok(manifest)
    }
}

/// What is never stored, beside what the operator says.
pub(crate) fn excluded(exclude: &[String]) -> Vec<String> {
    exclude.iter().cloned().chain([NOTES.to_owned()]).collect()
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
