//! A YAML file as a tree in which every key and value knows its line, so that what is
//! wrong with it can be said with its place.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value, and where it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// From 1; 0 if unknown.
    pub line: u64,
    /// What it is.
    pub value: Value,
}

/// A value of YAML or JSON.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are YAML's own")]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The key's line.
    pub line: u64,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// The same as JSON, without lines. What JSON has no number for is null.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => i64::try_from(*value)
                .map(Json::from)
                .or_else(|_| u64::try_from(*value).map(Json::from))
                .unwrap_or_default(),
            Value::Float(value) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(list) => Json::Array(list.iter().map(Self::to_json).collect()),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|e| (e.key.clone(), e.node.to_json())).collect())
            }
        }
    }

    /// The same as JSON text, in the order of its keys.
    pub fn to_json_text(&self) -> String {
        match &self.value {
            Value::List(list) => {
                let items: Vec<String> = list.iter().map(Self::to_json_text).collect();
                format!("[{}]", items.join(","))
            }
            Value::Map(entries) => {
                let entry = |e: &Entry| {
                    format!("{}:{}", serde_json::Value::from(e.key.as_str()), e.node.to_json_text())
                };
                let entries: Vec<String> = entries.iter().map(entry).collect();
                format!("{{{}}}", entries.join(","))
            }
            _ => self.to_json().to_string(),
        }
    }

    /// A key's value, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().rfind(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads JSON, in the order of its keys, which [`serde_json::Value`] forgets. Of equal keys
/// both are kept; [`Node::get`] finds the last.
pub fn parse_json(text: &[u8]) -> Result<Node, String> {
    serde_json::from_slice::<Plain>(text).map(Node::from).map_err(|e| e.to_string())
}

/// Reads a file's text. Equal keys of one map are errors.
pub fn parse(text: &str) -> Result<Node, String> {
    if text.trim().is_empty() {
        return Ok(Node::default());
    }
    // No excerpt of the file: the line beside the bad one may hold a secret. Only `true` and
    // `false` are booleans, as in YAML 1.2: who writes `off`, `on`, `yes` or `no` means the word.
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: referenced.line(), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue::<Node, Spanned<String>>(PhantomData))
    }
}

/// A node of JSON, which has no lines.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue::<Plain, String>(PhantomData)).map(Self)
    }
}

impl From<Plain> for Node {
    fn from(plain: Plain) -> Self {
        Self { line: 0, value: plain.0 }
    }
}

/// A key, with its line where there is one.
trait Key {
    fn split(self) -> (String, u64);
}

impl Key for String {
    fn split(self) -> (String, u64) {
        (self, 0)
    }
}

impl Key for Spanned<String> {
    fn split(self) -> (String, u64) {
        (self.value, self.referenced.line())
    }
}

/// Reads any value; `N` are the nodes in it, `K` the keys.
struct AnyValue<N, K>(PhantomData<(N, K)>);

impl<'de, N: Deserialize<'de> + Into<Node>, K: Deserialize<'de> + Key> Visitor<'de> for AnyValue<N, K> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Ok(N::deserialize(deserializer)?.into().value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element::<N>()? {
            list.push(node.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = map.next_entry::<K, N>()? {
            let (key, line) = key.split();
            entries.push(Entry { line, key, node: node.into() });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_order_are_kept() {
        let node = parse("# c\na: 1\nB:\n  \"x y\": deny\n  z: [q, true]\nc: 'no'\n").expect("valid");
        let Value::Map(entries) = node.value else { panic!("{node:?}") };
        let keys: Vec<(&str, u64)> = entries.iter().map(|e| (e.key.as_str(), e.line)).collect();
        assert_eq!(keys, [("a", 2), ("B", 3), ("c", 6)]);
        let Value::Map(inner) = &entries[1].node.value else { panic!("{entries:?}") };
        assert_eq!((inner[0].key.as_str(), inner[0].node.line), ("x y", 4));
        assert!(matches!(&inner[0].node.value, Value::Text(t) if t == "deny"));
        let json = parse_json(br#"{"z": 1, "a": {"y": [1.5, null], "b": "t"}}"#).expect("valid");
        let Value::Map(entries) = &json.value else { panic!("{json:?}") };
        assert_eq!(entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["z", "a"]);
        assert_eq!(json.to_json_text(), r#"{"z":1,"a":{"y":[1.5,null],"b":"t"}}"#);
        assert_eq!(json.to_json(), serde_json::json!({"z": 1, "a": {"y": [1.5, null], "b": "t"}}));
        assert!(parse("a: 1\na: 2\n").is_err_and(|e| e.contains('2')));
        assert!(parse("[").is_err());
        assert!(parse("token: hunter2\nx: [").is_err_and(|e| !e.contains("hunter2") && e.contains("line 2")));
    }
}
