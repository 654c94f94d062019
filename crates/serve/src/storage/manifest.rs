//! What a stored workspace consists of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where our notes lie, beside the files.
pub(crate) const NOTES: &str = ".legwork";
/// The manifest of what is stored.
pub(crate) const MANIFEST: &str = ".legwork/manifest.json";
/// A save that is being spread.
pub(crate) const PENDING: &str = ".legwork/pending.tar.zst";

/// A file as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) size: u64,
    pub(crate) sha256: String,
    pub(crate) mode: u32,
}

/// All files of a workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    /// Unix milliseconds.
    pub(crate) saved_ms: u64,
    pub(crate) files: BTreeMap<String, Stored>,
}

/// How two states differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Diff {
    pub(crate) added: Vec<String>,
    pub(crate) changed: Vec<String>,
    pub(crate) deleted: Vec<String>,
}

impl Manifest {
    /// What leads from this state to another.
    pub(crate) fn diff(&self, to: &Self) -> Diff {
        let mut diff = Diff::default();
        for (path, file) in &to.files {
            match self.files.get(path) {
                None => diff.added.push(path.clone()),
                Some(old) if old != file => diff.changed.push(path.clone()),
                Some(_) => {}
            }
        }
        diff.deleted = self.files.keys().filter(|path| !to.files.contains_key(*path)).cloned().collect();
        diff
    }
}

impl Diff {
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.deleted.is_empty()
    }
}
