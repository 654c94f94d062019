//! A command's words, taken as the program takes them.

use super::table::{Effect, Node, Opt, Value, Which};
use super::{Need, Why};
use crate::programs::sql::{self, Dialect};
use crate::script::{Frag, Style, Word};

/// Files that are none: written to or read from, they tell nothing.
const FREE_TARGETS: &[&str] = &["-", "/dev/null", "/dev/stdout", "/dev/stderr", "/dev/stdin"];

/// What in these words needs more than a `*`; and the innermost subcommand, with its depth.
pub(super) fn needs(node: &'static Node, words: &[Word], gate: bool) -> (Vec<Need>, &'static Node, usize) {
    let mut walk = Walk {
        words,
        gate,
        path: vec![node],
        at: 0,
        operands: 0,
        ended: false,
        done: false,
        seen: Vec::new(),
        needs: Vec::new(),
    };
    walk.all();
    let (innermost, depth) = (walk.node(), walk.path.len() - 1);
    (walk.needs, innermost, depth)
}

/// Whether bash may make several words of one, of which the later could begin with anything.
/// What a glob or a brace makes begins as the word does.
fn could_be_options(word: &Word) -> bool {
    let plain = |frag: &Frag| matches!(frag, Frag::Lit(_) | Frag::Glob(_) | Frag::Path | Frag::Number);
    let begins_alike = !word.literal_head().is_empty() && word.frags.iter().all(plain);
    word.could_be_many() && (!begins_alike || word.could_start_with_dash())
}

struct Walk<'a> {
    words: &'a [Word],
    gate: bool,
    /// The program and the subcommands so far.
    path: Vec<&'static Node>,
    at: usize,
    /// Operands of the innermost one.
    operands: usize,
    /// No options follow.
    ended: bool,
    /// What follows is not judged.
    done: bool,
    /// Options that were found.
    seen: Vec<&'static str>,
    needs: Vec<Need>,
}

impl Walk<'_> {
    fn node(&self) -> &'static Node {
        // The path begins with the program and only grows.
        self.path[self.path.len() - 1]
    }

    fn all(&mut self) {
        if self.node().is("bare") {
            self.bare_cluster();
        }
        while let Some(word) = self.words.get(self.at) {
            if self.done {
                return;
            }
            let at = self.at;
            self.at += 1;
            match word.literal() {
                Some(text) if self.is_option(&text) => self.option(at, &text, true),
                Some(text) => self.operand(at, &text),
                None => self.computed(at, word),
            }
        }
        let node = self.node();
        if !self.done && !node.needs.is_empty() && !node.needs.iter().any(|o| self.seen.contains(o)) {
            let what =
                "nothing that says what to do, so that it does what its input says or what is its default,"
                    .to_owned();
            self.needs.push(Need { word: None, upto: 0, value: None, what, why: Why::Does(Effect::Exec) });
        }
    }

    fn is_option(&self, text: &str) -> bool {
        text.len() > 1 && text.starts_with('-') && !self.ended
    }

    fn find(&self, name: &str) -> Option<(&'static Node, Opt)> {
        let innermost = self.path.len() - 1;
        let places = self.path.iter().enumerate().rev();
        let mut inherited = places.filter(|(index, node)| *index == innermost || node.is("inherit"));
        inherited.find_map(|(_, node)| Some((*node, node.option(name)?)))
    }

    fn unknown(&mut self, at: usize, what: &str, upto: usize, kind: &'static str) {
        self.need(at, upto, None, what, Why::Unknown(kind));
    }

    /// Whether an option could be found here that does more than look.
    fn is_dangerous(&self) -> bool {
        let innermost = self.path.len() - 1;
        let mut path = self.path.iter().enumerate();
        path.any(|(index, node)| (index == innermost || node.is("inherit")) && node.is_dangerous())
    }

    /// What bash computes no rule can spell.
    fn could_be_option(&mut self) {
        self.needs.push(Need { word: None, upto: 0, value: None, what: String::new(), why: Why::Computed });
    }

    fn need(&mut self, at: usize, upto: usize, value: Option<(usize, usize)>, what: &str, why: Why) {
        self.needs.push(Need { word: Some(at), upto, value, what: what.to_owned(), why });
    }

    /// An option; of a word that bash computes in part only the beginning (`whole` is false).
    fn option(&mut self, at: usize, text: &str, whole: bool) {
        const UNKNOWN: &str = "an option";
        if text == "--" && whole {
            self.ended = !self.node().is("no-end");
            return;
        }
        let dash = self.node().is("dash");
        if text.starts_with("--") || dash {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text, None),
            };
            let found = self.find(name);
            // Such programs take two dashes for one.
            let single = || self.find(name.strip_prefix('-')?).filter(|_| dash && name.starts_with("--"));
            let numeric = self.node().is("numeric") && name[1..].bytes().all(|b| b.is_ascii_digit());
            match found.or_else(single) {
                _ if numeric => {}
                None if self.node().is("attached") && self.attached(at, text) => {}
                Some((node, opt)) if whole || value.is_some() => {
                    let from = value.map(|value| text.len() - value.len());
                    self.valued(at, name.len(), node, name, opt, from, whole);
                }
                _ if !whole && self.gate => {}
                _ => match self.node().written_out(name).filter(|_| !dash) {
                    Some(full) => self.need(at, name.len(), None, name, Why::Short(full)),
                    None => self.unknown(at, name, name.len(), UNKNOWN),
                },
            }
            return;
        }
        if self.node().is("numeric") && text[1..].bytes().all(|b| b.is_ascii_digit()) {
            return;
        }
        for (index, letter) in text.char_indices().skip(1) {
            let name = format!("-{letter}");
            let end = index + letter.len_utf8();
            let Some((node, opt)) = self.find(&name) else {
                return self.unknown(at, &name, end, UNKNOWN);
            };
            if opt.value == Value::None {
                self.valued(at, end, node, &name, opt, None, whole);
                continue;
            }
            let mut from = Some(end).filter(|end| *end < text.len() || !whole);
            if self.path.iter().any(|node| node.is("go")) && text[end..].starts_with('=') {
                from = from.map(|from| from + 1);
            }
            return self.valued(at, end, node, &name, opt, from, whole);
        }
        if !whole && !self.gate {
            self.could_be_option();
        }
    }

    /// `-p80` of a program whose long options have one dash.
    fn attached(&mut self, at: usize, text: &str) -> bool {
        let end = 1 + text[1..].chars().next().map_or(0, char::len_utf8);
        let Some((node, opt)) = self.find(&text[..end]).filter(|(_, opt)| opt.value == Value::Required)
        else {
            return false;
        };
        let name = text[..end].to_owned();
        self.valued(at, end, node, &name, opt, Some(end), true);
        true
    }

    /// An option that is known, its value attached from the byte `from` on or still to come.
    #[expect(clippy::too_many_arguments, reason = "what was found, and where")]
    fn valued(
        &mut self,
        at: usize,
        upto: usize,
        node: &'static Node,
        name: &str,
        opt: Opt,
        from: Option<usize>,
        whole: bool,
    ) {
        let known = node.needs.iter().chain(&self.node().needs).find(|o| **o == name);
        self.seen.extend(known);
        let (place, value) = match (opt.value, from) {
            (Value::Command, _) => return self.command(at, upto, name, opt),
            (Value::None, _) | (Value::Optional, None) => (None, Some(String::new())),
            (_, Some(from)) => {
                let text = self.words[at].literal().filter(|_| whole);
                (Some((at, from)), text.and_then(|text| text.get(from..).map(str::to_owned)))
            }
            (Value::Required | Value::Two, None) => {
                let place = Some((self.at, 0));
                let value = self.next_value();
                if opt.value == Value::Two {
                    self.next_value();
                }
                (place, value)
            }
        };
        self.judge(at, upto, node, name, opt, place, value);
    }

    /// The next word, as a value.
    fn next_value(&mut self) -> Option<String> {
        let Some(word) = self.words.get(self.at) else { return Some(String::new()) };
        // Of several words the others could be options.
        if could_be_options(word) && !self.gate && self.is_dangerous() {
            self.could_be_option();
        }
        let at = self.at;
        self.at += 1;
        let text = word.literal()?;
        self.check_value(at, &text);
        Some(text)
    }

    /// A value that reads like an option which acts: should the table be wrong about who
    /// takes a value, or the program's version differ, it would be one.
    fn check_value(&mut self, at: usize, text: &str) {
        let like_option =
            text.len() > 1 && text.starts_with('-') && !text[1..].starts_with(|c: char| c.is_ascii_digit());
        if !like_option || self.node().is("sure") || !self.is_dangerous() {
            return;
        }
        let mut probe = Walk {
            words: &self.words[..=at],
            gate: self.gate,
            path: self.path.clone(),
            at: at + 1,
            operands: 0,
            ended: false,
            done: false,
            seen: Vec::new(),
            needs: Vec::new(),
        };
        probe.option(at, text, true);
        let acts = |need: &Need| need.why != Why::Does(Effect::Read);
        self.needs.extend(probe.needs.into_iter().filter(acts));
    }

    #[expect(clippy::too_many_arguments, reason = "what was found, and where")]
    fn judge(
        &mut self,
        at: usize,
        upto: usize,
        node: &'static Node,
        name: &str,
        opt: Opt,
        place: Option<(usize, usize)>,
        value: Option<String>,
    ) {
        let takes = opt.value != Value::None;
        // The real arguments will show it.
        if takes && value.is_none() && self.gate {
            return;
        }
        if let Some(dialect) = opt.sql {
            return self.sql(place.map_or(at, |(at, _)| at), dialect, value.as_deref());
        }
        let is_free_target = takes && value.as_deref().is_some_and(|v| FREE_TARGETS.contains(&v));
        match opt.effect {
            Effect::Free if place.is_none() || node.permits(name, value.as_deref()) => {}
            Effect::Free if value.is_none() && self.permits_computed(node, name, place) => {}
            Effect::Free => {
                let shown = value.as_deref().filter(|v| !v.is_empty());
                let what = shown.map_or_else(|| name.to_owned(), |shown| format!("{name} {shown}"));
                let (word, upto) = match (place, &value) {
                    (Some((word, from)), Some(value)) => (word, from + value.len()),
                    _ => (at, upto),
                };
                self.need(word, upto, None, &what, Why::Unknown("a value"));
            }
            Effect::Write | Effect::Read if is_free_target => {}
            effect => self.need(at, upto, place, name, Why::Does(effect)),
        }
    }

    /// Whether a value that bash computes is harmless, whatever it comes out as.
    fn permits_computed(&self, node: &Node, name: &str, place: Option<(usize, usize)>) -> bool {
        let Some((at, from)) = place else { return false };
        let Some(word) = self.words.get(at) else { return false };
        let head = word.literal_head();
        let Some(before) = head.get(..from) else { return false };
        let mut tokens = Vec::new();
        word.tokens(Style::Bare, &mut tokens);
        let is_glob = word.frags.iter().all(|frag| match frag {
            Frag::Lit(_) => true,
            Frag::Glob(text) => !text.contains(['.', '{', '~']),
            _ => false,
        });
        node.permits_computed(name, &tokens[before.chars().count()..], is_glob)
    }

    /// `-exec COMMAND ;`: what is run is judged elsewhere.
    fn command(&mut self, at: usize, upto: usize, name: &str, opt: Opt) {
        if opt.effect != Effect::Free {
            self.need(at, upto, None, name, Why::Does(opt.effect));
        }
        let literal = |word: Option<&Word>| word.and_then(Word::literal);
        while let Some(word) = self.words.get(self.at) {
            let text = word.literal();
            let before = literal(self.words.get(self.at.wrapping_sub(1)));
            self.at += 1;
            if text.as_deref() == Some(";") || text.as_deref() == Some("+") && before.as_deref() == Some("{}")
            {
                return;
            }
        }
    }

    fn operand(&mut self, at: usize, text: &str) {
        let node = self.node();
        self.ended |= node.is("stop") || node.is("stop-late") && self.operands > 0;
        if node.has_children() {
            return self.subcommand(at, text);
        }
        self.operands += 1;
        if let Some((dialect, from)) = node.sql_operands
            && self.operands >= from
        {
            self.seen.push("SQL");
            return self.sql(at, dialect, Some(text));
        }
        let count = self.operands;
        let in_capitals = self.path.iter().any(|n| n.is("upper")).then(|| text.to_ascii_uppercase());
        let text = in_capitals.as_deref().unwrap_or(text);
        let is_free_target = FREE_TARGETS.contains(&text);
        let wrong = node.operands.iter().find(|operands| {
            let is_file = operands.effect == Effect::Write && matches!(operands.which, Which::Max(_));
            !(is_file && is_free_target) && operands.has_effect(text, count)
        });
        if let Some(operands) = wrong {
            self.need(at, text.len(), Some((at, 0)), text, Why::Does(operands.effect));
        }
    }

    fn subcommand(&mut self, at: usize, text: &str) {
        let parent = self.node();
        let in_capitals = parent.is("upper").then(|| text.to_ascii_uppercase());
        let Some(node) = parent.child(in_capitals.as_deref().unwrap_or(text)) else {
            self.done = true;
            return self.unknown(at, text, text.len(), "a subcommand");
        };
        if let Some(effect) = node.acts {
            self.need(at, text.len(), None, text, Why::Does(effect));
        }
        self.path.push(node);
        self.seen.push("COMMAND");
        self.operands = 0;
        self.done = node.is("anything");
        self.ended = false;
    }

    /// A word of which not all is known before it runs.
    fn computed(&mut self, at: usize, word: &Word) {
        let head = word.literal_head();
        if self.is_option(&head) {
            // `--tail=$X`: what follows the first blank are words of their own.
            if !self.gate && self.is_dangerous() && word.frags.iter().any(Frag::is_split) {
                self.could_be_option();
            }
            return self.option(at, &head, false);
        }
        if self.gate {
            // Which subcommand it is decides what the rest means.
            self.done = self.node().has_children();
            return;
        }
        let node = self.node();
        let limited = node.operands.iter().any(|operands| !operands.permits_head(&head));
        let open = node.has_children() || node.sql_operands.is_some() || limited;
        let could_be_option = !self.ended && word.could_start_with_dash();
        if self.is_dangerous() && (open || could_be_option) {
            self.could_be_option();
        }
        self.operands += 1;
    }

    fn sql(&mut self, at: usize, dialect: Dialect, text: Option<&str>) {
        let problem = match text {
            Some(text) => sql::check(dialect, text),
            None => Err("is computed".to_owned()),
        };
        if let Err(problem) = problem {
            let upto = text.map_or(0, str::len);
            self.needs.push(Need {
                word: Some(at),
                upto,
                value: None,
                what: "SQL".into(),
                why: Why::Text(problem),
            });
        }
    }

    /// `tar xzf FILE`: the first word is a cluster without a dash, whose values follow in order.
    fn bare_cluster(&mut self) {
        let Some(text) = self.words.first().and_then(Word::literal) else { return };
        if text.starts_with('-') || text.is_empty() {
            return;
        }
        self.at = 1;
        for (index, letter) in text.char_indices() {
            let name = format!("-{letter}");
            let upto = index + letter.len_utf8();
            match self.find(&name) {
                Some((node, opt)) => self.valued(0, upto, node, &name, opt, None, true),
                None => return self.unknown(0, &text, upto, "an option"),
            }
        }
    }
}
