//! What events carry.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A payload to be sent: one JSON value, shared by all it is sent to.
pub type Payload = Arc<RawValue>;

/// Makes a payload.
pub fn payload(value: &impl serde::Serialize) -> Payload {
    match serde_json::value::to_raw_value(value) {
        Ok(raw) => raw.into(),
        Err(_) => RawValue::NULL.to_owned().into(),
    }
}

/// One message to a client.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Event {
        name: &'static str,
        payload: Payload,
        /// The event's place, for clients whose connection can be recovered.
        offset: Option<u64>,
    },
    Ack {
        id: u64,
        payload: Payload,
    },
}

/// What an event of a client carries: its first argument, and the binary parts that came with it.
#[derive(Debug)]
pub struct Data {
    /// The argument. Where a binary part belongs, a placeholder stands.
    pub value: Value,
    /// The binary parts, in their order.
    pub parts: Vec<Vec<u8>>,
}

impl Data {
    /// A value, and its binary parts.
    pub fn new(value: Value, parts: Vec<Vec<u8>>) -> Self {
        Self { value, parts }
    }

    /// About how many bytes of memory it takes.
    pub fn weight(&self) -> usize {
        weight(&self.value) + self.parts.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether this object stands for a binary part.
    pub fn is_placeholder(map: &Map<String, Value>) -> bool {
        map.get("_placeholder") == Some(&Value::Bool(true))
    }
}

fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(weight).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + 64 + weight(value)).sum(),
            _ => 0,
        }
}
