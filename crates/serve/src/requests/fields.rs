//! What requests carry, and what they come to.

use legwork_socketio::{Data, Payload, payload};
use serde_json::{Map, Value};

use crate::access::Rights;
use crate::paths::Trouble;

/// The fields of a payload.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) map: Map<String, Value>,
    parts: Vec<Vec<u8>>,
}

impl Fields {
    /// The payload as an object; a bare string, or bare bytes, mean `field` alone.
    pub(crate) fn of(data: Data, field: &str) -> Result<Self, Trouble> {
        let map = match data.value {
            Value::Object(map) if !Data::is_placeholder(&map) => map,
            Value::Null => Map::new(),
            bare @ (Value::String(_) | Value::Object(_)) => Map::from_iter([(field.to_owned(), bare)]),
            _ => return Err(Trouble::bad("invalid payload")),
        };
        Ok(Self { map, parts: data.parts })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|v| !v.is_null())
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Trouble> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Trouble::bad("invalid payload")),
        }
    }

    pub(crate) fn needed(&mut self, name: &str) -> Result<String, Trouble> {
        self.text(name)?.ok_or_else(|| Trouble::bad(format!("{name} is required")))
    }

    /// Text or bytes.
    pub(crate) fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.into_bytes())),
            Some(Value::Object(map)) if Data::is_placeholder(&map) => {
                let at = map.get("num").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
                let part = at.and_then(|at| self.parts.get_mut(at)).map(std::mem::take);
                part.map(Some).ok_or_else(|| Trouble::bad("invalid payload"))
            }
            Some(_) => Err(Trouble::bad("invalid payload")),
        }
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Trouble> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(Trouble::bad(format!("{name} must be true or false"))),
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number(&mut self, name: &str, from: u64, to: u64) -> Result<Option<u64>, Trouble> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if (from..=to).contains(&number) => Ok(Some(number)),
                _ => Err(Trouble::bad(format!("{name} must be a number from {from} to {to}"))),
            },
        }
    }
}

/// How a request about files ended: what to send, and what others must hear of.
pub(crate) struct Outcome {
    /// An event for the client, and what its acknowledgement says if that differs.
    pub(crate) event: Option<(&'static str, Payload)>,
    pub(crate) ack: Payload,
    /// The workspace has changed.
    pub(crate) changed: bool,
}

impl Outcome {
    /// An event whose payload is the acknowledgement as well.
    pub(crate) fn event(name: &'static str, payload: Payload) -> Self {
        Self { event: Some((name, payload.clone())), ack: payload, changed: false }
    }

    pub(crate) fn ack(value: &impl serde::Serialize) -> Self {
        Self { event: None, ack: payload(value), changed: false }
    }

    pub(crate) fn changed(value: &impl serde::Serialize) -> Self {
        Self { changed: true, ..Self::ack(value) }
    }
}

/// Whether a client may change anything.
pub(crate) fn may(rights: Rights) -> Result<(), Trouble> {
    match rights {
        Rights::Work => Ok(()),
        Rights::Look => Err(Trouble::new("read_only", "this connection may look, and change nothing")),
    }
}
