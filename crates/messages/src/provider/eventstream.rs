//! Amazon's binary frame around the events of a stream (`application/vnd.amazon.eventstream`): each
//! message has two lengths, a checksum of them, headers, a payload and a checksum of all.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use serde_json::{Value, json};

/// Lengths and their checksum; the checksum at the end.
const PRELUDE: usize = 12;
const TRAILER: usize = 4;
/// Most bytes of a message.
const MAX_MESSAGE: usize = 24 << 20;

/// Puts messages together from pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    held: BytesMut,
}

impl Frames {
    /// Takes in a piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_midway(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next event, as the JSON that the Messages API's own stream would bring. `Some("")` is of
    /// a message that tells nothing.
    pub(crate) fn next(&mut self) -> Result<Option<String>, String> {
        if self.held.len() < PRELUDE {
            return Ok(None);
        }
        let number = |at: usize| {
            let bytes = [self.held[at], self.held[at + 1], self.held[at + 2], self.held[at + 3]];
            u32::from_be_bytes(bytes)
        };
        let (total, head) = (number(0) as usize, number(4) as usize);
        if crc32(&self.held[..8]) != number(8) {
            return Err("a message's lengths are damaged".into());
        }
        if !(PRELUDE + TRAILER..=MAX_MESSAGE).contains(&total) || head > total - PRELUDE - TRAILER {
            return Err("a message has a length that none can have".into());
        }
        if self.held.len() < total {
            return Ok(None);
        }
        if crc32(&self.held[..total - TRAILER]) != number(total - TRAILER) {
            return Err("a message is damaged".into());
        }
        let message = self.held.split_to(total);
        let (mut headers, payload) = message[PRELUDE..total - TRAILER].split_at(head);
        let (mut kind, mut exception) = (String::new(), String::new());
        while !headers.is_empty() {
            let (name, value) = header(&mut headers).ok_or("a message's headers are damaged")?;
            match name.as_str() {
                ":message-type" => kind = value,
                ":exception-type" | ":error-code" => exception = value,
                _ => {}
            }
        }
        told(&kind, &exception, payload).map(Some)
    }
}

/// What a message tells.
fn told(kind: &str, exception: &str, payload: &[u8]) -> Result<String, String> {
    let said: Value = serde_json::from_slice(payload).unwrap_or_default();
    if kind != "event" {
        let message = said["message"].as_str().or(said["Message"].as_str()).unwrap_or(exception);
        let error = json!({"type": error_kind(exception), "message": format!("{exception}: {message}")});
        return Ok(json!({"type": "error", "error": error}).to_string());
    }
    let Some(bytes) = said["bytes"].as_str() else { return Ok(String::new()) };
    let bytes = STANDARD.decode(bytes).map_err(|e| format!("an event is no base64: {e}"))?;
    String::from_utf8(bytes).map_err(|_| "an event is no text".into())
}

/// What Anthropic calls what Amazon calls so.
pub(crate) fn error_kind(exception: &str) -> &'static str {
    // In a header an address may follow.
    let name = exception.split(':').next().unwrap_or_default().to_ascii_lowercase();
    match name.as_str() {
        "throttlingexception" | "modelnotreadyexception" => "rate_limit_error",
        "validationexception" => "invalid_request_error",
        "accessdeniedexception" => "permission_error",
        "unrecognizedclientexception" | "invalidsignatureexception" | "expiredtokenexception" => {
            "authentication_error"
        }
        "resourcenotfoundexception" => "not_found_error",
        "serviceunavailableexception" | "servicequotaexceededexception" => "overloaded_error",
        "modeltimeoutexception" => "timeout_error",
        _ => "api_error",
    }
}

/// A header: its name, and its value if that is text.
fn header(rest: &mut &[u8]) -> Option<(String, String)> {
    fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        if rest.len() < len {
            return None;
        }
        let (taken, left) = rest.split_at(len);
        *rest = left;
        Some(taken)
    }
    let len = usize::from(take(rest, 1)?[0]);
    let name = String::from_utf8_lossy(take(rest, len)?).into_owned();
    let len = match take(rest, 1)?[0] {
        // True and false; a byte; two, four, eight; bytes and text of a length; a time; a UUID.
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        6 | 7 => usize::from(take(rest, 2)?.get_u16()),
        9 => 16,
        _ => return None,
    };
    Some((name, String::from_utf8_lossy(take(rest, len)?).into_owned()))
}

/// CRC-32 as of IEEE 802.3, bit by bit over a small table.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut index = 0;
        while index < 256 {
            let (mut value, mut bit) = (index as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xEDB8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |crc, byte| crc >> 8 ^ TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize])
}

/// A message, for tests.
#[cfg(test)]
pub(crate) fn frame(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).expect("short"));
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let total = PRELUDE + head.len() + payload.len() + TRAILER;
    let mut out = u32::try_from(total).expect("short").to_be_bytes().to_vec();
    out.extend_from_slice(&u32::try_from(head.len()).expect("short").to_be_bytes());
    out.extend_from_slice(&crc32(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload.as_bytes());
    out.extend_from_slice(&crc32(&out).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Vec<u8> {
        let payload = json!({"bytes": STANDARD.encode(json), "p": "abc"}).to_string();
        frame(&[(":event-type", "chunk"), (":message-type", "event")], &payload)
    }

    #[test]
    fn messages_are_put_together_wherever_they_are_split() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        let mut bytes = event("{\"type\":\"ping\"}");
        bytes.extend(frame(
            &[(":message-type", "exception"), (":exception-type", "throttlingException")],
            r#"{"message":"slow down"}"#,
        ));
        for size in [1, 7, bytes.len()] {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.push(piece);
                while let Some(event) = frames.next().expect("whole") {
                    got.push(event);
                }
            }
            assert_eq!(got.len(), 2);
            assert_eq!(got[0], "{\"type\":\"ping\"}");
            assert!(got[1].contains("rate_limit_error") && got[1].contains("slow down"), "{}", got[1]);
            assert!(!frames.is_midway());
        }
    }

    #[test]
    fn damage_is_seen() {
        let good = event("{}");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let mut frames = Frames::default();
            frames.push(&bad);
            assert!(!matches!(frames.next(), Ok(Some(_))), "{at}");
        }
        let mut frames = Frames::default();
        let mut huge = [0xFFu8; 4].to_vec();
        huge.extend([0; 4]);
        huge.extend(crc32(&huge).to_be_bytes());
        frames.push(&huge);
        assert!(frames.next().is_err_and(|e| e.contains("length")));
    }
}
