//! What a tree consists of, as text: a line for each file and link, in the order of their names.
//!
//! ```text
//! legwork-tree 1
//! F 644 5 DIGEST[,DIGEST…] PATH
//! L TARGET PATH
//! ```
//!
//! In names `%`, blanks and control characters are written as `%XX`.

use std::io::{BufRead, Read};
use std::path::{Component, Path};

use super::{Digest, MAX_ENTRIES, MAX_MANIFEST, MAX_UNPACKED, PIECE};

const FIRST: &str = "legwork-tree 1";
const LEVEL: i32 = 3;
/// The longest line that is read alone: a file of a terabyte.
const MAX_LINE: u64 = 32 << 20;

/// Why a manifest can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not packed as manifests are.
    #[error("the tree's manifest can't be unpacked: {0}")]
    Packed(std::io::Error),
    /// It is larger than any that is allowed.
    #[error("the tree's manifest is too large")]
    TooLarge,
    /// A line of it is no such line.
    #[error("line {line} of the tree's manifest: {problem}")]
    Line {
        /// The line.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// A file or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    File { mode: u32, size: u64, pieces: Vec<Digest> },
    Link(String),
}

/// A tree's files and links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub(super) entries: Vec<Entry>,
}

impl Manifest {
    /// The pieces of all files, in their order, with repetitions.
    pub fn pieces(&self) -> impl Iterator<Item = Digest> + '_ {
        self.entries
            .iter()
            .flat_map(|entry| match &entry.what {
                What::File { pieces, .. } => pieces.as_slice(),
                What::Link(_) => &[],
            })
            .copied()
    }

    /// As text, packed.
    pub(super) fn pack(&self) -> Result<Vec<u8>, ManifestError> {
        let mut text = format!("{FIRST}\n");
        for Entry { path, what } in &self.entries {
            match what {
                What::File { mode, size, pieces } => {
                    let pieces = match pieces.is_empty() {
                        true => "-".to_owned(),
                        false => pieces.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
                    };
                    text.push_str(&format!("F {mode:o} {size} {pieces} {}\n", escaped(path)));
                }
                What::Link(target) => text.push_str(&format!("L {} {}\n", escaped(target), escaped(path))),
            }
        }
        Self::pack_text(&text)
    }

    pub(super) fn pack_text(text: &str) -> Result<Vec<u8>, ManifestError> {
        let packed = zstd::encode_all(text.as_bytes(), LEVEL).map_err(ManifestError::Packed)?;
        if packed.len() > MAX_MANIFEST { Err(ManifestError::TooLarge) } else { Ok(packed) }
    }

    /// Reads one that was packed, and checks all of it: no name leads out of the tree.
    pub fn unpack(packed: &[u8]) -> Result<Self, ManifestError> {
        let decoder = zstd::Decoder::new(packed).map_err(ManifestError::Packed)?;
        let mut text = String::new();
        decoder.take(MAX_UNPACKED + 1).read_to_string(&mut text).map_err(ManifestError::Packed)?;
        if text.len() as u64 > MAX_UNPACKED {
            return Err(ManifestError::TooLarge);
        }
        let mut lines = text.lines().enumerate();
        let wrong =
            |at: usize, problem: &str| ManifestError::Line { line: at + 1, problem: problem.to_owned() };
        if lines.next().map(|(_, line)| line) != Some(FIRST) {
            return Err(wrong(0, "it is of no version that is known here"));
        }
        let mut entries: Vec<Entry> = Vec::new();
        for (at, line) in lines {
            if entries.len() >= MAX_ENTRIES {
                return Err(ManifestError::TooLarge);
            }
            let entry = entry(line).map_err(|problem| wrong(at, problem))?;
            match entries.last().map(|last| last.path.cmp(&entry.path)) {
                Some(std::cmp::Ordering::Equal) => return Err(wrong(at, "a name is there twice")),
                Some(std::cmp::Ordering::Greater) => return Err(wrong(at, "the names are in no order")),
                _ => entries.push(entry),
            }
        }
        Ok(Self { entries })
    }

    /// The pieces that a packed one lists, one after the other: no more than a line of it is held at a
    /// time, and there is no tree of as many as `most`.
    pub fn listed(packed: &[u8], most: usize) -> Result<Vec<Digest>, ManifestError> {
        let decoder = zstd::Decoder::new(packed).map_err(ManifestError::Packed)?;
        let mut text = std::io::BufReader::new(decoder.take(MAX_UNPACKED));
        let (mut listed, mut line) = (Vec::new(), Vec::new());
        for at in 0.. {
            line.clear();
            text.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(ManifestError::Packed)?;
            if line.is_empty() {
                break;
            }
            let wrong = |problem: &str| ManifestError::Line { line: at + 1, problem: problem.to_owned() };
            let words = std::str::from_utf8(&line).map_err(|_| wrong("it is no text"))?.trim_end();
            if at == 0 {
                if words != FIRST {
                    return Err(wrong("it is of no version that is known here"));
                }
                continue;
            }
            let Entry { what: What::File { pieces, .. }, .. } = entry(words).map_err(wrong)? else {
                continue;
            };
            listed.extend(pieces);
            if listed.len() >= most || at > MAX_ENTRIES {
                return Err(ManifestError::TooLarge);
            }
        }
        Ok(listed)
    }
}

fn entry(line: &str) -> Result<Entry, &'static str> {
    let mut words = line.split(' ');
    let mut next = || words.next().ok_or("a word is missing");
    let what = match next()? {
        "F" => {
            let mode = u32::from_str_radix(next()?, 8).ok().filter(|mode| mode & !0o777 == 0);
            let mode = mode.ok_or("no file has such a mode")?;
            let size: u64 = next()?.parse().map_err(|_| "no file has such a size")?;
            let listed = next()?;
            let pieces: Option<Vec<Digest>> = match listed {
                "-" => Some(Vec::new()),
                listed => listed.split(',').map(Digest::parse).collect(),
            };
            let pieces = pieces.ok_or("a piece has no digest")?;
            if size.div_ceil(PIECE as u64) != pieces.len() as u64 {
                return Err("a file has other pieces than its size says");
            }
            What::File { mode, size, pieces }
        }
        "L" => What::Link(plain(next()?)?),
        _ => return Err("it is neither a file nor a link"),
    };
    let path = plain(next()?)?;
    let is_name = |component: Component<'_>| matches!(component, Component::Normal(_));
    if words.next().is_some() || path.is_empty() || !Path::new(&path).components().all(is_name) {
        return Err("its name leads out of the tree");
    }
    if let What::Link(target) = &what
        && !crate::archive::stays_within(Path::new(&path), target)
    {
        return Err("its target leads out of the tree");
    }
    Ok(Entry { path, what })
}

fn escaped(text: &str) -> String {
    let is_odd = |c: char| c == '%' || c == ' ' || c.is_control();
    if !text.contains(is_odd) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut out, c| {
        match is_odd(c) {
            true => c.to_string().bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}"))),
            false => out.push(c),
        }
        out
    })
}

fn plain(text: &str) -> Result<String, &'static str> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = more;
            continue;
        }
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or("a name can't be read")?);
        rest = &more[2..];
    }
    String::from_utf8(bytes).map_err(|_| "a name is no text")
}
