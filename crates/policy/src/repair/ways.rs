//! The ways in which one command can be written differently.

use std::ops::Range;

use crate::programs;
use crate::script::{Command, Frag, Script, Word};
use crate::verdict::Span;

/// Folders of programs: what stands there goes by its name.
const PROGRAM_FOLDERS: &[&str] =
    &["/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"];

/// Variables that only matter to a person at a terminal, which no line of a runner has.
const OF_TERMINALS: &[&str] = &[
    "PAGER",
    "GIT_PAGER",
    "MANPAGER",
    "SYSTEMD_PAGER",
    "SYSTEMD_LESS",
    "AWS_PAGER",
    "GH_PAGER",
    "PSQL_PAGER",
    "BAT_PAGER",
    "LESS",
    "EDITOR",
    "VISUAL",
    "GIT_EDITOR",
];

/// Programs that show text a page at a time; without a terminal they are `cat`.
const PAGERS: &[(&str, &str)] = &[
    ("less", "cat"),
    ("more", "cat"),
    ("most", "cat"),
    ("pg", "cat"),
    ("zless", "zcat"),
    ("zmore", "zcat"),
    ("xzless", "xzcat"),
];

/// The same by another name.
const NAMES: &[(&str, &str)] = &[
    ("docker-compose", "docker compose"),
    ("which", "type"),
    ("type", "which"),
    ("gsed", "sed"),
    ("gawk", "awk"),
    ("python", "python3"),
    ("source", "."),
];

/// A command where it stands in its line.
pub(super) struct Site<'a> {
    line: &'a str,
    command: &'a Command,
    script: &'a Script,
    /// Where each word stands; as far as they were found.
    places: Vec<Range<usize>>,
}

impl<'a> Site<'a> {
    pub(super) fn of(line: &'a str, command: &'a Command, script: &'a Script) -> Self {
        let mut places = Vec::new();
        let end = command.span.end.min(line.len());
        // Assignments stand before the first word.
        let after = command.prefixes.iter().map(|prefix| prefix.span.end).max();
        let mut at = after.unwrap_or(command.span.start).max(command.span.start);
        for word in &command.words {
            let found =
                line.get(at..end).filter(|_| !word.raw.is_empty()).and_then(|rest| rest.find(&word.raw));
            let Some(found) = found else { break };
            places.push(at + found..at + found + word.raw.len());
            at += found + word.raw.len();
        }
        Self { line, command, script, places }
    }

    /// All of them; some lead nowhere.
    pub(super) fn ways(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.places.len() < self.command.words.len() || self.places.is_empty() {
            return found;
        }
        found.extend(self.by_value());
        found.extend(self.by_name());
        found.extend(self.without_terminal());
        found.extend(self.written_out());
        found.extend(self.unwrapped());
        found.extend(self.with_arguments());
        found.extend(self.as_redirection());
        found.extend(self.ended());
        found
    }

    fn literal(&self, at: usize) -> Option<String> {
        self.command.words.get(at)?.literal()
    }

    fn name(&self) -> String {
        self.literal(0).map(|name| name.rsplit('/').next().unwrap_or_default().to_owned()).unwrap_or_default()
    }

    fn with(&self, range: Range<usize>, text: &str) -> String {
        format!("{}{text}{}", &self.line[..range.start], &self.line[range.end..])
    }

    /// From a word to the last.
    fn from(&self, word: usize) -> Range<usize> {
        let end = self.places.last().map_or(0, |place| place.end);
        self.places.get(word).map_or(end, |place| place.start)..end
    }

    /// The whole command, with what is set for it.
    fn whole(&self) -> Range<usize> {
        let start = self.command.prefixes.first().map_or(self.places[0].start, |prefix| prefix.span.start);
        start..self.from(0).end
    }

    /// The program that the line has put into a variable, by its name.
    fn by_value(&self) -> Option<String> {
        let [Frag::Variable { name, .. }] = self.command.words[0].frags.as_slice() else { return None };
        let mut set = self.script.assignments.iter().filter(|set| set.name == *name);
        let value = set.next().filter(|set| !set.append)?.value.as_ref()?.literal()?;
        let is_plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./ ".contains(&b));
        (set.next().is_none() && is_plain).then(|| self.with(self.places[0].clone(), &value))
    }

    /// The program by its plain name, or by another it has.
    fn by_name(&self) -> Vec<String> {
        let Some(first) = self.literal(0) else { return Vec::new() };
        let mut found = Vec::new();
        let folder = PROGRAM_FOLDERS.iter().find_map(|folder| first.strip_prefix(folder));
        if let Some(name) = folder.filter(|name| !name.contains('/')) {
            found.push(self.with(self.places[0].clone(), name));
        }
        let of_others = NAMES.iter().filter(|(name, _)| *name == first).map(|(_, other)| *other);
        found.extend(of_others.map(|other| self.with(self.places[0].clone(), other)));
        if first == "service"
            && let [_, unit, verb] = self.command.words.as_slice()
        {
            found.push(self.with(self.from(0), &format!("systemctl {} {}", verb.raw, unit.raw)));
        }
        found
    }

    /// Without pagers, and without what is set for them and for editors.
    fn without_terminal(&self) -> Vec<String> {
        let mut found = Vec::new();
        let prefixes = &self.command.prefixes;
        if prefixes.iter().any(|prefix| OF_TERMINALS.contains(&prefix.name.as_str())) {
            let kept = prefixes.iter().filter(|prefix| !OF_TERMINALS.contains(&prefix.name.as_str()));
            let kept: Vec<&str> =
                kept.filter_map(|prefix| self.line.get(prefix.span.start..prefix.span.end)).collect();
            let command = &self.line[self.from(0)];
            let text = kept.into_iter().chain([command]).collect::<Vec<_>>().join(" ");
            found.push(self.with(self.whole(), &text));
        }
        let name = self.name();
        let Some((_, cat)) = PAGERS.iter().find(|(pager, _)| *pager == name) else { return found };
        let operands = self.command.words[1..].iter().filter(|word| {
            let head = word.literal_head();
            !(head.starts_with('-') && head.len() > 1 || head.starts_with('+'))
        });
        let operands: Vec<&str> = operands.map(|word| word.raw.as_str()).collect();
        if operands.is_empty() {
            let before = self.line[..self.whole().start].trim_end();
            if let Some(kept) = before.strip_suffix('|').filter(|kept| !kept.ends_with('|')) {
                found.push(format!("{}{}", kept.trim_end(), &self.line[self.whole().end..]));
            }
        } else {
            found.push(self.with(self.from(0), &format!("{cat} {}", operands.join(" "))));
        }
        found
    }

    /// With a long option in full that was shortened.
    fn written_out(&self) -> Option<String> {
        let (word, upto, full) = programs::shortened(self.command)?;
        let place = self.places.get(word)?;
        let raw = &self.line[place.clone()];
        let literal = self.literal(word)?;
        // Within quotes it stands elsewhere.
        (raw == literal).then(|| self.with(place.start..place.start + upto, full))
    }

    /// What a wrapper runs that changes nothing in what is done.
    fn unwrapped(&self) -> Vec<String> {
        let inner = match self.name().as_str() {
            "command" | "builtin" | "nohup" | "busybox" | "toybox" | "nice" | "ionice" | "stdbuf" => {
                self.behind_options().map(|at| self.line[self.from(at)].to_owned())
            }
            "exec" if self.whole().end == self.line.trim_end().len() => {
                self.behind_options().map(|at| self.line[self.from(at)].to_owned())
            }
            "env" => self.of_env(),
            "eval" => self.literal(1).filter(|_| self.command.words.len() == 2),
            "sh" | "bash" | "dash" => self.script_text(),
            _ => None,
        };
        let Some(inner) = inner.filter(|text| !text.trim().is_empty()) else { return Vec::new() };
        let alone = self.line.trim().len() == self.line[self.whole()].trim().len();
        let simple = !inner.contains([';', '&', '|', '\n', '#', '<', '>']);
        let text = if alone || simple { inner } else { format!("({inner})") };
        let range = if self.name() == "env" { self.from(0) } else { self.whole() };
        vec![self.with(range, &text)]
    }

    /// The first word behind the options of a wrapper that has few.
    fn behind_options(&self) -> Option<usize> {
        let takes_value: &[&str] = match self.name().as_str() {
            "nice" => &["-n"],
            "ionice" => &["-c", "-n"],
            "stdbuf" => &["-i", "-o", "-e"],
            _ => &[],
        };
        let mut at = 1;
        while let Some(text) = self.literal(at) {
            if !text.starts_with('-') || takes_value.is_empty() && !matches!(self.name().as_str(), "ionice") {
                return (!text.starts_with('-')).then_some(at);
            }
            at += if takes_value.contains(&text.as_str()) { 2 } else { 1 };
        }
        None
    }

    /// `env A=1 PROGRAM` as `A=1 PROGRAM`.
    fn of_env(&self) -> Option<String> {
        (self.command.words.len() > 1 && !self.literal(1)?.starts_with('-'))
            .then(|| self.line[self.from(1)].to_owned())
    }

    /// The text of `bash -c TEXT`, as far as it means the same in this line.
    fn script_text(&self) -> Option<String> {
        let [_, option, text] = self.command.words.as_slice() else { return None };
        if option.literal()? != "-c" {
            return None;
        }
        let text = match text.literal() {
            Some(text) => text,
            None => unquoted(text)?,
        };
        let bytes = text.as_bytes();
        let odd = |at: usize| {
            bytes[at] == b'$'
                && bytes.get(at + 1).is_none_or(|next| next.is_ascii_digit() || b"@*#$!{(".contains(next))
        };
        if (0..bytes.len()).any(odd) {
            return None;
        }
        let is_set = |name: &str| self.script.assignments.iter().any(|set| set.name == name);
        let mut names = text.split('$').skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        });
        // A script sees only what is exported.
        let seen = self.command.words[2].literal().is_none() || !names.any(is_set);
        seen.then_some(text)
    }

    /// `xargs -I{} sh -c 'wc {}'` hands what it read over as an argument instead.
    fn with_arguments(&self) -> Vec<String> {
        let words = &self.command.words;
        let mark = words.iter().enumerate().find_map(|(at, word)| {
            let text = word.literal()?;
            match text.strip_prefix("-I")? {
                "" => words.get(at + 1)?.literal(),
                mark => Some(mark.to_owned()),
            }
        });
        let shell = words
            .iter()
            .position(|word| word.literal().is_some_and(|text| matches!(text.as_str(), "sh" | "bash")));
        let (Some(mark), Some(shell)) = (mark.filter(|mark| !mark.is_empty()), shell) else {
            return Vec::new();
        };
        let option = words.get(shell + 1).and_then(Word::literal);
        let text = words.get(shell + 2).and_then(Word::literal);
        let (Some("-c"), Some(text)) = (option.as_deref(), text) else { return Vec::new() };
        if shell + 3 != words.len() || !text.contains(&mark) || text.contains(['\'', '"', '\\', '$']) {
            return Vec::new();
        }
        let text = text.replace(&mark, "\"$1\"");
        let names = ["sh", "bash"].iter();
        names.map(|name| self.with(self.from(shell), &format!("{name} -c '{text}' {name} {mark}"))).collect()
    }

    /// `| tee FILE > /dev/null` as `> FILE`.
    fn as_redirection(&self) -> Option<String> {
        let [_, file] = self.command.words.as_slice() else { return None };
        if self.name() != "tee" || file.literal_head().starts_with('-') {
            return None;
        }
        let rest = self.line[self.from(0).end..].trim_start();
        let rest = rest.strip_prefix('>')?.trim_start().strip_prefix("/dev/null")?;
        let before = self.line[..self.whole().start].trim_end().strip_suffix('|')?;
        (!before.ends_with('|')).then(|| format!("{} > {}{rest}", before.trim_end(), file.raw))
    }

    /// With `--` before the first word that could come out as an option.
    fn ended(&self) -> Vec<String> {
        let words = &self.command.words;
        if words.iter().any(|word| word.literal().as_deref() == Some("--")) {
            return Vec::new();
        }
        let computed = (1..words.len()).filter(|at| {
            matches!(
                words[*at].frags.first(),
                Some(Frag::Unknown { .. } | Frag::Variable { .. } | Frag::Glob(_))
            )
        });
        computed.take(2).map(|at| self.with(self.places[at].start..self.places[at].start, "-- ")).collect()
    }
}

/// What stands in double quotes, if it holds but plain text and variables.
fn unquoted(word: &Word) -> Option<String> {
    let text = word.raw.strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains(['"', '\\', '`']) && !text.contains("$(") && !text.contains("${"))
        .then(|| text.to_owned())
}

/// `[[ $a -eq 1 ]]` evaluates its operands; `[ "$a" -eq 1 ]` compares numbers.
pub(super) fn test_of(line: &str, span: Span) -> Option<String> {
    const OPERATORS: &[&str] = &["-eq", "-ne", "-lt", "-le", "-gt", "-ge"];
    // What is refused may be less than the whole.
    let start = line.get(..span.end.min(line.len()))?.rfind("[[")?;
    let end = start + line[start..].find("]]")? + 2;
    let inner = line.get(start + 2..end - 2)?;
    let words: Vec<&str> = inner.split_whitespace().collect();
    let [left, operator, right] = words.as_slice() else { return None };
    if !OPERATORS.contains(operator) {
        return None;
    }
    let quoted = |word: &str| {
        let number = word.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit());
        match word {
            word if number || word.starts_with('"') => Some(word.to_owned()),
            word if word.starts_with('$') && !word.contains(['(', '\'', '"']) => Some(format!("\"{word}\"")),
            _ => None,
        }
    };
    Some(format!("{}[ {} {operator} {} ]{}", &line[..start], quoted(left)?, quoted(right)?, &line[end..]))
}
