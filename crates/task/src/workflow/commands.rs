//! Lines that are commands to the runner: `::warning file=a.c,line=3::text`.

use legwork_proto::task::Level;

use crate::journal::Left;

/// What a step has said so far.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// Until this is said nothing else is a command.
    stopped: Option<String>,
}

impl Commands {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// Obeys a line if it is a command; what is to be told instead of it.
    pub(super) fn obey(&mut self, level: Level, line: String, left: &mut Left) -> Option<(Level, String)> {
        let Some((name, properties, text)) = parted(&line) else { return Some((level, line)) };
        if let Some(word) = &self.stopped {
            if name == word {
                self.stopped = None;
                return None;
            }
            return Some((level, line));
        }
        let property = |key: &str| {
            let found = properties.split(',').filter_map(|pair| pair.split_once('='));
            found.into_iter().find(|(k, _)| k.trim() == key).map(|(_, v)| decoded(v, true))
        };
        match name.to_ascii_lowercase().as_str() {
            "error" | "warning" | "notice" => {
                let word = name.to_ascii_lowercase();
                let place = match (property("file"), property("line")) {
                    (Some(file), Some(line)) => format!(" {file}:{line}"),
                    (Some(file), None) => format!(" {file}"),
                    _ => String::new(),
                };
                let level = if word == "error" { Level::Error } else { Level::Info };
                Some((level, format!("{word}{place}: {}", decoded(text, false))))
            }
            "group" => Some((Level::Info, decoded(text, false))),
            "endgroup" | "debug" | "echo" | "add-matcher" | "remove-matcher" => None,
            "set-output" => {
                left.outputs.insert(property("name")?, decoded(text, false));
                None
            }
            "save-state" => {
                left.state.insert(property("name")?, decoded(text, false));
                None
            }
            "stop-commands" => {
                self.stopped = Some(text.trim().to_owned()).filter(|word| !word.is_empty());
                None
            }
            _ => Some((level, line)),
        }
    }
}

/// Name, properties and text of a command.
fn parted(line: &str) -> Option<(&str, &str, &str)> {
    let rest = line.trim_start().strip_prefix("::")?;
    let (head, text) = rest.split_once("::")?;
    let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
    let is_name = !name.is_empty() && name.len() <= 200 && !name.contains(char::is_whitespace);
    is_name.then_some((name, properties, text))
}

fn decoded(text: &str, is_property: bool) -> String {
    let mut text = text.replace("%0D", "\r").replace("%0A", "\n");
    if is_property {
        text = text.replace("%3A", ":").replace("%2C", ",");
    }
    text.replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_obeyed_and_what_is_none_is_told() {
        let (mut commands, mut left) = (Commands::default(), Left::default());
        let mut told = |line: &str| commands.obey(Level::Stdout, line.to_owned(), &mut left);
        for (line, want) in [
            ("plain", Some((Level::Stdout, "plain"))),
            ("::group::Title", Some((Level::Info, "Title"))),
            ("::endgroup::", None),
            ("::error file=a.c,line=3::bad", Some((Level::Error, "error a.c:3: bad"))),
            ("::warning::50%25 of it%0Aall", Some((Level::Info, "warning: 50% of it\nall"))),
            ("::debug::no", None),
            ("::set-output name=x::1", None),
            ("::save-state name=s::2", None),
            ("a::b::c", Some((Level::Stdout, "a::b::c"))),
            ("::unknown::x", Some((Level::Stdout, "::unknown::x"))),
            ("::stop-commands::word", None),
            ("::error::x", Some((Level::Stdout, "::error::x"))),
            ("::word::", None),
            ("::notice::again", Some((Level::Info, "notice: again"))),
        ] {
            assert_eq!(told(line), want.map(|(level, text)| (level, text.to_owned())), "{line}");
        }
        assert_eq!((left.outputs["x"].as_str(), left.state["s"].as_str()), ("1", "2"));
    }
}
