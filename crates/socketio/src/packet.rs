//! Engine.IO 4 packets (`docs/protocols/workspace.md` §3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Separates packets in the body of a poll.
pub(crate) const SEPARATOR: char = '\u{1e}';

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    Close,
    /// With what the client wants to have echoed.
    Ping(String),
    Pong,
    Message(String),
    Binary(Vec<u8>),
    Upgrade,
    Noop,
}

/// Reads one packet of text; `None` if it is none.
pub(crate) fn decode(text: &str) -> Option<Incoming> {
    if let Some(encoded) = text.strip_prefix('b') {
        return STANDARD.decode(encoded).ok().map(Incoming::Binary);
    }
    let rest = text.get(1..)?;
    Some(match text.as_bytes()[0] {
        b'1' => Incoming::Close,
        b'2' => Incoming::Ping(rest.to_owned()),
        b'3' => Incoming::Pong,
        b'4' => Incoming::Message(rest.to_owned()),
        b'5' => Incoming::Upgrade,
        b'6' => Incoming::Noop,
        _ => return None,
    })
}

/// Reads the body of a poll: all of it, or nothing.
pub(crate) fn decode_body(body: &str) -> Option<Vec<Incoming>> {
    body.split(SEPARATOR).map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_or_refused() {
        for (text, want) in [
            ("1", Some(Incoming::Close)),
            ("2probe", Some(Incoming::Ping("probe".into()))),
            ("3", Some(Incoming::Pong)),
            ("42[\"x\"]", Some(Incoming::Message("2[\"x\"]".into()))),
            ("bAQI=", Some(Incoming::Binary(vec![1, 2]))),
            ("b!", None),
            ("5", Some(Incoming::Upgrade)),
            ("6", Some(Incoming::Noop)),
            ("0{}", None),
            ("7", None),
            ("", None),
            ("ä", None),
        ] {
            assert_eq!(decode(text), want, "{text:?}");
        }
        assert_eq!(decode_body("3\u{1e}4x").expect("two").len(), 2);
        assert_eq!(decode_body("3\u{1e}"), None);
    }
}
