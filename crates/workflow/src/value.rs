//! Values of expressions, with GitHub's rules for what is true, equal and text.

use std::cmp::Ordering;
use std::fmt::Write;

use serde_json::Value as Json;

/// A value.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "as named")]
pub enum Item {
    #[default]
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Item>),
    /// In the order in which it was made; names are found whatever their case.
    Map(Vec<(String, Item)>),
}

impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Item {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Item {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl Item {
    /// A map of texts.
    pub fn map<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        Self::Map(pairs.into_iter().map(|(k, v)| (k.clone(), Self::Text(v.clone()))).collect())
    }

    /// What stands in a file.
    pub fn of_node(node: &legwork_yaml::Node) -> Self {
        use legwork_yaml::Value;
        match &node.value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            #[allow(clippy::cast_precision_loss, reason = "expressions know no other numbers")]
            Value::Int(value) => Self::Number(*value as f64),
            Value::Float(value) => Self::Number(*value),
            Value::Text(text) => Self::Text(text.clone()),
            Value::List(list) => Self::List(list.iter().map(Self::of_node).collect()),
            Value::Map(entries) => {
                Self::Map(entries.iter().map(|e| (e.key.clone(), Self::of_node(&e.node))).collect())
            }
        }
    }

    /// From JSON.
    pub fn of_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(list) => Self::List(list.iter().map(Self::of_json).collect()),
            Json::Object(map) => Self::Map(map.iter().map(|(k, v)| (k.clone(), Self::of_json(v))).collect()),
        }
    }

    /// Whether a condition that comes to this holds.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(number) => *number != 0.0 && !number.is_nan(),
            Self::Text(text) => !text.is_empty(),
            Self::List(_) | Self::Map(_) => true,
        }
    }

    /// As it stands in a text.
    pub fn text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => number_text(*number),
            Self::Text(text) => text.clone(),
            Self::List(_) => "Array".into(),
            Self::Map(_) => "Object".into(),
        }
    }

    pub(crate) fn number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Number(number) => *number,
            Self::Text(text) => number_of(text).unwrap_or(f64::NAN),
            Self::List(_) | Self::Map(_) => f64::NAN,
        }
    }

    /// What a name or a number names within it.
    /// What a name names within it.
    pub fn named(&self, name: &str) -> Item {
        self.member(&Self::Text(name.to_owned()))
    }

    pub(crate) fn member(&self, key: &Item) -> Item {
        match (self, key) {
            (Self::Map(entries), Self::Text(name)) => entries
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, item)| item.clone())
                .unwrap_or_default(),
            (Self::Map(_), Self::Number(_)) => self.member(&Item::Text(key.text())),
            (Self::List(list), key) => {
                let at = key.number();
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
                let found = if at >= 0.0 && at < list.len() as f64 { list.get(at as usize) } else { None };
                found.cloned().unwrap_or_default()
            }
            _ => Self::Null,
        }
    }

    /// All that it holds.
    pub(crate) fn members(&self) -> Vec<Item> {
        match self {
            Self::List(list) => list.clone(),
            Self::Map(entries) => entries.iter().map(|(_, item)| item.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// GitHub's loose equality: texts whatever their case, else as numbers. Lists and maps equal
    /// nothing.
    pub(crate) fn equals(&self, other: &Item) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.to_lowercase() == b.to_lowercase(),
            (Self::List(_) | Self::Map(_), _) | (_, Self::List(_) | Self::Map(_)) => false,
            (a, b) => a.number() == b.number(),
        }
    }

    pub(crate) fn order(&self, other: &Item) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Some(a.to_lowercase().cmp(&b.to_lowercase())),
            (a, b) => a.number().partial_cmp(&b.number()),
        }
    }

    /// As JSON, on several lines.
    pub fn to_json_text(&self) -> String {
        let mut text = String::new();
        self.write_json(&mut text, 0);
        text
    }

    fn write_json(&self, to: &mut String, depth: usize) {
        let line = |to: &mut String, depth: usize| {
            to.push('\n');
            to.push_str(&"  ".repeat(depth));
        };
        match self {
            Self::Null => to.push_str("null"),
            Self::Number(number) if !number.is_finite() => to.push_str("null"),
            Self::Bool(_) | Self::Number(_) => to.push_str(&self.text()),
            Self::Text(text) => drop(write!(to, "{}", Json::from(text.as_str()))),
            Self::List(list) if list.is_empty() => to.push_str("[]"),
            Self::Map(entries) if entries.is_empty() => to.push_str("{}"),
            Self::List(list) => {
                to.push('[');
                for (place, item) in list.iter().enumerate() {
                    to.push_str(if place == 0 { "" } else { "," });
                    line(to, depth + 1);
                    item.write_json(to, depth + 1);
                }
                line(to, depth);
                to.push(']');
            }
            Self::Map(entries) => {
                to.push('{');
                for (place, (key, item)) in entries.iter().enumerate() {
                    to.push_str(if place == 0 { "" } else { "," });
                    line(to, depth + 1);
                    let _ = write!(to, "{}: ", Json::from(key.as_str()));
                    item.write_json(to, depth + 1);
                }
                line(to, depth);
                to.push('}');
            }
        }
    }
}

fn number_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    if number == 0.0 {
        return "0".into();
    }
    format!("{number}")
}

/// A number as expressions write it: decimal, hexadecimal, with an exponent.
pub(crate) fn number_of(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(0.0);
    }
    #[allow(clippy::cast_precision_loss, reason = "expressions know no other numbers")]
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(|n| n as f64);
    }
    let plain = text.trim_start_matches(['-', '+']);
    let is_number = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if is_number { text.parse().ok() } else { None }
}
