//! What the workspace holds now, by digests.

use std::collections::HashMap;
use std::time::SystemTime;

use legwork_base::clock::now_ms;
use legwork_base::digest;
use legwork_workspace::{Error, Root};

use super::manifest::{Manifest, NOTES, Stored};

/// Digests of files that have not changed since.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<String, (Stamp, Stored)>);

/// What tells that a file is the same: when and how large it was, and which.
type Stamp = (SystemTime, u64, u64, u32);

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
                    let Ok((size, sha256)) = digest::of_stream(&mut file) else { return };
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
