//! Trees of files that come with tasks, piece by piece: each is kept once, under its digest, for as
//! long as somebody asks for it now and then.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::engine::Hub;

/// A piece that nobody has asked for, or sent again, for so long is forgotten: longer than a task
/// may wait for a runner.
const KEPT: Duration = Duration::from_secs(8 * 24 * 3600);
/// All pieces together; beyond it those that were asked for longest ago go first.
const MAX_TOTAL: u64 = 32 << 30;
/// The time of its last use is written down so rarely.
const COARSE: Duration = Duration::from_secs(3600);

/// The folder of pieces.
#[derive(Debug, Clone)]
pub(crate) struct Pieces {
    dir: PathBuf,
}

/// Why a piece is not kept.
#[derive(Debug)]
pub(crate) enum PieceError {
    /// The body is cut off, or holds a piece that is not what it is called.
    Damaged,
    Io(io::Error),
}

impl From<io::Error> for PieceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Pieces {
    pub(crate) fn new(data: &Path) -> Self {
        Self { dir: data.join("pieces") }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(&digest[..2]).join(digest)
    }

    /// Which of these there are not; those that there are count as used.
    pub(crate) fn missing(&self, digests: Vec<String>) -> Vec<String> {
        digests.into_iter().filter(|digest| !self.has(digest)).collect()
    }

    fn has(&self, digest: &str) -> bool {
        let path = self.path(digest);
        let Ok(used) = path.metadata().and_then(|meta| meta.modified()) else { return false };
        if used.elapsed().is_ok_and(|age| age > COARSE) {
            let _ = fs::File::options()
                .append(true)
                .open(&path)
                .and_then(|file| file.set_modified(SystemTime::now()));
        }
        true
    }

    /// Keeps the pieces of a body. They are on disk when this returns.
    pub(crate) fn keep(&self, body: &[u8]) -> Result<usize, PieceError> {
        // All of it is looked at before any of it is kept.
        let mut checked = Vec::new();
        for piece in legwork_proto::pieces::Pieces::of(body) {
            let (digest, bytes) = piece.map_err(|_| PieceError::Damaged)?;
            if Sha256::digest(bytes).as_slice() != digest {
                return Err(PieceError::Damaged);
            }
            checked.push((hex(&digest), bytes));
        }
        for (digest, bytes) in &checked {
            if self.has(digest) {
                continue;
            }
            let path = self.path(digest);
            let folder = path.parent().unwrap_or(&self.dir);
            fs::create_dir_all(folder)?;
            let temporary = folder.join(format!("{digest}.{:x}.new", crate::clock::random()?));
            let mut file = fs::File::options().write(true).create_new(true).open(&temporary)?;
            let written = file.write_all(bytes).and_then(|()| fs::rename(&temporary, &path));
            if let Err(error) = written {
                let _ = fs::remove_file(&temporary);
                return Err(error.into());
            }
        }
        if !checked.is_empty() {
            // One flush for all of them.
            rustix::fs::syncfs(fs::File::open(&self.dir)?).map_err(io::Error::from)?;
        }
        Ok(checked.len())
    }

    /// A piece, if it is there.
    pub(crate) fn one(&self, digest: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// A body of these pieces, as far as it holds them and they are there.
    pub(crate) fn body(&self, digests: &[String]) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        for digest in digests {
            let Some(piece) = self.one(digest)? else { break };
            if !body.is_empty() && body.len() + piece.len() > legwork_proto::pieces::MAX_BODY {
                break;
            }
            legwork_proto::pieces::put(&mut body, &bytes(digest), &piece);
        }
        Ok(body)
    }

    /// Forgets pieces that nobody has asked for, and what a crash left half written.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let mut found = Vec::new();
        let mut total = 0;
        for folder in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            for file in fs::read_dir(folder.path())?.flatten() {
                let meta = file.metadata()?;
                let used = meta.modified()?;
                let age = used.elapsed().unwrap_or_default();
                let is_left = file.path().extension().is_some() && age > COARSE;
                if age > KEPT || is_left {
                    fs::remove_file(file.path())?;
                } else {
                    total += meta.len();
                    found.push((used, meta.len(), file.path()));
                }
            }
        }
        found.sort();
        for (_, len, path) in found {
            if total <= MAX_TOTAL {
                break;
            }
            fs::remove_file(path)?;
            total -= len;
        }
        Ok(())
    }
}

impl Hub {
    /// Forgets pieces that nobody has asked for: to be called every now and then.
    pub(crate) async fn forget_pieces(&self) {
        let pieces = Pieces::new(&self.data);
        let swept = tokio::task::spawn_blocking(move || pieces.sweep()).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!("old pieces of trees can't be removed: {error}");
        }
    }
}

/// Whether a text is the name of a piece: it becomes one of a file.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a name that [`is_digest`].
pub(crate) fn bytes(digest: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digest[at..at + 2], 16).unwrap_or(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_kept_once_and_forgotten() {
        let dir = tempfile::tempdir().expect("dir");
        let pieces = Pieces::new(dir.path());
        let mut body = Vec::new();
        let digest = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        for piece in [&b"one"[..], b"two", b"one"] {
            legwork_proto::pieces::put(&mut body, &digest(piece), piece);
        }
        let names: Vec<String> = [&b"one"[..], b"two", b"three"].map(|p| hex(&digest(p))).to_vec();
        assert_eq!(pieces.missing(names.clone()), names);
        assert_eq!(pieces.keep(&body).expect("kept"), 3);
        assert_eq!(pieces.missing(names.clone()), names[2..]);
        // As far as they are there.
        let back = pieces.body(&names).expect("body");
        let back: Vec<_> = legwork_proto::pieces::Pieces::of(&back).map(|p| p.expect("whole").1).collect();
        assert_eq!(back, [b"one", b"two"]);
        // What is not what it is called is not kept, nor what came with it.
        let mut bad = Vec::new();
        legwork_proto::pieces::put(&mut bad, &digest(b"three"), b"three");
        legwork_proto::pieces::put(&mut bad, &digest(b"four"), b"five");
        assert!(matches!(pieces.keep(&bad), Err(PieceError::Damaged)));
        assert!(matches!(pieces.keep(&body[..50]), Err(PieceError::Damaged)));
        assert_eq!(pieces.missing(names.clone()), names[2..]);
        let old = SystemTime::now() - KEPT - COARSE;
        let file = fs::File::options().append(true).open(pieces.path(&names[0])).expect("open");
        file.set_modified(old).expect("time");
        pieces.sweep().expect("swept");
        assert_eq!(pieces.missing(names.clone()), [names[0].clone(), names[2].clone()]);
        for text in ["", "..", &"g".repeat(64), &"A".repeat(64)] {
            assert!(!is_digest(text), "{text}");
        }
        assert!(names.iter().all(|name| is_digest(name)));
    }
}
