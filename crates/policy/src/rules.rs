//! The ordered rules of a policy, checked once when they are loaded.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pattern::Pattern;
use crate::programs::own::Tables;
use crate::verdict::Verdict;

/// What a rule says about the commands it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The command may run.
    Allow,
    /// A person must approve it first.
    Ask,
    /// The command may not run.
    Deny,
}

impl Action {
    /// Parses an action as a config spells it, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "allow" => Some(Self::Allow),
            "ask" => Some(Self::Ask),
            "deny" => Some(Self::Deny),
            _ => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        })
    }
}

/// What a program that a rule allows may start in turn, where each exec is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Children {
    /// What the rules allow, and the helpers that the table names for it.
    #[default]
    Judged,
    /// Anything: the rule is a rule for the whole tree beneath the program.
    Any,
}

impl Children {
    /// Parses the value of a rule's key `children`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "judged" => Some(Self::Judged),
            "any" => Some(Self::Any),
            _ => None,
        }
    }
}

/// One line of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(crate) pattern: Pattern,
    pub(crate) action: Action,
    pub(crate) children: Children,
    pub(crate) persons: u8,
}

impl Rule {
    /// The pattern as written.
    pub fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// What the rule says.
    pub fn action(&self) -> Action {
        self.action
    }

    /// How many people must say yes where it asks; 1 unless the rule says otherwise.
    pub fn persons(&self) -> u8 {
        self.persons
    }

    /// What the programs may start that run by this rule.
    pub fn children(&self) -> Children {
        self.children
    }

    /// Whether some command or redirection of a line matches, by this rule alone.
    fn matches_line(&self, line: &str) -> bool {
        let alone = Policy { rules: vec![self.clone()], ..Policy::default() };
        alone.judge(line).parts.iter().any(|part| !part.matched.is_empty())
    }

    /// Whether the rule is about a redirection (`> FILE`), not a command.
    pub(crate) fn is_redirect(&self) -> bool {
        self.pattern.as_str().starts_with("> ")
    }
}

/// Why a rule can't be loaded. `index` counts from 0 in file order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The action is none of allow, ask, deny.
    #[error("rule '{pattern}': unknown action '{action}' (use allow, ask or deny)")]
    UnknownAction {
        /// Place of the rule.
        index: usize,
        /// The rule's pattern.
        pattern: String,
        /// What stood for the action.
        action: String,
    },
    /// The pattern is empty.
    #[error("rule {}: empty pattern", index + 1)]
    EmptyPattern {
        /// Place of the rule.
        index: usize,
    },
    /// The pattern holds a control character, which no command text can match.
    #[error("rule {pattern:?}: control character in pattern")]
    ControlCharacter {
        /// Place of the rule.
        index: usize,
        /// The rule's pattern.
        pattern: String,
    },
    /// A `{type}` that does not exist.
    #[error(
        "rule '{pattern}': unknown type {unknown} (there are {{word}}, {{int}} and {{path:/folder}}, with an absolute \
         folder without '..')"
    )]
    UnknownType {
        /// Place of the rule.
        index: usize,
        /// The rule's pattern.
        pattern: String,
        /// What stood in braces.
        unknown: String,
    },
    /// The rule's own examples show that it does not say what it was meant to.
    #[error("rule '{pattern}': {problem}")]
    Example {
        /// Place of the rule.
        index: usize,
        /// The rule's pattern.
        pattern: String,
        /// What does not fit.
        problem: String,
    },
    /// The key `children` has a value that means nothing.
    #[error("rule '{pattern}': unknown children '{children}' (use any, or judged, which is the default)")]
    UnknownChildren {
        /// Place of the rule.
        index: usize,
        /// The rule's pattern.
        pattern: String,
        /// What stood for the value.
        children: String,
    },
    /// The rule speaks of the children of a program that it does not let run.
    #[error(
        "rule '{pattern}': children says what an allowed program may start; this rule is {action} and about {about}"
    )]
    ChildrenOfNothing {
        /// Place of the rule.
        index: usize,
        /// The rule's pattern.
        pattern: String,
        /// What the rule says.
        action: Action,
        /// What the rule is about.
        about: &'static str,
    },
    /// The key `persons` has a value that means nothing, or stands where nobody is asked.
    #[error("rule '{pattern}': persons: {problem}")]
    Persons {
        /// Place of the rule.
        index: usize,
        /// The rule's pattern.
        pattern: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// The same pattern stands twice.
    #[error("rule '{pattern}' is written twice; remove one of them")]
    Duplicate {
        /// Place of the second one.
        index: usize,
        /// The rule's pattern.
        pattern: String,
    },
}

/// Something about loaded rules an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The rule it is about.
    pub pattern: String,
    /// What sort of thing it is.
    pub kind: NoteKind,
    /// What to know.
    pub message: String,
}

/// What is known of the programs that rules let run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// All may run.
    Any,
    /// A rule whose program is a wildcard, or whose program may start anything: they can't
    /// be listed.
    Wildcard(String),
    /// These, in order.
    These(Vec<String>),
}

/// What sort of thing a [`Note`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// The rule never decides.
    Dead,
    /// The rule lets through more than its text says.
    Dangerous,
    /// The rule allows nothing.
    Ineffective,
    /// The rule takes away from `*: allow`.
    CarveOut,
    /// The original would have applied the rules in another order.
    Order,
}

/// A rule as a config writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    /// What a command must look like for the rule to speak of it.
    pub pattern: String,
    /// allow, ask or deny.
    pub action: String,
    /// `any`, or `judged`, which an empty text means as well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub children: String,
    /// How many people must say yes where the rule asks: `1`, which an empty text means as well, or `2`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub persons: String,
    /// Lines that the rule must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<String>,
    /// Lines that it must not match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_matches: Vec<String>,
}

impl RuleError {
    /// The place of the rule in the list, from 0.
    pub fn index(&self) -> usize {
        match self {
            Self::UnknownAction { index, .. }
            | Self::EmptyPattern { index }
            | Self::ControlCharacter { index, .. }
            | Self::Example { index, .. }
            | Self::UnknownType { index, .. }
            | Self::UnknownChildren { index, .. }
            | Self::ChildrenOfNothing { index, .. }
            | Self::Persons { index, .. }
            | Self::Duplicate { index, .. } => *index,
        }
    }
}

/// An ordered, checked list of rules, with the names the commands' environment
/// will hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub(crate) rules: Vec<Rule>,
    pub(crate) env_names: BTreeSet<String>,
    /// Each exec will be judged as well, so what bash computes may be left to that.
    pub(crate) exec_gate: bool,
    /// What the operator knows of programs beside the built-in table.
    pub(crate) tables: Option<Tables>,
    /// Patterns of rules that ask, and to which people have said yes.
    pub(crate) approved: BTreeSet<String>,
}

impl Policy {
    /// Builds a policy from `(pattern, action)` pairs in file order.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, RuleError> {
        Self::from_rules(pairs.into_iter().map(|(pattern, action)| RuleText {
            pattern: pattern.to_owned(),
            action: action.to_owned(),
            ..RuleText::default()
        }))
    }

    /// Builds a policy from rules in file order, and checks their examples.
    pub fn from_rules(texts: impl IntoIterator<Item = RuleText>) -> Result<Self, RuleError> {
        let mut rules = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, text) in texts.into_iter().enumerate() {
            let RuleText { pattern, action, children, persons, matches, not_matches } = text;
            if pattern.trim().is_empty() {
                return Err(RuleError::EmptyPattern { index });
            }
            if pattern.chars().any(char::is_control) {
                return Err(RuleError::ControlCharacter { index, pattern });
            }
            let Some(action) = Action::parse(&action) else {
                return Err(RuleError::UnknownAction { index, pattern, action });
            };
            let children = match children.as_str() {
                "" => Children::Judged,
                given => match Children::parse(given) {
                    Some(children) => children,
                    None => return Err(RuleError::UnknownChildren { index, pattern, children }),
                },
            };
            let persons = match (persons.as_str(), action) {
                ("", _) => 1,
                (_, Action::Allow | Action::Deny) => {
                    let problem = "only a rule that says ask has people who are asked";
                    return Err(RuleError::Persons { index, pattern, problem });
                }
                ("1", Action::Ask) => 1,
                ("2", Action::Ask) => 2,
                _ => return Err(RuleError::Persons { index, pattern, problem: "use 1 or 2" }),
            };
            if let Some(unknown) = Pattern::unknown_type(&pattern) {
                return Err(RuleError::UnknownType { index, pattern, unknown });
            }
            let rule = Rule { pattern: Pattern::of_rule(&pattern), action, children, persons };
            if children == Children::Any && (action != Action::Allow || rule.is_redirect()) {
                let about = if rule.is_redirect() { "a file that is written" } else { "a command" };
                return Err(RuleError::ChildrenOfNothing { index, pattern, action, about });
            }
            for (line, wanted) in
                matches.iter().map(|l| (l, true)).chain(not_matches.iter().map(|l| (l, false)))
            {
                if rule.matches_line(line) != wanted {
                    let verb = if wanted { "does not match its example" } else { "matches, but should not," };
                    return Err(RuleError::Example { index, pattern, problem: format!("{verb} '{line}'") });
                }
            }
            if !seen.insert(pattern.clone()) {
                return Err(RuleError::Duplicate { index, pattern });
            }
            rules.push(rule);
        }
        Ok(Self { rules, ..Self::default() })
    }

    /// The policy that denies everything: what holds where none is configured.
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// Tells the policy which variables the commands inherit: to assign one of
    /// them is to export it (point 14).
    #[must_use]
    pub fn with_env_names(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.env_names = names.into_iter().collect();
        self
    }

    /// Tells the policy that an exec gate will judge each program's real arguments before
    /// it starts, by these same rules ([`Policy::judge_exec`]): the reading then refuses
    /// only what certainly is not allowed.
    #[must_use]
    pub fn with_exec_gate(mut self, in_force: bool) -> Self {
        self.exec_gate = in_force;
        self
    }

    /// What the operator knows of programs: it counts beside the built-in table, and before it.
    #[must_use]
    pub fn with_tables(mut self, tables: Option<Tables>) -> Self {
        self.tables = tables;
        self
    }

    /// Lets the exec gate pass what these rules ask about, given by their patterns: people have
    /// seen the line and said yes to it. Rules that deny are not touched, and neither is the
    /// reading, which still says that the line asks.
    #[must_use]
    pub fn with_approved(mut self, patterns: impl IntoIterator<Item = String>) -> Self {
        self.approved = patterns.into_iter().collect();
        self
    }

    /// How many people must say yes to a line of this verdict.
    pub fn persons_for(&self, verdict: &Verdict) -> u8 {
        let persons =
            |pattern: &str| self.rules.iter().find(|rule| rule.pattern() == pattern).map(Rule::persons);
        verdict.asks().filter_map(persons).max().unwrap_or(1)
    }

    /// Has the operator's table count until the guard is dropped.
    pub(crate) fn own_tables(&self) -> impl Drop + use<> {
        crate::programs::own::in_force(self.tables)
    }

    /// The rules in file order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Judges a line. Never panics and never runs anything.
    pub fn judge(&self, line: &str) -> Verdict {
        // Operator chains nest as deep as they are long, in both parsers and in
        // the walk. Long lines get a stack that 64 KiB of `a&&a&&…` can't exhaust;
        // it is reserved, not committed.
        const INLINE_BYTES: usize = 1024;
        const DEEP_STACK: usize = 512 << 20;
        let judge = || {
            let _tables = self.own_tables();
            crate::judge::judge(self, line)
        };
        if line.len() <= INLINE_BYTES {
            return judge();
        }
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("policy".into())
                .stack_size(DEEP_STACK)
                .spawn_scoped(scope, judge)
                .map_err(|_| ())
                .and_then(|thread| thread.join().map_err(|_| ()))
                .unwrap_or_else(|()| Verdict::refused(line, "the line could not be analysed"))
        })
    }

    /// Judges a program with its arguments, which no shell will read (27).
    pub fn judge_argv(&self, argv: &[String]) -> Verdict {
        let words: Vec<String> = argv.iter().map(|word| crate::quote::single_quoted(word)).collect();
        self.judge(&words.join(" "))
    }

    /// Judges a shell that somebody will type into, by the rules for its name alone: what it will
    /// be told can't be read. Who starts it has each program that it executes judged.
    pub fn judge_shell(&self, name: &str) -> Verdict {
        let _tables = self.own_tables();
        crate::judge::shell(self, name)
    }

    /// The programs that rules let run.
    pub fn programs(&self) -> Named {
        if self.trusts() {
            return Named::Any;
        }
        let mut names = BTreeSet::new();
        for rule in self.live_rules().iter().filter(|r| r.action != Action::Deny && !r.is_redirect()) {
            let name = crate::exec::program_of(rule.pattern());
            if !Pattern::spells(name) || rule.children == Children::Any {
                return Named::Wildcard(rule.pattern().to_owned());
            }
            names.insert(name.to_owned());
        }
        Named::These(names.into_iter().collect())
    }

    /// The programs that rules name and the table knows to sign in somewhere, each with the
    /// paths (`~/…`) that it reads for that.
    pub fn credentials(&self) -> Vec<(String, &'static [&'static str])> {
        let rules = self.live_rules().iter().filter(|r| r.action != Action::Deny && !r.is_redirect());
        let names: BTreeSet<&str> = rules.map(|rule| crate::exec::program_of(rule.pattern())).collect();
        let known = names.into_iter().map(|name| (name.to_owned(), crate::programs::credentials(name)));
        known.filter(|(_, paths)| !paths.is_empty()).collect()
    }

    /// Whether a rule writes out that a variable is exported with this very value.
    pub(crate) fn spells_export(&self, assignment: &str) -> bool {
        self.live_rules().iter().filter(|rule| rule.action == Action::Allow && rule.pattern.is_exact()).any(
            |rule| {
                rule.pattern()
                    .strip_prefix("export ")
                    .is_some_and(|set| set.split(' ').any(|set| set == assignment))
            },
        )
    }

    /// Whether the policy is `*: allow` and nothing takes away from it.
    pub fn allows_everything(&self) -> bool {
        self.trusts() && self.live_rules().len() == 1
    }

    /// Whether the policy is `*: allow`, perhaps with carve-outs after it (23).
    pub(crate) fn trusts(&self) -> bool {
        self.live_rules().first().is_some_and(|r| r.pattern.is_star() && r.action == Action::Allow)
    }

    /// The rules from the last `*` on: those before it can never decide (1).
    pub(crate) fn live_rules(&self) -> &[Rule] {
        let start = self.rules.iter().rposition(|r| r.pattern.is_star()).unwrap_or(0);
        &self.rules[start..]
    }
}

/// The form in which a policy goes to the process that judges execs by it.
#[derive(Serialize, Deserialize)]
struct Stored {
    rules: Vec<RuleText>,
    #[serde(default)]
    env_names: BTreeSet<String>,
    #[serde(default)]
    exec_gate: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    tables: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    approved: BTreeSet<String>,
}

impl Serialize for Policy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rules = self.rules.iter().map(|rule| RuleText {
            pattern: rule.pattern().to_owned(),
            action: rule.action.to_string(),
            children: if rule.children == Children::Any { "any".into() } else { String::new() },
            persons: if rule.persons > 1 { rule.persons.to_string() } else { String::new() },
            ..RuleText::default()
        });
        let tables = self.tables.as_ref().map(|tables| tables.text().to_owned()).unwrap_or_default();
        let (env_names, exec_gate) = (self.env_names.clone(), self.exec_gate);
        let approved = self.approved.clone();
        Stored { rules: rules.collect(), env_names, exec_gate, tables, approved }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Stored { rules, env_names, exec_gate, tables, approved } = Stored::deserialize(deserializer)?;
        let policy = Self::from_rules(rules).map_err(serde::de::Error::custom)?;
        let tables = match tables.as_str() {
            "" => None,
            text => Some(Tables::parse(text).map_err(serde::de::Error::custom)?),
        };
        let policy = policy.with_env_names(env_names).with_exec_gate(exec_gate).with_tables(tables);
        Ok(policy.with_approved(approved))
    }
}
