//! Socket.IO packets, as they lie in Engine.IO's messages (`docs/protocols/workspace.md` §3).

use serde_json::Value;

use crate::data::Message;
use crate::json::{self, Unusable};

/// Most binary parts of one event.
const MAX_ATTACHMENTS: usize = 64;

/// A packet from a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Packet {
    Connect {
        auth: Value,
    },
    Disconnect,
    /// Name and arguments, and the number of binary parts that follow.
    Event {
        args: Vec<Value>,
        ack: Option<u64>,
        attachments: usize,
    },
    /// For a namespace other than `/`.
    Elsewhere {
        namespace: String,
        connect: bool,
    },
    /// An event whose payload is nested too deeply to be read.
    TooDeep {
        ack: Option<u64>,
    },
    /// Nothing to do: an answer to what was never asked.
    Ignored,
}

impl Packet {
    /// Whether it is one of these events.
    pub(crate) fn is_any_of(&self, names: &[&str]) -> bool {
        let name = if let Self::Event { args, .. } = self { args.first() } else { None };
        name.and_then(Value::as_str).is_some_and(|name| names.contains(&name))
    }
}

/// Reads a packet; `None` if it is none.
pub(crate) fn decode(text: &str) -> Option<Packet> {
    let kind = *text.as_bytes().first()?;
    let mut rest = text.get(1..)?;
    let mut attachments = 0;
    if matches!(kind, b'5' | b'6') {
        let (count, after) = rest.split_once('-')?;
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        attachments = count.parse().ok().filter(|n| *n <= MAX_ATTACHMENTS)?;
        rest = after;
    }
    let mut namespace = "/";
    if rest.starts_with('/') {
        (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
    }
    let namespace = namespace.split('?').next().unwrap_or("/");
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, data) = rest.split_at(digits);
    let ack = if number.is_empty() { None } else { Some(number.parse::<u64>().ok()?) };
    if namespace != "/" {
        return Some(Packet::Elsewhere { namespace: namespace.to_owned(), connect: kind == b'0' });
    }
    Some(match kind {
        b'0' => {
            let auth = if data.is_empty() { Value::Null } else { json::read(data).ok()? };
            if ack.is_some() || !(auth.is_null() || auth.is_object()) {
                return None;
            }
            Packet::Connect { auth }
        }
        b'1' => Packet::Disconnect,
        b'2' | b'5' => {
            let args: Vec<Value> = match json::read(data) {
                Ok(args) => args,
                Err(Unusable::TooDeep) if attachments == 0 => return Some(Packet::TooDeep { ack }),
                Err(_) => return None,
            };
            if !matches!(args.first(), Some(Value::String(_) | Value::Number(_))) {
                return None;
            }
            Packet::Event { args, ack, attachments }
        }
        b'3' | b'6' => Packet::Ignored,
        _ => return None,
    })
}

/// Writes a message as a packet, with Engine.IO's own digit before it.
pub(crate) fn encode(message: &Message) -> String {
    match message {
        Message::Event { name, payload, offset } => {
            let payload = payload.get();
            let mut out = String::with_capacity(payload.len() + name.len() + 32);
            out.push_str("42[\"");
            out.push_str(name);
            out.push_str("\",");
            out.push_str(payload);
            if let Some(offset) = offset {
                out.push_str(&format!(",\"{offset}\""));
            }
            out.push(']');
            out
        }
        Message::Ack { id, payload } => format!("43{id}[{}]", payload.get()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn packets_are_read_or_refused() {
        let event = |args: Value, ack, attachments| {
            let Value::Array(args) = args else { unreachable!() };
            Some(Packet::Event { args, ack, attachments })
        };
        for (text, want) in [
            ("0", Some(Packet::Connect { auth: Value::Null })),
            ("0{\"token\":\"t\"}", Some(Packet::Connect { auth: json!({"token": "t"}) })),
            ("0[1]", None),
            ("0{", None),
            ("1", Some(Packet::Disconnect)),
            ("2[\"a\",{\"x\":1}]", event(json!(["a", {"x": 1}]), None, 0)),
            ("217[\"a\"]", event(json!(["a"]), Some(17), 0)),
            (
                "51-3[\"a\",{\"_placeholder\":true,\"num\":0}]",
                event(json!(["a", {"_placeholder": true, "num": 0}]), Some(3), 1),
            ),
            ("51[\"a\"]", None),
            ("5-[\"a\"]", None),
            ("565-[\"a\"]", None),
            ("2[]", None),
            ("2{}", None),
            ("2[{}]", None),
            ("299999999999999999999[\"a\"]", None),
            ("0/admin,", Some(Packet::Elsewhere { namespace: "/admin".into(), connect: true })),
            ("2/admin,[\"a\"]", Some(Packet::Elsewhere { namespace: "/admin".into(), connect: false })),
            ("2/,[\"a\"]", event(json!(["a"]), None, 0)),
            ("31[]", Some(Packet::Ignored)),
            ("9", None),
            ("", None),
            ("ä", None),
        ] {
            assert_eq!(decode(text), want, "{text:?}");
        }
    }

    #[test]
    fn messages_are_written_as_the_library_reads_them() {
        let payload = crate::data::payload(&json!({"data": "x"}));
        let event = |offset| Message::Event { name: "terminal:data", payload: payload.clone(), offset };
        assert_eq!(encode(&event(None)), "42[\"terminal:data\",{\"data\":\"x\"}]");
        assert_eq!(encode(&event(Some(7))), "42[\"terminal:data\",{\"data\":\"x\"},\"7\"]");
        assert_eq!(encode(&Message::Ack { id: 3, payload: payload.clone() }), "433[{\"data\":\"x\"}]");
    }
}
