//! A command's output as `EVENT`s, a line each (§9).
//!
//! No byte is lost on the way: a piece without a newline behind it says `continued`, one
//! that is no UTF-8 carries its bytes as base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_proto::micro::{MAX_EVENT_CHUNK, MAX_EVENT_TEXT};

use crate::clock;
use crate::output::Output;

/// Cuts both outputs of one command into events.
#[derive(Debug)]
pub(crate) struct Streamer {
    /// `","data":{"command_id":"…","level":"info","message":`
    middle: String,
    out: Vec<u8>,
    err: Vec<u8>,
    /// As many lines as there are in one event.
    chunks: bool,
}

impl Streamer {
    pub(crate) fn new(command: &str, chunks: bool) -> Self {
        let id = serde_json::to_string(command).unwrap_or_default();
        let middle = format!("\",\"data\":{{\"command_id\":{id},\"level\":\"info\",\"message\":");
        Self { middle, out: Vec::new(), err: Vec::new(), chunks }
    }

    /// Standard output wrote this.
    pub(crate) fn out(&mut self, bytes: &[u8], output: &mut Output) {
        cut(&self.middle, "stdout", &mut self.out, bytes, output, self.chunks);
    }

    /// Standard error wrote this.
    pub(crate) fn err(&mut self, bytes: &[u8], output: &mut Output) {
        cut(&self.middle, "stderr", &mut self.err, bytes, output, self.chunks);
    }

    /// Nothing more comes: what has no newline goes out.
    pub(crate) fn end(&mut self, output: &mut Output) {
        for (stream, rest) in
            [("stdout", std::mem::take(&mut self.out)), ("stderr", std::mem::take(&mut self.err))]
        {
            if !rest.is_empty() {
                event(&self.middle, stream, &clock::timestamp(), &rest, true, output);
            }
        }
    }
}

fn cut(middle: &str, stream: &str, rest: &mut Vec<u8>, mut bytes: &[u8], output: &mut Output, chunks: bool) {
    let now = clock::timestamp();
    while let Some(at) = memchr::memchr(b'\n', bytes) {
        let window = &bytes[..bytes.len().min(MAX_EVENT_CHUNK)];
        if let Some(at) = memchr::memrchr(b'\n', window).filter(|_| chunks && rest.is_empty()) {
            event(middle, stream, &now, &bytes[..at], false, output);
            bytes = &bytes[at + 1..];
            continue;
        }
        let line = &bytes[..at];
        bytes = &bytes[at + 1..];
        if rest.is_empty() && line.len() <= MAX_EVENT_TEXT {
            event(middle, stream, &now, line, false, output);
            continue;
        }
        rest.extend_from_slice(line);
        pieces(middle, stream, &now, rest, output);
        event(middle, stream, &now, rest, false, output);
        rest.clear();
    }
    rest.extend_from_slice(bytes);
    pieces(middle, stream, &now, rest, output);
}

/// Sends off what is longer than an event may be.
fn pieces(middle: &str, stream: &str, now: &str, rest: &mut Vec<u8>, output: &mut Output) {
    let mut sent = 0;
    while rest.len() - sent > MAX_EVENT_TEXT {
        // Not in the middle of a character, if there are characters.
        let inside = |cut: usize| rest[sent + cut] & 0xc0 == 0x80;
        let cut =
            (MAX_EVENT_TEXT - 3..=MAX_EVENT_TEXT).rev().find(|cut| !inside(*cut)).unwrap_or(MAX_EVENT_TEXT);
        event(middle, stream, now, &rest[sent..sent + cut], true, output);
        sent += cut;
    }
    rest.drain(..sent);
}

fn event(middle: &str, stream: &str, now: &str, bytes: &[u8], continued: bool, output: &mut Output) {
    if output.broken() {
        return;
    }
    let to = output.pending();
    to.extend_from_slice(b"{\"type\":\"EVENT\",\"timestamp\":\"");
    to.extend_from_slice(now.as_bytes());
    to.extend_from_slice(middle.as_bytes());
    let text = std::str::from_utf8(bytes);
    match &text {
        // Writing to memory can't fail.
        Ok(text) => drop(serde_json::to_writer(&mut *to, text)),
        Err(_) => drop(serde_json::to_writer(&mut *to, &String::from_utf8_lossy(bytes))),
    }
    to.extend_from_slice(b",\"metadata\":{\"stream\":\"");
    to.extend_from_slice(stream.as_bytes());
    to.push(b'"');
    if continued {
        to.extend_from_slice(b",\"continued\":\"true\"");
    }
    if text.is_err() {
        to.extend_from_slice(b",\"base64\":\"");
        to.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        to.push(b'"');
    }
    to.extend_from_slice(b"}}}\n");
}
