//! The rules of a config file.

use std::path::{Path, PathBuf};

use legwork_policy::{Action, Policy, RuleError, RuleText, Tables};

use super::settings::{self, Reader};
use super::{ConfigError, Source, parse};
use legwork_yaml::{Entry, Node, Value};

/// All rules of a file.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// For shell lines; with none, all are denied.
    pub bash: Policy,
    /// For MCP servers; `bash` where there are none.
    pub mcp: Option<Policy>,
    /// Whether terminals may be opened.
    pub shell: bool,
    /// What commands inherit beside the usual, as far as rules are all that was read.
    pub env_pass: Vec<String>,
    /// The file with what the operator knows of programs.
    pub tables: Option<PathBuf>,
}

/// Reads only the rules of a config file: what `legwork policy` needs.
pub fn rules_of(source: &Source) -> Result<Rules, ConfigError> {
    let (file, env) = (source.path.display().to_string(), std::collections::BTreeMap::new());
    let mut reader = Reader::new(&file, parse(source)?, &env)?;
    let mut rules = read(&mut reader)?;
    rules.env_pass = reader.list("env.pass")?;
    if source.original {
        imply_children(&mut rules.bash, rules.mcp.as_mut());
    }
    // The other keys are none of our business here, but a misspelt rule is.
    match reader.unknown().into_iter().find(|(_, problem)| problem.contains("permission")) {
        Some((line, problem)) => {
            Err(ConfigError(format!("failed to load config: {file} line {line}: {problem}")))
        }
        None => Ok(rules),
    }
}

pub(super) fn read(r: &mut Reader<'_>) -> Result<Rules, ConfigError> {
    let mut included = Vec::new();
    let names = r.list("permission.include")?;
    for (index, name) in names.iter().enumerate() {
        let Some(preset) = legwork_policy::preset(name) else {
            return Err(no_preset(r, index, name)?);
        };
        included.extend(preset.rules.iter().map(|(pattern, action)| RuleText {
            pattern: (*pattern).into(),
            action: (*action).into(),
            ..RuleText::default()
        }));
    }
    let bash = section(r, "permission.bash", included)?;
    if bash.is_none() {
        r.note("permission.bash", "deny all", "default");
    }
    let tables = tables(r)?;
    let own = tables.as_ref().map(|(_, tables)| *tables);
    let bash = bash.unwrap_or_default().with_tables(own);
    let mcp = section(r, "permission.mcp", Vec::new())?.map(|mcp| mcp.with_tables(own));
    let words = [("allow", Some(true)), ("deny", Some(false)), ("auto", None)];
    let shell = r.word("permission.shell", &[], &words, "auto")?.unwrap_or_else(|| bash.allows_everything());
    let tables = tables.map(|(path, _)| path);
    Ok(Rules { bash, mcp, shell, env_pass: Vec::new(), tables })
}

/// What is said of a name in the list of presets that none of them has.
fn no_preset(r: &mut Reader<'_>, index: usize, name: &str) -> Result<ConfigError, ConfigError> {
    const KEY: &str = "permission.include";
    let line = match r.node(KEY)? {
        Some(Node { value: Value::List(items), line }) => items.get(index).map_or(line, |item| item.line),
        node => node.map_or(0, |node| node.line),
    };
    let known = || legwork_policy::PRESETS.iter().map(|preset| preset.name);
    let near = known().find(|known| settings::distance(known, &name.to_ascii_lowercase()) <= 2);
    let hint = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
    let known: Vec<&str> = known().collect();
    Ok(r.wrong(line, KEY, &format!("'{name}' is none of {}{hint}", known.join(", "))))
}

/// What the operator knows of programs, from a file of its own. A relative path begins where
/// the config file is.
fn tables(r: &mut Reader<'_>) -> Result<Option<(PathBuf, Tables)>, ConfigError> {
    const KEY: &str = "permission.tables";
    let Some(named) = r.optional(KEY, &[])? else { return Ok(None) };
    let folder = Path::new(r.file).parent().unwrap_or(Path::new(""));
    let path = folder.join(named);
    let text = std::fs::read_to_string(&path).map_err(|e| {
        ConfigError(format!("failed to load config: {}: {KEY}: {}: {e}", r.file, path.display()))
    })?;
    let tables = Tables::parse(&text)
        .map_err(|error| ConfigError(format!("failed to load config: {KEY}: {} {error}", path.display())))?;
    Ok(Some((path, tables)))
}

/// The rules of the original's file say nothing of what a program may start, and there it could
/// start anything: where that is what the program is for, or the table does not know it, it
/// stays so. Returns a warning that names the rules.
pub(super) fn imply_children(bash: &mut Policy, mcp: Option<&mut Policy>) -> Option<String> {
    let mut patterns = bash.imply_children();
    patterns.extend(mcp.map(Policy::imply_children).unwrap_or_default());
    patterns.dedup();
    (!patterns.is_empty()).then(|| {
        format!(
            "what these rules allow may start any other program, as with the original runner: '{}' (in a config of \
             legwork's own each exec is judged, and a rule says so with children: any)",
            patterns.join("', '")
        )
    })
}

/// Rules in the order of the file, after those that are included.
fn section(
    reader: &mut Reader<'_>,
    key: &'static str,
    included: Vec<RuleText>,
) -> Result<Option<Policy>, ConfigError> {
    let node = reader.node(key)?;
    let mut line = 0;
    let mut entries: &[Entry] = &[];
    if let Some(node) = &node {
        line = node.line;
        let Value::Map(found) = &node.value else {
            let problem =
                format!("expected a map of patterns to allow, ask or deny, found {}", node.value.kind());
            return Err(reader.wrong(node.line, key, &problem));
        };
        entries = found;
    } else if included.is_empty() {
        return Ok(None);
    }
    let own = entries.iter().map(|entry| rule(reader, key, entry)).collect::<Result<Vec<_>, _>>()?;
    // Own rules stand after the included ones, and for them where they are the same.
    let included: Vec<RuleText> = distinct(included, &own);
    let first_own = included.len();
    let policy = Policy::from_rules(included.into_iter().chain(own)).map_err(|error| {
        let line = error
            .index()
            .checked_sub(first_own)
            .and_then(|i| entries.get(i))
            .map_or(line, |entry| entry.line);
        let hint = match &error {
            RuleError::UnknownAction { action, .. } => ["allow", "ask", "deny"]
                .into_iter()
                .find(|word| settings::distance(word, &action.to_ascii_lowercase()) <= 2)
                .map_or_else(String::new, |word| format!(" (did you mean {word}?)")),
            _ => String::new(),
        };
        reader.wrong(line, key, &format!("{error}{hint}"))
    })?;
    let source = format!("{}:{line}", reader.file);
    reader.note(key, format!("{} rules", policy.rules().len()), source);
    Ok(Some(policy))
}

/// The last of equal rules, without those that are written out.
fn distinct(included: Vec<RuleText>, own: &[RuleText]) -> Vec<RuleText> {
    let mut kept: Vec<RuleText> = Vec::new();
    for rule in included {
        if own.iter().all(|o| o.pattern != rule.pattern) && kept.iter().all(|k| k.pattern != rule.pattern) {
            kept.push(rule);
        }
    }
    kept
}

/// `PATTERN: allow`, or a map with the action (`action: allow`, or the bare word `allow`), and
/// with what else there is to say: `{allow, children: any, match: […], not_match: […]}`.
fn rule(reader: &Reader<'_>, key: &str, entry: &Entry) -> Result<RuleText, ConfigError> {
    let wrong =
        |line: u64, problem: String| reader.wrong(line, key, &format!("rule '{}': {problem}", entry.key));
    let mut rule = RuleText { pattern: entry.key.clone(), ..RuleText::default() };
    match &entry.node.value {
        Value::Text(action) => rule.action.clone_from(action),
        Value::Map(fields) => {
            for field in fields {
                match (field.key.as_str(), &field.node.value) {
                    ("action", Value::Text(action)) => rule.action.clone_from(action),
                    (action, Value::Null) if Action::parse(action).is_some() && rule.action.is_empty() => {
                        rule.action = action.to_owned();
                    }
                    ("children", Value::Text(children)) => rule.children.clone_from(children),
                    ("children", other) => {
                        let problem = format!("children: expected any or judged, found {}", other.kind());
                        return Err(wrong(field.line, problem));
                    }
                    ("persons", Value::Int(persons)) => rule.persons = persons.to_string(),
                    ("persons", other) => {
                        return Err(wrong(
                            field.line,
                            format!("persons: expected 1 or 2, found {}", other.kind()),
                        ));
                    }
                    ("match", _) => rule.matches = lines(&field.node).map_err(|e| wrong(field.line, e))?,
                    ("not_match", _) => {
                        rule.not_matches = lines(&field.node).map_err(|e| wrong(field.line, e))?
                    }
                    ("action", other) => {
                        let problem = format!("action: expected allow, ask or deny, found {}", other.kind());
                        return Err(wrong(field.line, problem));
                    }
                    (other, _) => {
                        let problem = format!(
                            "unknown key {other} (there are action, children, persons, match and not_match)"
                        );
                        return Err(wrong(field.line, problem));
                    }
                }
            }
            if rule.action.is_empty() {
                return Err(wrong(entry.line, "action is missing".into()));
            }
        }
        other => {
            return Err(wrong(entry.line, format!("expected allow, ask or deny, found {}", other.kind())));
        }
    }
    Ok(rule)
}

fn lines(node: &Node) -> Result<Vec<String>, String> {
    let text = |node: &Node| match &node.value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(format!("expected lines of shell, found {}", other.kind())),
    };
    match &node.value {
        Value::List(items) => items.iter().map(text).collect(),
        _ => text(node).map(|line| vec![line]),
    }
}
