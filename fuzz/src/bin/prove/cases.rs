//! The lines that are tried, and what each would do if nothing held it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::plain::{Rule, fits};
use crate::trace::Exec;
use crate::yard::{Seen, Who};

/// What kind of line it is, and so what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its harm must not be seen; under `*: allow` it must be.
    Attack(Harm),
    /// It must run what it runs under `*: allow`.
    Everyday,
    /// A line of the policy's own corpus, with the decision that stands there.
    Corpus(String),
    /// A line of the generator's.
    Generated,
}

/// How an attack is seen to have worked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Harm {
    /// A file whose name begins with `owned` is there.
    Owned,
    /// A program was executed as this pattern says.
    Runs(String),
    /// A path of this pattern is other than before.
    Changes(String),
}

impl Harm {
    /// Whether it was done.
    pub(crate) fn seen(&self, seen: &Seen) -> bool {
        match self {
            Self::Owned => seen
                .changes
                .iter()
                .any(|path| path.rsplit('/').next().is_some_and(|n| n.starts_with("owned"))),
            Self::Runs(pattern) => {
                let done = |exec: &&Exec| exec.error.is_none();
                seen.execs.iter().filter(done).any(|exec| fits(pattern, &exec.image.text()))
            }
            Self::Changes(pattern) => seen.changes.iter().any(|path| fits(pattern, path)),
        }
    }
}

/// Programs that get rights of their own: with a rule for one, a plain user has no gate, and
/// everyday lines are to be seen with one.
const PRIVILEGED: &[&str] = &["crontab", "mount", "ping", "sudo"];

impl Case {
    /// The rules as this user has them.
    pub(crate) fn rules_for(&self, who: Who) -> Vec<Rule> {
        let kept = |rule: &&Rule| {
            let name = rule.pattern.split([' ', '*']).next().unwrap_or_default();
            who == Who::Root || self.kind != Kind::Everyday || !PRIVILEGED.contains(&name)
        };
        self.rules.iter().filter(kept).cloned().collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) rules: Vec<Rule>,
    pub(crate) line: String,
    /// Only root is promised this.
    pub(crate) for_root: bool,
    /// Known not to be held yet; why.
    pub(crate) open: Option<String>,
    /// It is what its rule is for: the rule is named when it is loaded, and that is all.
    pub(crate) named: bool,
}

/// Reads `attacks.jsonl`, `options.jsonl` and `everyday.jsonl` of a folder, and the corpus.
pub(crate) fn read(fixtures: &Path, corpus: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    let attacks = ["attacks.jsonl", "options.jsonl"].map(|name| lines_of(&fixtures.join(name)));
    for value in attacks.into_iter().flatten() {
        let harm = value["harm"].as_str().unwrap_or("owned");
        let harm = match harm.split_once(' ') {
            None => Harm::Owned,
            Some(("runs", pattern)) => Harm::Runs(pattern.into()),
            Some(("changes", pattern)) => Harm::Changes(pattern.into()),
            Some(other) => panic!("no such harm: {other:?}"),
        };
        cases.push(case(Kind::Attack(harm), &value, rules_of(&value)));
    }
    let everyday: Vec<Rule> = std::iter::once(Rule::deny_all())
        .chain(text_of(&fixtures.join("everyday-rules.txt")).lines().map(Rule::read))
        .collect();
    for value in lines_of(&fixtures.join("everyday.jsonl")) {
        let rules = if value["rules"].is_array() { rules_of(&value) } else { everyday.clone() };
        cases.push(case(Kind::Everyday, &value, rules));
    }
    for case in &mut cases {
        let mut words = case.line.split_whitespace();
        case.for_root |= case.kind == Kind::Everyday && words.any(|word| PRIVILEGED.contains(&word));
    }
    cases.extend(corpus_of(&text_of(corpus)));
    cases
}

fn case(kind: Kind, value: &Value, rules: Vec<Rule>) -> Case {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Case {
        kind,
        name: text("name"),
        rules,
        line: text("line"),
        for_root: value["who"] == "root",
        open: value["open"].as_str().map(String::from),
        named: value["named"] == true,
    }
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn lines_of(path: &Path) -> Vec<Value> {
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display()));
    text_of(path).lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// `*: deny`, the preset that is named, and the rules that are written out.
fn rules_of(value: &Value) -> Vec<Rule> {
    let mut rules = Vec::new();
    if let Some(name) = value["preset"].as_str() {
        let preset = legwork_policy::preset(name).unwrap_or_else(|| panic!("no preset {name}"));
        rules.extend(preset.rules.iter().map(|(pattern, action)| Rule {
            pattern: (*pattern).into(),
            action: (*action).into(),
            any: false,
        }));
    }
    let own = value["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own: Vec<Rule> = own.iter().filter_map(Value::as_str).map(Rule::read).collect();
    if rules.is_empty() && own.first().is_none_or(|rule| rule.pattern != "*") {
        rules.push(Rule::deny_all());
    }
    rules.extend(own);
    rules
}

/// The corpus of `crates/policy/tests`.
fn corpus_of(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut rules: Vec<Rule> = Vec::new();
    let mut policy = "";
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix("policy ") {
            (policy, rules) = (name, Vec::new());
        } else if let Some(rule) = line.strip_prefix("rule ") {
            let (pattern, action) = rule.rsplit_once(" = ").unwrap_or((rule, "deny"));
            rules.push(Rule { pattern: pattern.into(), action: action.into(), any: false });
        } else {
            let mut fields = line.split('\t');
            let (decision, text) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            // As the corpus's own test reads it.
            let line = if text.contains("printf") || text.contains("$'") || text.contains("'s/") {
                text.to_owned()
            } else {
                text.replace("\\\\n", "\\\u{0}").replace("\\n", "\n").replace('\u{0}', "\n")
            };
            cases.push(Case {
                kind: Kind::Corpus(decision.into()),
                name: format!("{policy}:{}", number + 1),
                rules: rules.clone(),
                line,
                for_root: false,
                open: None,
                named: false,
            });
        }
    }
    cases
}
