//! Values by their precedence (flag, environment, file, default), each with where it
//! came from.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{ConfigError, Secret};
use legwork_yaml::{Entry, Node, Value};

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its key in a config file.
    pub key: String,
    /// Its value; secrets are masked.
    pub value: String,
    /// `flag --x`, `environment X`, `FILE:LINE` or `default`.
    pub source: String,
}

/// Reads settings one by one and remembers which were asked for.
pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) entries: Vec<Entry>,
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) known: Vec<&'static str>,
    pub(super) settings: Vec<Setting>,
}

/// A text that was given, and by what.
pub(super) struct Given {
    pub(super) text: String,
    pub(super) source: String,
}

/// A flag's name, and what it was given.
type Flag<'a> = (&'a str, Option<&'a str>);

type Result<T> = std::result::Result<T, ConfigError>;

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, root: Node, env: &'a BTreeMap<String, String>) -> Result<Self> {
        let entries = match root.value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries,
            other => {
                return Err(ConfigError(format!(
                    "failed to load config: {file}: expected a map of settings, found {}",
                    other.kind()
                )));
            }
        };
        Ok(Self { file, entries, env, known: Vec::new(), settings: Vec::new() })
    }

    /// The error of a value of the file.
    pub(super) fn wrong(&self, line: u64, key: &str, problem: &str) -> ConfigError {
        ConfigError(format!("failed to load config: {} line {line}: {key}: {problem}", self.file))
    }

    /// The node of a key, `section.key` for one of a section. Keys are
    /// case-insensitive, as in the original.
    pub(super) fn node(&mut self, key: &'static str) -> Result<Option<Node>> {
        self.known.push(key);
        let mut entries: &[Entry] = &self.entries;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            let mut found = entries.iter().filter(|e| e.key.eq_ignore_ascii_case(part));
            let Some(entry) = found.next() else { return Ok(None) };
            if let Some(second) = found.next() {
                return Err(self.wrong(second.line, key, "is given twice, in different spelling"));
            }
            match (&entry.node.value, parts.peek()) {
                (Value::Null, _) => return Ok(None),
                (_, None) => return Ok(Some(entry.node.clone())),
                (Value::Map(inner), Some(_)) => entries = inner,
                (other, Some(_)) => {
                    let problem = format!("expected a map, found {}", other.kind());
                    return Err(self.wrong(entry.line, part, &problem));
                }
            }
        }
        Ok(None)
    }

    /// Whether a key holds a map.
    pub(super) fn is_section(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key.eq_ignore_ascii_case(key) && matches!(e.node.value, Value::Map(_)))
    }

    fn place(&self, line: u64) -> String {
        format!("{}:{line}", self.file)
    }

    pub(super) fn note(&mut self, key: &str, value: impl Into<String>, source: impl Into<String>) {
        self.settings.push(Setting { key: key.into(), value: value.into(), source: source.into() });
    }

    /// A text by precedence. Empty ones count as unset.
    pub(super) fn given(
        &mut self,
        key: &'static str,
        env: &[&str],
        flag: Option<Flag<'_>>,
    ) -> Result<Option<Given>> {
        // The file's value is read in any case: a bad one is an error.
        let in_file = match self.node(key)? {
            Some(node) => {
                let text = match node.value {
                    Value::Text(text) => text,
                    Value::Bool(flag) => flag.to_string(),
                    Value::Int(number) => number.to_string(),
                    other => {
                        let problem = format!("expected a text, found {}", other.kind());
                        return Err(self.wrong(node.line, key, &problem));
                    }
                };
                Some(Given { text, source: self.place(node.line) }).filter(|g| !g.text.is_empty())
            }
            None => None,
        };
        if let Some((name, Some(text))) = flag.filter(|(_, text)| text.is_some_and(|t| !t.is_empty())) {
            return Ok(Some(Given { text: text.to_owned(), source: format!("flag {name}") }));
        }
        let in_env = env.iter().find_map(|name| {
            let text = self.env.get(*name).filter(|text| !text.is_empty())?;
            Some(Given { text: text.clone(), source: format!("environment {name}") })
        });
        Ok(in_env.or(in_file))
    }

    /// The same, with a default.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        env: &[&str],
        flag: Option<Flag<'_>>,
        default: impl FnOnce() -> String,
    ) -> Result<String> {
        let given = self.given(key, env, flag)?;
        let Given { text, source } =
            given.unwrap_or_else(|| Given { text: default(), source: "default".into() });
        self.note(key, text.clone(), source);
        Ok(text)
    }

    /// A text that may be left out.
    pub(super) fn optional(&mut self, key: &'static str, env: &[&str]) -> Result<Option<String>> {
        let given = self.given(key, env, None)?;
        if let Some(Given { text, source }) = &given {
            self.note(key, text.clone(), source.clone());
        }
        Ok(given.map(|g| g.text))
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        env: &[&str],
        words: &[(&str, T)],
        default: &'static str,
    ) -> Result<T> {
        let Given { text, source } =
            self.given(key, env, None)?.unwrap_or(Given { text: default.into(), source: "default".into() });
        let Some((name, value)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)) else {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            return Err(ConfigError(format!(
                "failed to load config: {source}: {key}: '{text}' is none of {}",
                known.join(", ")
            )));
        };
        self.note(key, *name, source);
        Ok(*value)
    }

    /// A number within bounds.
    pub(super) fn number(&mut self, key: &'static str, least: u64, most: u64, default: u64) -> Result<u64> {
        let Some(node) = self.node(key)? else {
            self.note(key, default.to_string(), "default");
            return Ok(default);
        };
        let number = match &node.value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let Some(number) = number.filter(|n| (least..=most).contains(n)) else {
            let problem = if most == u64::MAX {
                format!("expected a number of at least {least}")
            } else {
                format!("expected a number from {least} to {most}")
            };
            return Err(self.wrong(node.line, key, &problem));
        };
        let place = self.place(node.line);
        self.note(key, number.to_string(), place);
        Ok(number)
    }

    /// A list of texts.
    pub(super) fn list(&mut self, key: &'static str) -> Result<Vec<String>> {
        let Some(node) = self.node(key)? else {
            self.note(key, "[]", "default");
            return Ok(Vec::new());
        };
        let Value::List(items) = &node.value else {
            let problem = format!("expected a list, found {}", node.value.kind());
            return Err(self.wrong(node.line, key, &problem));
        };
        let mut texts = Vec::new();
        for item in items {
            texts.push(match &item.value {
                Value::Text(text) => text.clone(),
                Value::Bool(flag) => flag.to_string(),
                Value::Int(number) => number.to_string(),
                other => {
                    let problem = format!("expected a text, found {}", other.kind());
                    return Err(self.wrong(item.line, key, &problem));
                }
            });
        }
        let place = self.place(node.line);
        self.note(key, format!("[{}]", texts.join(", ")), place);
        Ok(texts)
    }

    /// A list of texts, by the environment separated by commas.
    pub(super) fn list_or_env(&mut self, key: &'static str, env: &[&str]) -> Result<Vec<String>> {
        // The file's value is read in any case: a bad one is an error.
        let in_file = self.list(key)?;
        let given = env.iter().find_map(|name| {
            let text = self.env.get(*name).filter(|text| !text.trim().is_empty())?;
            Some((*name, text.clone()))
        });
        let Some((name, text)) = given else { return Ok(in_file) };
        let texts: Vec<String> =
            text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
        self.settings.retain(|setting| setting.key != key);
        self.note(key, format!("[{}]", texts.join(", ")), format!("environment {name}"));
        Ok(texts)
    }

    /// A secret, given itself or as the file that holds it.
    pub(super) fn secret(
        &mut self,
        (key, env, flag): (&'static str, &[&str], Option<Flag<'_>>),
        (file_key, file_env): (&'static str, &[&str]),
        read: &dyn Fn(&str) -> std::io::Result<String>,
    ) -> Result<Option<Secret>> {
        let direct = self.given(key, env, flag)?;
        let file = self.given(file_key, file_env, None)?;
        let Given { text, source } = match (direct, file) {
            // A flag or the environment is about this very start; otherwise two in one
            // file would leave open which is meant.
            (Some(direct), Some(file)) if direct.source.contains(':') && file.source.contains(':') => {
                return Err(ConfigError(format!(
                    "failed to load config: {}: {key} and {file_key} are both given; keep one of them",
                    file.source
                )));
            }
            (Some(direct), _) => direct,
            (None, Some(file)) => {
                let text = read(&file.text).map_err(|e| {
                    ConfigError(format!(
                        "failed to load config: {}: {file_key}: {}: {e}",
                        file.source, file.text
                    ))
                })?;
                let text = text.trim().to_owned();
                if text.is_empty() {
                    return Err(ConfigError(format!(
                        "failed to load config: {}: {file_key}: {} is empty",
                        file.source, file.text
                    )));
                }
                self.note(file_key, file.text.clone(), file.source.clone());
                Given { text, source: format!("file {}", file.text) }
            }
            (None, None) => return Ok(None),
        };
        self.note(key, "[redacted]", source);
        Ok(Some(Secret::new(text)))
    }

    /// Keys that nothing asked for, with the nearest that there is.
    pub(super) fn unknown(&self) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        self.collect(&self.entries, "", &mut found);
        found
    }

    fn collect(&self, entries: &[Entry], prefix: &str, found: &mut Vec<(u64, String)>) {
        for entry in entries {
            let name = format!("{prefix}{}", entry.key.to_ascii_lowercase());
            if self.known.contains(&name.as_str()) {
                continue;
            }
            let section = format!("{name}.");
            let is_section = self.known.iter().any(|known| known.starts_with(&section));
            match &entry.node.value {
                Value::Map(inner) if is_section => self.collect(inner, &section, found),
                Value::Null if is_section => {}
                other if is_section => {
                    found.push((entry.line, format!("{name}: expected a map, found {}", other.kind())));
                }
                _ => {
                    let shown = format!("{prefix}{}", entry.key);
                    let near = self.known.iter().min_by_key(|known| distance(known, &name));
                    let hint = near
                        .filter(|near| distance(near, &name) <= 3)
                        .map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
                    found.push((entry.line, format!("unknown key {shown}{hint}")));
                }
            }
        }
    }
}

/// How many letters differ (Levenshtein).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in
            [("", "abc", 3), ("max_task", "max_tasks", 1), ("kitten", "sitting", 3), ("a", "a", 0)]
        {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }
}
