//! `file.read`: the start of a regular file, as text and, where it is none, as base64.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use legwork_proto::micro::{MAX_LINE, result};
use sha2::{Digest, Sha256};

use super::file;
use crate::fields::Fields;
use crate::os::cause;
use crate::output::{Text, length_in_json, length_of};
use crate::request::{Context, Request, Trouble};
use crate::signature::hex;

/// What surrounds a result in its line, with a long id.
const ENVELOPE: usize = 32 * 1024;
/// A result is long from here on.
const LONG: usize = 256 * 1024;
/// Between two looks at the clock.
const PIECE: u64 = 1024 * 1024;

/// What was read.
#[derive(Debug)]
pub(crate) struct Content {
    bytes: Vec<u8>,
    found: Metadata,
    checksum: String,
    truncated: bool,
}

impl Content {
    pub(crate) fn result(&self) -> result::FileRead<Text<'_>> {
        let binary = std::str::from_utf8(&self.bytes).is_err();
        result::FileRead {
            content: Text::Lossy(&self.bytes),
            encoding: binary.then(|| "base64".to_owned()),
            content_base64: binary.then_some(Text::Base64(&self.bytes)),
            size: self.found.len(),
            mode: format!("{:04o}", self.found.mode() & 0o777),
            owner: self.found.uid().to_string(),
            group: self.found.gid().to_string(),
            checksum: self.checksum.clone(),
            truncated: self.truncated,
        }
    }

    /// Drops the end until the line is below its bound.
    fn fit(&mut self) {
        // Each byte takes at most eight: six as text, one and a third as base64.
        while self.bytes.len() > MAX_LINE / 9 {
            let length = match std::str::from_utf8(&self.bytes) {
                Ok(text) => length_in_json(text),
                Err(_) => length_of(&self.result()),
            };
            if length + ENVELOPE < MAX_LINE {
                return;
            }
            let keep = self.bytes.len() * (MAX_LINE - 2 * ENVELOPE) / length;
            let border = (keep.saturating_sub(3)..=keep).rev().find(|at| self.bytes[*at] & 0xc0 != 0x80);
            self.bytes.truncate(border.unwrap_or(keep));
            self.truncated = true;
        }
    }
}

pub(super) fn run(context: &mut Context<'_>, request: &Request) -> Result<Content, Trouble> {
    let fields = Fields::parse(&request.params, &["path", "max_bytes", "stat", "list"])?;
    let path = file::path(&fields.string("path")?)?;
    let limit = match fields.integer("max_bytes")? {
        0 => MAX_LINE as u64,
        limit => u64::try_from(limit).map_err(|_| "max_bytes must not be negative")?.min(MAX_LINE as u64),
    };
    let name = path.display();
    let found = std::fs::metadata(&path)
        .map_err(|error| format!("failed to stat file: stat {name}: {}", cause(&error)))?;
    if found.is_dir() && fields.boolean("list")? {
        let bytes = list(context, &path)?;
        let mut content = Content { bytes, found, checksum: String::new(), truncated: false };
        content.fit();
        return Ok(content);
    }
    if found.is_dir() {
        return Err(format!("failed to read file: read {name}: is a directory").into());
    }
    if !found.is_file() {
        return Err(format!("failed to open file: open {name}: not a regular file").into());
    }
    // It may have become a FIFO since: opening it must not wait.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let open = OpenOptions::new().read(true).custom_flags(nonblocking).open(&path);
    let mut open = open.map_err(|error| format!("failed to open file: open {name}: {}", cause(&error)))?;
    let found = open.metadata().ok().filter(Metadata::is_file);
    let found = found.ok_or_else(|| format!("failed to open file: open {name}: not a regular file"))?;
    if fields.boolean("stat")? {
        let checksum = digest(context, &mut open).map_err(|halt| halt.explain(&path))?;
        return Ok(Content { bytes: Vec::new(), found, checksum, truncated: false });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len().min(limit)).unwrap_or(0));
    let truncated = fill(context, &mut open, limit, &mut bytes).map_err(|halt| halt.explain(&path))?;
    let mut content = Content { bytes, found, checksum: String::new(), truncated };
    content.fit();
    if content.bytes.len() > LONG {
        context.port.output.widen();
    }
    content.checksum = hex(&Sha256::digest(&content.bytes));
    Ok(content)
}

enum Halt {
    Read(std::io::Error),
    Trouble(Trouble),
}

impl Halt {
    fn explain(self, path: &Path) -> Trouble {
        match self {
            Self::Read(error) => {
                format!("failed to read file: read {}: {}", path.display(), cause(&error)).into()
            }
            Self::Trouble(trouble) => trouble,
        }
    }
}

/// What a folder holds, in all depths: a line of JSON for each, folders before what is in them.
/// Links are told, not followed.
fn list(context: &Context<'_>, root: &Path) -> Result<Vec<u8>, Trouble> {
    let text = |text: &Path| serde_json::to_string(&*text.to_string_lossy()).unwrap_or_default();
    let mut lines = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let unread = |error: std::io::Error| {
            format!("failed to read file: read {}: {}", root.join(&folder).display(), cause(&error))
        };
        for entry in std::fs::read_dir(root.join(&folder)).map_err(unread)? {
            context.check()?;
            let entry = entry.map_err(unread)?;
            let (path, name) = (entry.path(), folder.join(entry.file_name()));
            let found = entry.metadata().map_err(unread)?;
            let (mode, size, kind) = (found.mode() & 0o7777, found.len(), found.file_type());
            let line = if kind.is_dir() {
                folders.push(name.clone());
                format!("[\"d\",\"{mode:04o}\",0,\"\",{}]\n", text(&name))
            } else if kind.is_symlink() {
                let to = std::fs::read_link(&path).map_err(unread)?;
                format!("[\"l\",\"0777\",0,{},{}]\n", text(&to), text(&name))
            } else if kind.is_file() {
                let mut open = File::open(&path).map_err(unread)?;
                let digest = digest(context, &mut open).map_err(|halt| halt.explain(&path))?;
                format!("[\"f\",\"{mode:04o}\",{size},\"{digest}\",{}]\n", text(&name))
            } else {
                format!("[\"o\",\"{mode:04o}\",0,\"\",{}]\n", text(&name))
            };
            lines.extend_from_slice(line.as_bytes());
            if lines.len() > MAX_LINE {
                return Ok(lines);
            }
        }
    }
    Ok(lines)
}

/// The digest of a whole file.
fn digest(context: &Context<'_>, open: &mut File) -> Result<String, Halt> {
    let mut hash = Sha256::new();
    let mut piece = Vec::new();
    while open.take(PIECE).read_to_end(&mut piece).map_err(Halt::Read)? > 0 {
        context.check().map_err(Halt::Trouble)?;
        hash.update(&piece);
        piece.clear();
    }
    Ok(hex(&hash.finalize()))
}

/// Reads to the limit; true if the file goes on.
fn fill(context: &Context<'_>, open: &mut File, limit: u64, bytes: &mut Vec<u8>) -> Result<bool, Halt> {
    loop {
        context.check().map_err(Halt::Trouble)?;
        let left = limit - bytes.len() as u64;
        if left == 0 {
            return Ok(open.read(&mut [0u8]).map_err(Halt::Read)? > 0);
        }
        if open.take(left.min(PIECE)).read_to_end(bytes).map_err(Halt::Read)? == 0 {
            return Ok(false);
        }
    }
}
