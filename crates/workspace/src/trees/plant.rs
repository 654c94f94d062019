//! Planting a tree: making its files from their pieces.

use std::io::{self, Write};
use std::path::Path;

use super::manifest::{Entry, Manifest, What};
use super::{Digest, PIECE};
use crate::{ArchiveError, Bounds, Packed, Root};

/// Pieces that are asked for at a time, and their bytes.
const MOST_ASKED: usize = 256;
const MOST_BYTES: u64 = 16 << 20;

/// Why a tree can't be planted.
#[derive(Debug, thiserror::Error)]
pub enum PlantError {
    /// There is more in it than is allowed.
    #[error("the tree holds too much: {0}")]
    TooMuch(String),
    /// The pieces can't be had.
    #[error("{0}")]
    Pieces(String),
    /// A piece is not what its name says.
    #[error("a piece of the tree is damaged: {0}")]
    Damaged(Digest),
    /// It can't be written.
    #[error("{0}")]
    Write(#[from] ArchiveError),
}

impl Root {
    /// Makes the files and links of a tree. `fetch` gets the pieces it is asked for, in that order,
    /// some at a time; each is checked.
    pub fn plant(
        &self,
        manifest: &Manifest,
        bounds: Bounds,
        mut fetch: impl FnMut(&[Digest]) -> Result<Vec<Vec<u8>>, String>,
    ) -> Result<Packed, PlantError> {
        let sizes = manifest.entries.iter().map(|entry| match &entry.what {
            What::File { size, .. } => *size,
            What::Link(_) => 0,
        });
        let bytes = sizes.fold(0u64, u64::saturating_add);
        let entries = manifest.entries.len() as u64;
        if bytes > bounds.bytes || entries > bounds.entries {
            return Err(PlantError::TooMuch(format!("{entries} files, {bytes} bytes")));
        }
        let mut rest = manifest.entries.as_slice();
        while !rest.is_empty() {
            let (few, more) = rest.split_at(batch(rest));
            rest = more;
            let mut asked: Vec<Digest> = Vec::new();
            for entry in few {
                if let What::File { pieces, .. } = &entry.what
                    && pieces.len() <= MOST_ASKED / 16
                {
                    asked.extend(pieces);
                }
            }
            asked.sort_unstable();
            asked.dedup();
            let got = pieces(&asked, &mut fetch)?;
            for entry in few {
                self.plant_one(entry, &asked, &got, &mut fetch)?;
            }
        }
        Ok(Packed { entries, bytes })
    }

    fn plant_one(
        &self,
        Entry { path, what }: &Entry,
        asked: &[Digest],
        got: &[Vec<u8>],
        fetch: &mut impl FnMut(&[Digest]) -> Result<Vec<Vec<u8>>, String>,
    ) -> Result<(), PlantError> {
        let (mode, size, digests) = match what {
            What::Link(target) => return Ok(self.take_link(Path::new(""), Path::new(path), target)?),
            What::File { mode, size, pieces } => (*mode, *size, pieces),
        };
        let failed =
            |e: io::Error| PlantError::Write(io::Error::new(e.kind(), format!("{path}: {e}")).into());
        self.clear_way(Path::new(path))?;
        let mut file = self.create(path).map_err(ArchiveError::from)?;
        let mut written = 0u64;
        for digest in digests {
            let one;
            let bytes = match asked.binary_search(digest) {
                Ok(at) => &got[at],
                // A large file's come one by one.
                Err(_) => {
                    one = pieces(&[*digest], fetch)?;
                    &one[0]
                }
            };
            written += bytes.len() as u64;
            file.write_all(bytes).map_err(failed)?;
        }
        if written != size {
            return Err(PlantError::Pieces(format!("{path} has {written} bytes, and not {size}")));
        }
        file.set_mode(mode).map_err(failed)?;
        Ok(file.commit_unflushed().map_err(ArchiveError::from)?)
    }
}

/// How many entries are made together.
fn batch(entries: &[Entry]) -> usize {
    let (mut count, mut bytes) = (0usize, 0u64);
    for (at, entry) in entries.iter().enumerate() {
        if let What::File { size, pieces, .. } = &entry.what {
            (count, bytes) = (count + pieces.len(), bytes + size);
        }
        if at > 0 && (count > MOST_ASKED || bytes > MOST_BYTES) {
            return at;
        }
    }
    entries.len()
}

/// Gets pieces, and checks them.
fn pieces(
    asked: &[Digest],
    fetch: &mut impl FnMut(&[Digest]) -> Result<Vec<Vec<u8>>, String>,
) -> Result<Vec<Vec<u8>>, PlantError> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let got = fetch(asked).map_err(PlantError::Pieces)?;
    if got.len() != asked.len() {
        return Err(PlantError::Pieces(format!("{} pieces came, and not {}", got.len(), asked.len())));
    }
    for (digest, bytes) in asked.iter().zip(&got) {
        if bytes.len() > PIECE || Digest::of(bytes) != *digest {
            return Err(PlantError::Damaged(*digest));
        }
    }
    Ok(got)
}
