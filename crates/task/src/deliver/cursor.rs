//! Where the sender stands, in a file: what was sent, and what exactly is being sent. So
//! that whoever comes after a crash repeats the very request whose answer was lost, which
//! the hub can then recognise.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

const BYTES: usize = 512;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The spool is sent up to here.
    pub(crate) sent: u64,
    /// The spool up to here makes the request under way.
    pub(crate) ahead: u64,
    /// The message that tokens were sent of last.
    pub(crate) message: String,
    /// The index of its next token event.
    pub(crate) next_index: u64,
    /// The last event of all was taken.
    #[serde(default)]
    pub(crate) is_over: bool,
}

#[derive(Debug)]
pub(crate) struct Store(File);

impl Store {
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Cursor)> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0u8; BYTES];
        let read = file.read_at(&mut bytes, 0)?;
        let text = bytes[..read].trim_ascii_end();
        let cursor = serde_json::from_slice(text).unwrap_or_default();
        Ok((Self(file), cursor))
    }

    /// One write of one block: whole or not at all, as far as a killed process goes.
    pub(crate) fn save(&self, cursor: &Cursor) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(cursor)?;
        bytes.resize(BYTES, b' ');
        self.0.write_all_at(&bytes, 0)
    }
}
