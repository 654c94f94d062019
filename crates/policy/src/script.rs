//! What a line would do, as far as it can be known before it runs: the common
//! ground of the parsers and the judge.

use std::collections::BTreeSet;

use crate::pattern::Token;
use crate::quote::{Expansion, Piece, Value, double_quoted, single_quoted};
use crate::verdict::Span;

/// Stands for computed text when the two parsers' findings are compared.
const COMPUTED: char = '\u{1}';

/// A part of a word after quote removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frag {
    /// Known text.
    Lit(String),
    /// Glob, brace or tilde: the text as written, unknown once it is expanded.
    Glob(String),
    /// A path that is filled in as (part of) one word and does not begin with a dash.
    Path,
    /// The value of a variable, as it is.
    Variable { name: String, quoted: bool },
    /// Digits, at least one.
    Number,
    /// Another expansion. Unquoted, it may become several words or none.
    Unknown { quoted: bool },
}

impl Frag {
    /// Whether bash splits its value into words: several, or none.
    pub(crate) fn is_split(&self) -> bool {
        matches!(self, Self::Unknown { quoted: false } | Self::Variable { quoted: false, .. })
    }
}

impl From<&Expansion> for Frag {
    fn from(expansion: &Expansion) -> Self {
        let quoted = expansion.quoted;
        match &expansion.value {
            Value::Unknown => Self::Unknown { quoted },
            Value::Variable(name) => Self::Variable { name: name.clone(), quoted },
            Value::Number => Self::Number,
            Value::Path => Self::Path,
        }
    }
}

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) frags: Vec<Frag>,
    /// The word as written.
    pub(crate) raw: String,
}

impl Word {
    /// A word that is literal throughout.
    pub(crate) fn of(text: &str) -> Self {
        Self { frags: vec![Frag::Lit(text.to_owned())], raw: text.to_owned() }
    }

    /// Builds a word from its pieces, finding what bash would still expand.
    pub(crate) fn from_pieces(pieces: &[Piece], raw: &str) -> Self {
        // Most words have nothing in them that bash would expand.
        let plain = |piece: &Piece| match piece {
            Piece::Text { quoted: true, .. } => true,
            Piece::Text { text, quoted: false } => !text.contains(['*', '?', '[', '{', '~']),
            Piece::Expansion(_) => false,
        };
        if pieces.iter().all(plain) {
            let len =
                pieces.iter().map(|p| if let Piece::Text { text, .. } = p { text.len() } else { 0 }).sum();
            let mut whole = String::with_capacity(len);
            for piece in pieces {
                if let Piece::Text { text, .. } = piece {
                    whole.push_str(text);
                }
            }
            let frags = if whole.is_empty() { Vec::new() } else { vec![Frag::Lit(whole)] };
            return Self { frags, raw: raw.to_owned() };
        }
        // One flat list of characters, so that patterns which span quotes
        // (`{a",b"}`) are seen whole.
        #[derive(Clone, Copy)]
        enum Item<'a> {
            Char(char, bool),
            Expansion(&'a Expansion),
        }
        let mut items = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text { text, quoted } => items.extend(text.chars().map(|c| Item::Char(c, *quoted))),
                Piece::Expansion(expansion) => items.push(Item::Expansion(expansion)),
            }
        }
        let bare = |i: usize, set: &str| matches!(items[i], Item::Char(c, false) if set.contains(c));
        let last_of = |set: &str| (0..items.len()).rev().find(|i| bare(*i, set));
        let last_bracket = last_of("]");
        let last_brace = last_of("}").filter(|end| {
            let any =
                |set: &str| items[..*end].iter().any(|i| matches!(i, Item::Char(c, _) if set.contains(*c)));
            any(",") || any(".")
        });
        let mut frags: Vec<Frag> = Vec::new();
        let mut until = 0; // everything before this item is part of a glob
        let mut after_sign = true; // a tilde expands here
        for (i, item) in items.iter().enumerate() {
            let Item::Char(c, quoted) = *item else {
                let Item::Expansion(expansion) = *item else { continue };
                frags.push(expansion.into());
                after_sign = false;
                continue;
            };
            if !quoted && i >= until {
                let end = match c {
                    '*' | '?' => Some(i + 1),
                    '[' => last_bracket.filter(|e| *e > i).map(|e| e + 1),
                    '{' => last_brace.filter(|e| *e > i).map(|e| e + 1),
                    '~' if after_sign => {
                        Some((i..items.len()).find(|j| bare(*j, "/:")).unwrap_or(items.len()))
                    }
                    _ => None,
                };
                until = end.unwrap_or(until);
            }
            after_sign = !quoted && matches!(c, '=' | ':');
            match frags.last_mut() {
                Some(Frag::Glob(text)) if i < until => text.push(c),
                _ if i < until => frags.push(Frag::Glob(c.into())),
                Some(Frag::Lit(text)) => text.push(c),
                _ => frags.push(Frag::Lit(c.into())),
            }
        }
        Self { frags, raw: raw.to_owned() }
    }

    /// The word's value, if bash computes nothing in it.
    pub(crate) fn literal(&self) -> Option<String> {
        self.frags
            .iter()
            .map(|f| match f {
                Frag::Lit(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The word's value as it is nearly always found: one run of text, or nothing.
    pub(crate) fn run(&self) -> Option<&str> {
        match self.frags.as_slice() {
            [] => Some(""),
            [Frag::Lit(text)] => Some(text),
            _ => None,
        }
    }

    /// The known text the word surely begins with.
    pub(crate) fn literal_head(&self) -> String {
        match self.frags.first() {
            Some(Frag::Lit(text)) => text.clone(),
            _ => String::new(),
        }
    }

    /// Whether the word is a whole number, or a brace range of them.
    pub(crate) fn is_numeric(&self) -> bool {
        let integer = |t: &str| {
            let digits = t.strip_prefix('-').unwrap_or(t);
            !digits.is_empty() && digits.len() < 19 && digits.bytes().all(|b| b.is_ascii_digit())
        };
        match self.frags.as_slice() {
            [Frag::Lit(text)] => integer(text),
            [Frag::Glob(text)] => text
                .strip_prefix('{')
                .and_then(|t| t.strip_suffix('}'))
                .is_some_and(|t| t.split("..").all(integer)),
            _ => false,
        }
    }

    /// The word as both parsers must see it.
    pub(crate) fn signature(&self) -> String {
        let mut out = String::new();
        self.sign(&mut out);
        out
    }

    fn sign(&self, out: &mut String) {
        for frag in &self.frags {
            match frag {
                Frag::Lit(text) | Frag::Glob(text) => out.push_str(text),
                _ => out.push(COMPUTED),
            }
        }
    }

    /// Whether patterns see the word in quotes.
    pub(crate) fn holds_blank(&self) -> bool {
        self.frags.is_empty()
            || self.frags.iter().any(|f| matches!(f, Frag::Lit(t) if t.chars().any(char::is_whitespace)))
    }

    fn may_vanish(&self) -> bool {
        !self.frags.is_empty() && self.frags.iter().all(Frag::is_split)
    }

    /// The word's tokens; a word that is empty or holds a blank keeps quotes (7).
    pub(crate) fn tokens(&self, style: Style, out: &mut Vec<Token>) {
        let chars = |text: &str, out: &mut Vec<Token>| out.extend(text.chars().map(Token::Char));
        if self.holds_blank()
            && style != Style::Bare
            && let Some(text) = self.literal()
        {
            let quoted = match style {
                Style::Single => single_quoted(&text),
                Style::Double | Style::Bare => double_quoted(&text),
            };
            return chars(&quoted, out);
        }
        for frag in &self.frags {
            match frag {
                Frag::Lit(text) => chars(text, out),
                Frag::Glob(text) if text.starts_with('~') => out.push(Token::WordGap),
                Frag::Glob(_) => out.push(Token::Gap),
                frag if frag.is_split() => out.push(Token::Gap),
                _ => out.push(Token::WordGap),
            }
        }
    }

    /// The word as a person reads it in an answer.
    pub(crate) fn display(&self) -> String {
        match self.run() {
            Some(text) if !self.holds_blank() => text.to_owned(),
            Some(_) => self.raw.clone(),
            None => self.literal().filter(|_| !self.holds_blank()).unwrap_or_else(|| self.raw.clone()),
        }
    }
}

/// How words that need quotes are shown to a pattern: a rule may be written with
/// either kind, and a deny rule also with none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Single,
    Double,
    Bare,
}

/// A variable set by the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    /// `None` for arrays and for values that only a builtin knows.
    pub(crate) value: Option<Word>,
    pub(crate) append: bool,
    /// Whether the value is surely a number.
    pub(crate) numeric: bool,
    pub(crate) span: Span,
}

impl Assignment {
    /// Whether bash evaluates the value as arithmetic, and it is not surely a number.
    pub(crate) fn evaluates(&self) -> bool {
        crate::names::is_integer(&self.name)
            && !self.value.as_ref().and_then(Word::literal).is_some_and(|text| crate::names::is_number(&text))
            && !(self.numeric && self.value.is_none())
    }
}

/// A simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) words: Vec<Word>,
    pub(crate) prefixes: Vec<Assignment>,
    pub(crate) span: Span,
}

impl Command {
    /// The text of one of the assignments before the command.
    pub(crate) fn prefix_tokens(&self, index: usize, style: Style) -> Vec<Token> {
        let prefix = &self.prefixes[index];
        let mut out: Vec<Token> = prefix.name.chars().map(Token::Char).collect();
        out.extend(prefix.append.then_some(Token::Char('+')));
        out.push(Token::Char('='));
        match &prefix.value {
            Some(value) if value.frags.is_empty() => {}
            Some(value) => value.tokens(style, &mut out),
            None => out.push(Token::Gap),
        }
        out
    }

    /// The matched text of point 7, with `skip` leading words left out.
    pub(crate) fn tokens(&self, style: Style, with_prefixes: bool) -> Vec<Token> {
        let mut out = Vec::with_capacity(self.words.iter().map(|w| w.raw.len() + 3).sum());
        if with_prefixes {
            for prefix in 0..self.prefixes.len() {
                out.extend(self.prefix_tokens(prefix, style));
                out.push(Token::Char(' '));
            }
        }
        tokens_of(&self.words, style, &mut out);
        out
    }

    /// The command's text with its first word replaced by its last path component.
    pub(crate) fn tokens_without_directory(&self, style: Style) -> Option<Vec<Token>> {
        let name = self.words.first()?.literal()?;
        let (_, base) = name.rsplit_once('/')?;
        let mut words = self.words.clone();
        words[0].frags = vec![Frag::Lit(base.to_owned())];
        let mut out = Vec::new();
        tokens_of(&words, style, &mut out);
        Some(out)
    }

    pub(crate) fn display(&self) -> String {
        let mut out = String::with_capacity(64);
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                out.push(' ');
            }
            match word.run() {
                Some(text) if !word.holds_blank() => out.push_str(text),
                _ => out.push_str(&word.display()),
            }
        }
        out
    }

    pub(crate) fn display_with_prefixes(&self) -> String {
        let mut out = String::new();
        for prefix in &self.prefixes {
            let value = prefix.value.as_ref().map_or_else(|| "(…)".into(), |v| v.raw.clone());
            out.push_str(&format!("{}{}={value} ", prefix.name, if prefix.append { "+" } else { "" }));
        }
        out + &self.display()
    }
}

fn tokens_of(words: &[Word], style: Style, out: &mut Vec<Token>) {
    for (index, word) in words.iter().enumerate() {
        if !word.may_vanish() {
            out.extend((index > 0).then_some(Token::Char(' ')));
            word.tokens(style, out);
            continue;
        }
        let mut tokens = Vec::new();
        if index > 0 {
            tokens.push(Token::Char(' '));
        }
        word.tokens(style, &mut tokens);
        if index > 0 {
            out.push(Token::MayVanish(tokens.len()));
        }
        out.extend(tokens);
    }
}

/// What a redirection does with its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedirectUse {
    Read,
    Write,
    /// Duplicates or closes a descriptor, or feeds literal text.
    Inert,
}

/// A redirection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) operator: &'static str,
    pub(crate) usage: RedirectUse,
    /// `None` for here-documents.
    pub(crate) target: Option<Word>,
    /// Whatever bash computes, the target is a file.
    pub(crate) no_network: bool,
    pub(crate) span: Span,
}

/// A construct that no rule can allow under a strict policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) text: String,
    pub(crate) reason: String,
    pub(crate) span: Span,
}

/// A variable whose text arithmetic evaluates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evaluated {
    pub(crate) name: String,
    pub(crate) span: Span,
    /// Something harmless can be printed instead of it.
    pub(crate) replaceable: bool,
}

/// All that was found in a line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) commands: Vec<Command>,
    pub(crate) redirects: Vec<Redirect>,
    /// Assignments that stand alone, loop variables and the like.
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) refused: Vec<Refused>,
    /// The words of loops, as both parsers must see them.
    pub(crate) lists: Vec<String>,
    /// Variables that arithmetic evaluates.
    pub(crate) evaluated: Vec<Evaluated>,
    /// Assignments before a command that is not read yet.
    pub(crate) pending: Vec<Assignment>,
    /// A builtin sets variables from data: none is surely what the line sets it to.
    pub(crate) sets_from_data: bool,
    /// The functions that the line defines.
    pub(crate) functions: BTreeSet<String>,
    /// What was found, printed back: what is to run.
    pub(crate) printed: String,
    /// The same before it was known which variables hold numbers.
    pub(crate) unfinished: String,
    /// Only simple commands of literal words: bash can't find an error in the printing.
    pub(crate) plain: bool,
}

impl Script {
    /// What the other parser must have seen as well, in no particular order.
    pub(crate) fn signature(&self) -> Vec<String> {
        let mut out: Vec<String> = self.lists.clone();
        for command in &self.commands {
            out.push(signature(command.prefixes.iter().map(|p| p.name.as_str()), &command.words));
        }
        for redirect in self.redirects.iter().filter(|r| r.usage != RedirectUse::Inert || r.operator == "<<<")
        {
            let target = redirect.target.as_ref().map(Word::signature).unwrap_or_default();
            out.push(redirect_signature(redirect.operator, &target));
        }
        out.sort_unstable();
        out
    }
}

/// A command as both parsers must see it.
pub(crate) fn signature<'a>(prefixes: impl IntoIterator<Item = &'a str>, words: &[Word]) -> String {
    let mut out = String::with_capacity(64);
    for (index, prefix) in prefixes.into_iter().enumerate() {
        if index > 0 {
            out.push('\u{3}');
        }
        out.push_str(prefix);
    }
    out.push('\u{2}');
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            out.push('\u{3}');
        }
        word.sign(&mut out);
    }
    out
}

/// The words of a loop as both parsers must see them.
pub(crate) fn list_signature(words: &[Word]) -> String {
    format!("\u{5}{}", signature([], words))
}

/// A redirection as both parsers must see it.
pub(crate) fn redirect_signature(operator: &str, target: &str) -> String {
    // Two spellings of one thing.
    let operator = if operator == ">&" { "&>" } else { operator };
    format!("\u{4}{operator}\u{3}{target}")
}
