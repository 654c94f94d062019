//! Bytes of two streams as lines, and how far they are told.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use legwork_process::{Chunk, Stream};

use crate::events::MAX_LINE;
use crate::masks::Masks;

#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: [Vec<u8>; 2],
    /// Bytes of each stream that came.
    seen: [u64; 2],
}

impl Lines {
    /// Lines from these offsets on.
    pub(super) fn from(offsets: (u64, u64)) -> Self {
        Self { seen: [offsets.0, offsets.1], ..Self::default() }
    }

    /// Takes bytes in; returns the lines that are whole now.
    pub(super) fn take(&mut self, chunk: &Chunk, masks: &Masks) -> Vec<String> {
        let index = usize::from(chunk.stream == Stream::Stderr);
        self.seen[index] = chunk.offset + chunk.data.len() as u64;
        let partial = &mut self.partial[index];
        let mut lines = Vec::new();
        let mut rest = chunk.data.as_slice();
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            partial.extend_from_slice(&rest[..at]);
            lines.push(text(partial));
            partial.clear();
            rest = &rest[at + 1..];
        }
        partial.extend_from_slice(rest);
        // Somebody who writes no newlines is not waited for without end.
        while partial.len() > MAX_LINE + masks.longest() {
            let at = boundary(partial, masks.cut(partial, MAX_LINE));
            let tail = partial.split_off(at);
            lines.push(text(partial));
            *partial = tail;
        }
        lines
    }

    /// What came after the last newline, if anything did.
    pub(super) fn rest(&mut self) -> Vec<(Stream, String)> {
        [Stream::Stdout, Stream::Stderr]
            .into_iter()
            .zip(&mut self.partial)
            .filter(|(_, partial)| !partial.is_empty())
            .map(|(stream, partial)| (stream, text(&std::mem::take(partial))))
            .collect()
    }

    /// Offsets after the last whole lines.
    pub(super) fn told(&self) -> (u64, u64) {
        (self.seen[0] - self.partial[0].len() as u64, self.seen[1] - self.partial[1].len() as u64)
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

/// The last place at or before `at` that is not within a character.
fn boundary(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at).rev().find(|i| bytes[*i] & 0xc0 != 0x80).unwrap_or(at)
}

/// The offsets in a file, for whoever comes after a kill.
#[derive(Debug)]
pub(super) struct Position(File);

impl Position {
    pub(super) fn open(path: &Path) -> io::Result<(Self, (u64, u64))> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0u8; 16];
        let known = file.read_exact_at(&mut bytes, 0).is_ok();
        let number = |part: &[u8]| part.try_into().map(u64::from_le_bytes).unwrap_or(0);
        let offsets = if known { (number(&bytes[..8]), number(&bytes[8..])) } else { (0, 0) };
        Ok((Self(file), offsets))
    }

    pub(super) fn save(&self, (stdout, stderr): (u64, u64)) -> io::Result<()> {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&stdout.to_le_bytes());
        bytes[8..].copy_from_slice(&stderr.to_le_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(stream: Stream, offset: u64, data: &[u8]) -> Chunk {
        Chunk { stream, offset, data: data.to_vec() }
    }

    #[test]
    fn lines_come_whole_and_the_place_is_after_them() {
        let (mut lines, masks) = (Lines::from((0, 0)), Masks::default());
        assert_eq!(lines.take(&chunk(Stream::Stdout, 0, b"a\r\nb"), &masks), ["a"]);
        assert_eq!(lines.take(&chunk(Stream::Stderr, 0, b"\n"), &masks), [""]);
        assert_eq!(lines.told(), (3, 1));
        assert_eq!(lines.take(&chunk(Stream::Stdout, 4, b"c\n"), &masks), ["bc"]);
        assert_eq!(
            lines.take(&chunk(Stream::Stdout, 6, "\u{e9}".repeat(MAX_LINE).as_bytes()), &masks).len(),
            1
        );
        let long = lines.take(&chunk(Stream::Stdout, 6 + 2 * MAX_LINE as u64, b"x\n"), &masks);
        assert!(long[0].ends_with("\u{e9}x") && !long[0].contains('\u{fffd}'));
        lines.take(&chunk(Stream::Stdout, 0, b"end"), &masks);
        assert_eq!(lines.rest(), [(Stream::Stdout, "end".to_owned())]);
    }

    #[test]
    fn a_secret_is_not_split_with_its_line() {
        let (mut lines, masks) = (Lines::from((0, 0)), Masks::default());
        masks.add("topsecret");
        let text = format!("{}topsecret{}", "x".repeat(MAX_LINE - 4), "y".repeat(MAX_LINE));
        let mut told = lines.take(&chunk(Stream::Stdout, 0, text.as_bytes()), &masks);
        told.extend(lines.rest().into_iter().map(|(_, line)| line));
        assert_eq!(told.concat(), text);
        assert!(told.len() > 1 && told.iter().any(|piece| piece.contains("topsecret")));
    }
}
