//! Programs with an option that runs, loads or writes (point 19).

use super::{Refusal, clauses, refuse};
use crate::script::Word;

#[cfg(test)]
pub(super) const CLAUSES: &[&str] = &["refuse", "values", "computed", "long-single", "no-end"];

/// What is known of a program's options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    refused: Vec<&'static str>,
    values: Vec<&'static str>,
    computed_pass: bool,
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
            "computed" => options.computed_pass = true,
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
        let mut is_value = false;
        for arg in args {
            // The value of the option before: one word, whatever it holds.
            if std::mem::take(&mut is_value) && !arg.could_be_many() {
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
            if let Some(option) = self.refused.iter().find(|o| self.is_option(&text, o)) {
                return refuse(format!("'{command}' with {option} can run or write something else"));
            }
            is_value = self.values.iter().any(|o| *o == text);
        }
        Ok(())
    }

    fn check_computed(&self, command: &str, arg: &Word) -> Result<(), Refusal> {
        if self.computed_pass {
            return Ok(());
        }
        let head = arg.literal_head();
        if head.is_empty() && arg.could_start_with_dash() {
            return refuse(format!(
                "a computed word could be an option with which '{command}' runs or writes something else; \
                 start it with a literal such as ./, or write -- before it"
            ));
        }
        // The unknown tail of a literal option is as bad as the option.
        let bad = |option: &&&str| {
            self.is_option(&head, option) || head.starts_with('-') && option.starts_with(&head)
        };
        match self.refused.iter().find(bad) {
            Some(option) => refuse(format!("'{command}' with {option} can run or write something else")),
            None => Ok(()),
        }
    }

    /// Whether an argument is an option, in any of the ways getopt lets it be spelt.
    fn is_option(&self, arg: &str, option: &str) -> bool {
        if arg == option {
            return true;
        }
        if let Some(long) = option.strip_prefix("--") {
            let Some(name) = arg.strip_prefix("--") else { return false };
            let name = name.split('=').next().unwrap_or(name);
            return !name.is_empty() && long.starts_with(name);
        }
        let Some(short) = option.strip_prefix('-') else {
            // `dd of=…`, `ip netns …`
            return arg.split('=').next() == Some(option);
        };
        if short.chars().count() > 1 || self.long_single {
            return arg.split('=').next() == Some(option);
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
