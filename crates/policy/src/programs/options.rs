//! Programs with an option that runs, loads or writes (point 19).

use super::{Refusal, clauses, refuse, refuse_computed};
use crate::script::Word;

#[cfg(test)]
pub(super) const CLAUSES: &[&str] =
    &["refuse", "values", "long-single", "known", "writes", "pairs", "no-end"];

/// What is known of a program's options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    refused: Vec<&'static str>,
    values: Vec<&'static str>,
    /// Options that take the next two words.
    pairs: Vec<&'static str>,
    /// Options that exist by themselves, though they begin like a refused one.
    known: Vec<&'static str>,
    /// Refused options whose value is the file they write.
    writes: Vec<&'static str>,
    /// Long options begin with one dash or with two.
    long_single: bool,
    /// `--` does not end the options.
    no_end: bool,
}

pub(super) fn parse(entry: &'static str) -> (&'static str, Options) {
    let mut options = Options::default();
    let (name, clauses) = clauses(entry);
    for (key, values) in clauses {
        match key {
            "refuse" => options.refused = values,
            "values" => options.values = values,
            "known" => options.known = values,
            "pairs" => options.pairs = values,
            "writes" => options.writes = values,
            "no-end" => options.no_end = true,
            "long-single" => options.long_single = true,
            _ => {}
        }
    }
    (name, options)
}

impl Options {
    pub(super) fn new(refused: &[&'static str], values: &[&'static str]) -> Self {
        Self { refused: refused.to_vec(), values: values.to_vec(), ..Self::default() }
    }

    /// Whether one of the refused options stands, or could stand, among the arguments.
    pub(super) fn check(&self, command: &str, args: &[Word]) -> Result<(), Refusal> {
        let mut values = 0usize;
        for (index, arg) in args.iter().enumerate() {
            // The value of the option before: one word, whatever it holds.
            let was_value = values > 0;
            values = values.saturating_sub(1);
            if was_value && !arg.could_be_many() && !arg.literal_head().starts_with("--") {
                continue;
            }
            let Some(text) = arg.literal() else {
                self.check_computed(command, arg)?;
                continue;
            };
            let ends = !self.no_end && !self.long_single && self.refused.iter().all(|o| o.starts_with('-'));
            if text == "--" && ends {
                return Ok(());
            }
            if self
                .known
                .iter()
                .any(|o| text == *o || text.strip_prefix(o).is_some_and(|t| t.starts_with('=')))
            {
                continue;
            }
            if let Some(option) = self.writes.iter().find(|o| self.is_option(&text, o)) {
                match self.free_target(&text, option, args.get(index + 1)) {
                    Some(next) => {
                        values = usize::from(next);
                        continue;
                    }
                    None => return refuse(format!("'{command}' with {option} writes a file")),
                }
            }
            if let Some(option) = self.refused.iter().find(|o| self.is_option(&text, o)) {
                return refuse(format!("'{command}' with {option} can run or write something else"));
            }
            values = match text.as_str() {
                text if self.pairs.contains(&text) => 2,
                text => usize::from(self.values.contains(&text)),
            };
        }
        Ok(())
    }

    /// Whether a writing option's value is none that is kept: `-`, `/dev/null`; then says
    /// whether it is the next word.
    fn free_target(&self, text: &str, option: &str, next: Option<&Word>) -> Option<bool> {
        let free = |value: &str| matches!(value, "-" | "/dev/null" | "/dev/stdout" | "/dev/stderr");
        let attached = match option.strip_prefix("--") {
            Some(_) => text.split_once('=').map(|(_, value)| value),
            None => text.split_once(option.trim_start_matches('-')).map(|(_, value)| value),
        };
        match attached {
            Some(value) if !value.is_empty() => free(value).then_some(false),
            _ => next.and_then(Word::literal).is_some_and(|value| free(&value)).then_some(true),
        }
    }

    fn check_computed(&self, command: &str, arg: &Word) -> Result<(), Refusal> {
        let head = arg.literal_head();
        if head.is_empty() && arg.could_start_with_dash() {
            return refuse_computed(
                format!(
                    "a computed word could be an option with which '{command}' runs or writes something else; \
                 let it begin with known text such as ./"
                ),
                true,
            );
        }
        // The unknown tail of a literal option is as bad as the option.
        let bad =
            |option: &&&str| self.is_option(&head, option) || !head.is_empty() && option.starts_with(&head);
        match self.refused.iter().find(bad) {
            // What the line says is said, whatever bash adds.
            Some(option) if self.is_option(&head, option) => {
                refuse(format!("'{command}' with {option} can run or write something else"))
            }
            Some(_) => refuse_computed(
                format!(
                    "the rest of '{head}' is computed, and it could come out as an option with which '{command}' runs or \
                     writes something else"
                ),
                true,
            ),
            None => Ok(()),
        }
    }

    /// Whether an argument is an option, in any of the ways getopt lets it be spelt.
    fn is_option(&self, arg: &str, option: &str) -> bool {
        if arg == option {
            return true;
        }
        if let Some(long) = option.strip_prefix("--") {
            let name = match (arg.strip_prefix("--"), self.long_single) {
                (Some(name), _) => name,
                (None, true) => arg.strip_prefix('-').unwrap_or_default(),
                (None, false) => return false,
            };
            let name = name.split('=').next().unwrap_or(name);
            return !name.is_empty() && long.starts_with(name);
        }
        let Some(short) = option.strip_prefix('-') else {
            // `dd of=…`, `ip netns …`
            return arg.split('=').next() == Some(option);
        };
        let name = arg.split('=').next().unwrap_or(arg);
        if self.long_single {
            return name
                .strip_prefix('-')
                .is_some_and(|name| name.strip_prefix('-').unwrap_or(name) == short);
        }
        if short.chars().count() > 1 {
            return name == option;
        }
        // Anywhere in a cluster: `tar -xIprog`. What follows an option that takes a
        // value is that value, as in `journalctl -uMy.service`.
        let Some(cluster) = arg.strip_prefix('-').filter(|c| !c.starts_with('-')) else { return false };
        for c in cluster.chars() {
            if short.starts_with(c) {
                return true;
            }
            if self
                .values
                .iter()
                .chain(&self.writes)
                .any(|o| o.strip_prefix('-').is_some_and(|o| o.len() == 1 && o.starts_with(c)))
            {
                return false;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_however_they_are_spelt() {
        let options = Options::new(&[], &["-u", "--unit"]);
        for (arg, option, found) in [
            ("-exec", "-exec", true),
            ("-e", "-exec", false),
            ("--checkpoint-action=exec=id", "--checkpoint-action", true),
            ("--checkpoint-act=exec=id", "--checkpoint-action", true),
            ("--check", "--checkpoint-action", true),
            ("--", "--checkpoint-action", false),
            ("-xIid", "-I", true),
            ("-uxI", "-I", false),
            ("-xuI", "-I", false),
            ("--interactive", "-I", false),
            ("of=/dev/sda", "of", true),
            ("if=x", "of", false),
        ] {
            assert_eq!(options.is_option(arg, option), found, "{arg} {option}");
        }
    }
}
