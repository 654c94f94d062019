//! A command's file: all that is kept of it, in one inode. (Creating and removing
//! several per command costs more than the command, on ext4 at least.)
//!
//! | at | what |
//! |---|---|
//! | 0 | the supervisor's report, 4096 bytes of JSON padded with blanks; zeros until somebody owns the command |
//! | 4096 | length of what follows, u32 little-endian |
//! | 4100 | what the supervisor is told, as JSON |
//! | next multiple of 4096 | the journal |

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::spec::{Spec, Status};

/// The report's size. Its block is written when the file is made, so that a full
/// disk can't keep a supervisor from reporting the end.
pub(crate) const STATUS_BYTES: usize = 4096;
const SPEC_AT: u64 = STATUS_BYTES as u64;
/// Longer ones are damage.
const MAX_SPEC: u32 = 16 << 20;

/// What a supervisor is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Name of the abstract socket on which it listens; unguessable.
    pub(crate) socket: String,
    /// The boot it is started in.
    pub(crate) boot_id: String,
    pub(crate) spec: Spec,
}

/// Makes a command's file, which must not exist.
pub(crate) fn create(path: &Path, stored: &Stored) -> io::Result<File> {
    let spec = serde_json::to_vec(stored)?;
    let mut bytes = vec![0u8; STATUS_BYTES];
    bytes.extend_from_slice(&u32::try_from(spec.len()).map_err(io::Error::other)?.to_le_bytes());
    bytes.extend_from_slice(&spec);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    if let Err(error) = file.write_all_at(&bytes, 0) {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

fn spec_len(file: &File) -> io::Result<u32> {
    let mut len = [0u8; 4];
    file.read_exact_at(&mut len, SPEC_AT)?;
    let len = u32::from_le_bytes(len);
    if len > MAX_SPEC { Err(io::Error::other("the command's file is damaged")) } else { Ok(len) }
}

/// Where the journal starts.
pub(crate) fn journal_base(file: &File) -> io::Result<u64> {
    Ok((SPEC_AT + 4 + u64::from(spec_len(file)?)).next_multiple_of(4096))
}

/// What the supervisor was told.
pub(crate) fn stored(file: &File) -> io::Result<Stored> {
    let mut bytes = vec![0u8; spec_len(file)? as usize];
    file.read_exact_at(&mut bytes, SPEC_AT + 4)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The report; `None` while nobody owns the command.
pub(crate) fn status(file: &File) -> io::Result<Option<Status>> {
    let mut bytes = [0u8; STATUS_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    if bytes[0] == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(bytes.trim_ascii_end())?))
}

/// Writes the report.
pub(crate) fn report(file: &File, status: &Status) -> io::Result<()> {
    let mut text = serde_json::to_vec(status)?;
    if text.len() > STATUS_BYTES {
        // Rather less of it than half a report.
        let short = |text: &Option<String>| text.as_ref().map(|t| t.chars().take(200).collect());
        let more = u32::try_from(status.denied.len()).unwrap_or(u32::MAX);
        text = serde_json::to_vec(&Status {
            error: short(&status.error),
            journal_error: short(&status.journal_error),
            denied: Vec::new(),
            denied_more: status.denied_more.saturating_add(more),
            ..status.clone()
        })?;
    }
    text.resize(STATUS_BYTES, b' ');
    file.write_all_at(&text, 0)
}
