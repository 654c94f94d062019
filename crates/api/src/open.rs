//! Answers that may grow: words that a newer hub says, and JSON that is passed on.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::page::Items;

/// A set of words, each of which is a value.
pub trait Word: Copy + PartialEq + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// The word.
    fn as_str(self) -> &'static str;

    /// The value that a word stands for.
    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == text)
    }
}

/// A word of a set that may grow: a reader keeps one that it does not know as it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open<T> {
    /// One that we know.
    Known(T),
    /// One of a peer that is newer than we are.
    Other(String),
}

impl<T: Word> Open<T> {
    /// The word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(value) => value.as_str(),
            Self::Other(word) => word,
        }
    }

    /// The value, if it is one that we know.
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Other(_) => None,
        }
    }
}

impl<T: Word> From<T> for Open<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: Word> From<&str> for Open<T> {
    fn from(word: &str) -> Self {
        T::parse(word).map_or_else(|| Self::Other(word.to_owned()), Self::Known)
    }
}

impl<T: Word> PartialEq<T> for Open<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(value) if value == other)
    }
}

impl<T: Word> fmt::Display for Open<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<T: Word> Serialize for Open<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: Word> Deserialize<'de> for Open<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(Cow::<'_, str>::deserialize(deserializer)?.as_ref()))
    }
}

impl<T: JsonSchema> JsonSchema for Open<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A JSON object that the API passes on as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fields(pub Box<RawValue>);

impl Fields {
    /// The object, read as a type that takes what it knows of it.
    ///
    /// # Errors
    /// If the object is not of that type.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }
}

impl JsonSchema for Fields {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Fields".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "object" })
    }
}

/// An answer, read as what we know of it, and kept as it came: what a newer hub says beside that
/// is passed on to who asked for JSON.
#[derive(Debug, Clone)]
pub struct Received<T> {
    typed: T,
    json: Value,
}

impl<T> Received<T> {
    /// What the hub said, all of it.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// What we know of it.
    pub fn into_inner(self) -> T {
        self.typed
    }
}

impl<T: Items> Received<T> {
    /// What a list has, each as it came.
    pub fn into_items(mut self) -> Vec<Received<T::Item>> {
        let json = self.json.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
        let pairs = self.typed.into_items().into_iter().zip(json.unwrap_or_default());
        pairs.map(|(typed, json)| Received { typed, json }).collect()
    }
}

impl<T> Deref for Received<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.typed
    }
}

impl<T> Serialize for Received<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Received<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let typed = T::deserialize(&json).map_err(D::Error::custom)?;
        Ok(Self { typed, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{State, Task};

    #[test]
    fn a_word_of_a_newer_peer_is_kept_as_it_was_said() {
        let states: Vec<Open<State>> = serde_json::from_str(r#"["running","pondered"]"#).expect("words");
        assert_eq!(states[0], State::Running);
        assert_eq!((states[1].as_str(), states[1].known()), ("pondered", None));
        assert_eq!(serde_json::to_string(&states).expect("json"), r#"["running","pondered"]"#);
        assert_eq!(format!("{:10}|", states[1]), "pondered  |");
    }

    /// A hub that is newer says more than we know; one that is older says less.
    #[test]
    fn answers_of_other_versions_are_read() {
        let newer = r#"{"id":"tsk_1","operation":"dance","state":"held","runs":[{"id":"run_1","runner":"r",
            "runner_id":"wn_1","state":"held","mood":"good","result":{"steps":3}}],"priority":7,
            "select":{"moon":"full"},"args":{"z":1,"a":2}}"#;
        let task: Received<Task> = serde_json::from_str(newer).expect("a newer hub's task");
        assert_eq!((task.state.as_str(), task.runs[0].state.as_str()), ("held", "held"));
        assert_eq!(task.json()["priority"], 7);
        assert_eq!(serde_json::to_value(&task).expect("json"), *task.json());
        let older: Task =
            serde_json::from_str(r#"{"id":"tsk_1","operation":"bash","state":"queued","runs":[]}"#)
                .expect("an older hub's task");
        assert_eq!(older.created_by_token, None);
    }
}
