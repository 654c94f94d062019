//! A JSON object's fields, by name: names match in any case, the last one counts, unknown
//! ones are skipped and cost no memory. That is how the original reads.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Entries in one list or map: more is a mistake.
const MAX_ENTRIES: usize = 65_536;

/// A field that can't be used, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad(pub String);

/// The fields that were asked for.
#[derive(Debug)]
pub struct Fields<'a> {
    names: &'static [&'static str],
    values: Vec<Option<&'a RawValue>>,
}

impl<'a> Fields<'a> {
    /// Reads an object; `null` has no fields.
    pub fn parse(text: &'a str, names: &'static [&'static str]) -> Result<Self, Bad> {
        let empty = Self { names, values: vec![None; names.len()] };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let fields =
            empty.deserialize(&mut deserializer).and_then(|fields| deserializer.end().map(|()| fields));
        fields.map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Bad("expected an object".into()),
            _ => Bad("invalid JSON".into()),
        })
    }

    /// A field as it stands; `null` counts as absent.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        let at = self.names.iter().position(|known| *known == name)?;
        self.values[at].map(RawValue::get).filter(|text| *text != "null")
    }

    /// Whether a field is there at all, if only as `null`.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().position(|known| *known == name).is_some_and(|at| self.values[at].is_some())
    }

    /// A string; absent: empty.
    pub fn string(&self, name: &str) -> Result<String, Bad> {
        Ok(self.optional_string(name)?.unwrap_or_default())
    }

    /// A string that may be absent.
    pub fn optional_string(&self, name: &str) -> Result<Option<String>, Bad> {
        let parse = |text| serde_json::from_str(text).map_err(|_| Bad(format!("{name}: expected a string")));
        self.raw(name).map(parse).transpose()
    }

    /// true or false; absent: false.
    pub fn boolean(&self, name: &str) -> Result<bool, Bad> {
        match self.raw(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Bad(format!("{name}: expected true or false"))),
        }
    }

    /// A whole number; absent: 0.
    pub fn integer(&self, name: &str) -> Result<i64, Bad> {
        let parse =
            |text| serde_json::from_str(text).map_err(|_| Bad(format!("{name}: expected an integer")));
        Ok(self.raw(name).map(parse).transpose()?.unwrap_or_default())
    }

    /// A list of strings; absent: empty.
    pub fn strings(&self, name: &str) -> Result<Vec<String>, Bad> {
        let parse = |text| {
            Strings
                .deserialize(&mut serde_json::Deserializer::from_str(text))
                .map_err(|error| Bad(format!("{name}: {}", counted(&error, "expected a list of strings"))))
        };
        Ok(self.raw(name).map(parse).transpose()?.unwrap_or_default())
    }

    /// A map of strings; absent: empty.
    pub fn map(&self, name: &str) -> Result<BTreeMap<String, String>, Bad> {
        let parse = |text| {
            Map.deserialize(&mut serde_json::Deserializer::from_str(text))
                .map_err(|error| Bad(format!("{name}: {}", counted(&error, "expected an object of strings"))))
        };
        Ok(self.raw(name).map(parse).transpose()?.unwrap_or_default())
    }
}

fn counted(error: &serde_json::Error, otherwise: &'static str) -> &'static str {
    if error.to_string().starts_with(TOO_MANY) { "more than 65536 entries" } else { otherwise }
}

const TOO_MANY: &str = "too many entries";

impl<'a> DeserializeSeed<'a> for Fields<'a> {
    type Value = Self;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Fields<'a> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(Name(key)) = map.next_key()? {
            match self.names.iter().position(|name| name.eq_ignore_ascii_case(&key)) {
                Some(at) => self.values[at] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(self)
    }
}

/// A key, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'a> serde::Deserialize<'a> for Name<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'a> Visitor<'a> for Text {
            type Value = Name<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Name<'a>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'a>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

struct Strings;

impl<'a> DeserializeSeed<'a> for Strings {
    type Value = Vec<String>;
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Vec<String>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for Strings {
    type Value = Vec<String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }
    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
        let mut all = Vec::new();
        while let Some(text) = seq.next_element::<Option<String>>()? {
            if all.len() == MAX_ENTRIES {
                return Err(serde::de::Error::custom(TOO_MANY));
            }
            all.push(text.unwrap_or_default());
        }
        Ok(all)
    }
}

struct Map;

impl<'a> DeserializeSeed<'a> for Map {
    type Value = BTreeMap<String, String>;
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Map {
    type Value = BTreeMap<String, String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
            if all.len() == MAX_ENTRIES {
                return Err(serde::de::Error::custom(TOO_MANY));
            }
            all.insert(key, value.unwrap_or_default());
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_in_any_case_and_the_last_one_counts() {
        let fields =
            Fields::parse(r#"{"ID":"a","x":{"id":"no"},"id":"b","N":7}"#, &["id", "n", "none"]).unwrap();
        assert_eq!(fields.string("id").unwrap(), "b");
        assert_eq!(fields.integer("n").unwrap(), 7);
        assert_eq!(fields.string("none").unwrap(), "");
        assert!(!fields.has("none"));
    }

    #[test]
    fn wrong_types_name_the_field() {
        let text = r#"{"a":1,"b":"x","c":1.5,"d":[1],"e":{"k":1},"f":null}"#;
        let fields = Fields::parse(text, &["a", "b", "c", "d", "e", "f"]).unwrap();
        assert_eq!(fields.string("a").unwrap_err().0, "a: expected a string");
        assert_eq!(fields.boolean("b").unwrap_err().0, "b: expected true or false");
        assert_eq!(fields.integer("c").unwrap_err().0, "c: expected an integer");
        assert_eq!(fields.strings("d").unwrap_err().0, "d: expected a list of strings");
        assert_eq!(fields.map("e").unwrap_err().0, "e: expected an object of strings");
        assert_eq!(fields.string("f").unwrap(), "");
        assert!(fields.has("f"));
    }

    #[test]
    fn what_is_no_object_is_said() {
        assert_eq!(Fields::parse("{not json", &[]).unwrap_err().0, "invalid JSON");
        assert_eq!(Fields::parse("[1]", &[]).unwrap_err().0, "expected an object");
        assert_eq!(Fields::parse("{} {}", &[]).unwrap_err().0, "invalid JSON");
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(500_000), "]".repeat(500_000));
        assert!(Fields::parse(&deep, &["y"]).is_ok());
    }

    #[test]
    fn lists_are_bounded() {
        let many = format!("{{\"a\":[{}\"\"]}}", "\"\",".repeat(MAX_ENTRIES));
        let fields = Fields::parse(&many, &["a"]).unwrap();
        assert_eq!(fields.strings("a").unwrap_err().0, "a: more than 65536 entries");
    }
}
