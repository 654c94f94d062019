//! Variables of hosts, and templates that they fill in: Jinja, worked on here.
//!
//! A variable may itself be a template (`url: "http://{{ inventory_hostname }}/"`). What hosts
//! say of themselves (`facts`) is never read as one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde_json::{Map, Value as Json};

use super::inventory::{Inventory, VAULT};
use crate::commands::exec::quoted;

/// Variables that are templates of variables that are templates.
const MAX_DEPTH: usize = 20;
/// Steps of one template: it ends.
const FUEL: u64 = 20_000_000;
/// What is written at once.
const MAX_OUTPUT: usize = 7 * 1024 * 1024;

/// The engine, with what templates may include.
#[derive(Debug, Clone)]
pub(crate) struct Engine(Arc<Environment<'static>>);

impl Default for Engine {
    fn default() -> Self {
        Self::beside(None)
    }
}

impl Engine {
    /// With a folder of templates.
    fn beside(folder: Option<&Path>) -> Self {
        let mut engine = Environment::new();
        // As Ansible has it: the newline after a block is the block's.
        let syntax = SyntaxConfig::builder().trim_blocks(true).keep_trailing_newline(true).build();
        engine.set_syntax(syntax.unwrap_or_default());
        engine.set_undefined_behavior(UndefinedBehavior::Strict);
        engine.set_auto_escape_callback(|_| AutoEscape::None);
        engine.set_fuel(Some(FUEL));
        engine.set_auto_reload(false);
        if let Some(folder) = folder {
            engine.set_loader(minijinja::path_loader(folder));
        }
        engine.add_filter("quote", |text: String| quoted(&text));
        engine.add_filter("bool", |value: Value| match value.as_str() {
            Some(text) => matches!(text.to_ascii_lowercase().as_str(), "yes" | "true" | "on" | "1"),
            None => value.is_true(),
        });
        engine.add_filter("to_json", |value: Serde<Json>| value.0.to_string());
        engine.add_filter("tojson", |value: Serde<Json>| value.0.to_string());
        engine.add_filter("to_nice_json", |value: Serde<Json>| {
            serde_json::to_string_pretty(&value.0).unwrap_or_default()
        });
        engine.add_filter("b64encode", |text: String| {
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
        });
        Self(Arc::new(engine))
    }

    /// A value of variables, where one may be a template.
    fn value(&self, of: &Arc<Variables>, json: &Json) -> Value {
        match json {
            Json::String(text) if text.starts_with(VAULT) => {
                Value::from(Error::new(ErrorKind::InvalidOperation, "it is locked up in a vault"))
            }
            Json::String(text) if is_template(text) => self.text(of, text).unwrap_or_else(Value::from),
            Json::Array(items) => items.iter().map(|item| self.value(of, item)).collect(),
            Json::Object(map) => {
                let items = map.iter().map(|(name, item)| (name.clone(), self.value(of, item)));
                Value::from(items.collect::<BTreeMap<String, Value>>())
            }
            other => Value::from(Serde(other)),
        }
    }

    fn text(&self, of: &Arc<Variables>, text: &str) -> Result<Value, Error> {
        let depth = of.depth.fetch_add(1, Ordering::Relaxed);
        let result = if depth < MAX_DEPTH {
            let context = Value::from_dyn_object(Arc::clone(of));
            // An expression alone keeps its type: a list is a list.
            let alone = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
            match alone.filter(|inside| !inside.contains("{{") && !inside.contains("}}")) {
                Some(inside) => self
                    .0
                    .compile_expression_owned(inside.to_owned())
                    .and_then(|expression| expression.eval(context)),
                None => self.0.render_str(text, context).map(Value::from),
            }
        } else {
            Err(Error::new(ErrorKind::InvalidOperation, "variables refer to each other without an end"))
        };
        of.depth.fetch_sub(1, Ordering::Relaxed);
        result
    }
}

fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// The variables of one host, worked out when they are asked for.
#[derive(Debug)]
pub(crate) struct Variables {
    engine: Engine,
    own: Map<String, Json>,
    /// Not templates, whatever they hold: `facts`, `groups`.
    given: Map<String, Json>,
    hosts: Option<Arc<Inventory>>,
    depth: AtomicUsize,
}

impl Variables {
    /// Those of an inventory's host, and more that win.
    pub(crate) fn of(
        engine: &Engine,
        inventory: &Arc<Inventory>,
        host: &str,
        more: &Map<String, Json>,
        facts: Option<&Json>,
    ) -> Result<Arc<Self>> {
        let mut own = inventory.variables(host)?;
        own.extend(more.clone());
        let mut given = inventory.about(host);
        given.extend(facts.map(|facts| ("facts".to_owned(), facts.clone())));
        Ok(Self::new(engine, own, given, Some(Arc::clone(inventory))))
    }

    pub(crate) fn new(
        engine: &Engine,
        own: Map<String, Json>,
        given: Map<String, Json>,
        hosts: Option<Arc<Inventory>>,
    ) -> Arc<Self> {
        Arc::new(Self { engine: engine.clone(), own, given, hosts, depth: AtomicUsize::new(0) })
    }

    /// A variable as text; `None`: it is not set, or to nothing.
    pub(crate) fn text(self: &Arc<Self>, name: &str) -> Result<Option<String>> {
        let value = match self.own.get(name) {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::String(text)) if is_template(text) => {
                self.engine.text(self, text).map_err(|error| explain(&error).context(name.to_owned()))?
            }
            Some(other) => self.engine.value(self, other),
        };
        Ok((!value.is_none()).then(|| value.to_string()).filter(|text| !text.is_empty()))
    }
}

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        if let Some(given) = self.given.get(name) {
            return Some(Value::from(Serde(given)));
        }
        if let (Some(inventory), "hostvars") = (&self.hosts, name) {
            return Some(Value::from_object(Others(self.engine.clone(), Arc::clone(inventory))));
        }
        Some(self.engine.value(self, self.own.get(name)?))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(
            self.own.keys().chain(self.given.keys()).map(|name| Value::from(name.as_str())).collect(),
        )
    }
}

/// `hostvars`: those of all hosts.
#[derive(Debug)]
struct Others(Engine, Arc<Inventory>);

impl Object for Others {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let host = key.as_str().filter(|host| self.1.knows(host))?;
        let found = Variables::of(&self.0, &self.1, host, &Map::new(), None);
        Some(found.map_or_else(
            |error| Value::from(Error::new(ErrorKind::InvalidOperation, format!("{error:#}"))),
            Value::from_dyn_object,
        ))
    }
}

/// A condition on the variables and facts of a host.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    text: String,
    pub(crate) asks_facts: bool,
}

impl Condition {
    pub(crate) fn new(text: &str) -> Result<Self> {
        let engine = Engine::default();
        let expression = engine
            .0
            .compile_expression(text)
            .map_err(|error| explain(&error).context(format!("--where {text}")))?;
        let asks_facts = expression.undeclared_variables(false).contains("facts");
        Ok(Self { text: text.to_owned(), asks_facts })
    }

    pub(crate) fn holds(&self, variables: &Arc<Variables>) -> Result<bool> {
        let engine = Engine::default();
        let value = engine
            .0
            .compile_expression(&self.text)
            .and_then(|expression| expression.eval(Value::from_dyn_object(Arc::clone(variables))))
            .map_err(|error| explain(&error).context(format!("--where {}", self.text)))?;
        if value.kind() == ValueKind::Invalid {
            bail!("--where {}: {value}", self.text);
        }
        Ok(value.is_true())
    }
}

/// A local template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    engine: Engine,
    name: String,
    more: Map<String, Json>,
    inventory: Arc<Inventory>,
    pub(crate) asks_facts: bool,
}

impl Template {
    pub(crate) fn load(file: &Path, more: Map<String, Json>, inventory: Arc<Inventory>) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        let engine = Engine::beside(
            file.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir }),
        );
        let mut engine = Arc::into_inner(engine.0).context("the engine is in use")?;
        let name = file.display().to_string();
        engine.add_template_owned(name.clone(), text).map_err(|error| explain(&error))?;
        let uses = |error| explain(&error);
        let asked = engine.get_template(&name).map_err(uses)?.undeclared_variables(false);
        // What an included one asks for is not known before it is included.
        let asks_facts =
            asked.contains("facts") || engine.get_template(&name).is_ok_and(|t| includes(t.source()));
        Ok(Self { engine: Engine(Arc::new(engine)), name, more, inventory, asks_facts })
    }

    /// The text for a host.
    pub(crate) fn render(&self, host: &str, facts: Option<&Json>) -> Result<String> {
        let variables = Variables::of(&self.engine, &self.inventory, host, &self.more, facts)?;
        let template = self.engine.0.get_template(&self.name).map_err(|error| explain(&error))?;
        let text = template.render(Value::from_dyn_object(variables)).map_err(|error| explain(&error))?;
        if text.len() > MAX_OUTPUT {
            bail!("{}: it became {} bytes, and 7 MiB are written at once", self.name, text.len());
        }
        Ok(text)
    }
}

fn includes(source: &str) -> bool {
    ["include", "import", "extends"].iter().any(|word| source.contains(word)) && source.contains("{%")
}

/// An error with where it is and why, and no variable's value.
fn explain(error: &Error) -> anyhow::Error {
    let place = match (error.name(), error.line()) {
        (Some(name), Some(line)) if name.starts_with('<') => format!(" (line {line})"),
        (Some(name), Some(line)) => format!(" ({name}, line {line})"),
        _ => String::new(),
    };
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let mut text = format!("{}{detail}{place}", error.kind());
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    anyhow!(text)
}

/// `--var` and `--vars`: the later wins.
pub(crate) fn given(files: &[std::path::PathBuf], words: &[String]) -> Result<Map<String, Json>> {
    let mut all = Map::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        let map: Map<String, Json> = serde_saphyr::from_str(&text)
            .with_context(|| format!("{} is no map of variables", file.display()))?;
        all.extend(map);
    }
    for word in words {
        let (name, value) =
            word.split_once('=').with_context(|| format!("--var {word}: expected NAME=VALUE"))?;
        if !is_name(name) {
            bail!("--var {word}: {name:?} is not the name of a variable");
        }
        all.insert(name.to_owned(), Json::String(value.to_owned()));
    }
    Ok(all)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Json) -> Map<String, Json> {
        value.as_object().unwrap().clone()
    }

    fn render(text: &str, own: Json, given: Json) -> Result<String> {
        let engine = Engine::default();
        let variables = Variables::new(&engine, map(own), map(given), None);
        engine.0.render_str(text, Value::from_dyn_object(variables)).map_err(|error| explain(&error))
    }

    #[test]
    fn a_template_gives_the_bytes_that_it_has() {
        let own =
            || json!({ "port": 80, "names": ["a", "b"], "on": true, "s": "it's <&>", "none": null, "é": 1 });
        for (text, expected) in [
            ("listen {{ port }};\n", "listen 80;\n"),
            ("no newline", "no newline"),
            ("a\r\n{{ port }}\r\n", "a\r\n80\r\n"),
            ("{% for n in names %}\n- {{ n }}\n{% endfor %}\nend\n", "- a\n- b\nend\n"),
            ("{{ s }}", "it's <&>"),
            ("{{ s | quote }}", "'it'\\''s <&>'"),
            ("{{ names | to_json }} {{ s | tojson }}", "[\"a\",\"b\"] \"it's <&>\""),
            ("{% if on %}yes{% endif %}", "yes"),
            ("{{ missing | default('x') }}", "x"),
            ("{{ 'yes' | bool }}", "True"),
            ("{% raw %}{{ kept }}{% endraw %}", "{{ kept }}"),
            ("{{ names | join(',') | upper }}", "A,B"),
        ] {
            assert_eq!(render(text, own(), json!({})).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_set_is_an_error_that_says_what_and_where() {
        for text in [
            "x\n{{ missing }}",
            "x\n{{ a.b.c }}",
            "x\n{% if missing %}{% endif %}",
            "x\n{% for x in no %}{% endfor %}",
        ] {
            let error = render(text, json!({ "a": {} }), json!({})).unwrap_err().to_string();
            assert!(error.contains("undefined") && error.contains("line 2"), "{text}: {error}");
        }
        assert!(render("{{ 1 +", json!({}), json!({})).is_err());
        assert!(
            render(
                "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
                json!({}),
                json!({})
            )
            .is_err()
        );
    }

    #[test]
    fn variables_are_made_of_variables_and_facts_are_not() {
        let own = json!({
            "name": "web1", "url": "http://{{ name }}:{{ port }}/", "port": "{{ base + 1 }}", "base": 8000,
            "list": ["{{ name }}"], "same": "{{ list }}", "loop_a": "{{ loop_b }}", "loop_b": "{{ loop_a }}",
            "broken": "{{ nothing }}", "whole": { "u": "{{ url }}" },
        });
        let given = json!({ "facts": { "host": "{{ name }}" } });
        let render = |text: &str| render(text, own.clone(), given.clone());
        assert_eq!(render("{{ url }} {{ whole.u }}").unwrap(), "http://web1:8001/ http://web1:8001/");
        assert_eq!(render("{% for x in same %}[{{ x }}]{% endfor %}").unwrap(), "[web1]");
        assert_eq!(render("{{ facts.host }}").unwrap(), "{{ name }}");
        assert!(render("{{ loop_a }}").unwrap_err().to_string().contains("each other"));
        assert!(render("{{ broken }}").is_err());
        assert!(render("fine").is_ok());
    }

    #[test]
    fn variables_are_given_by_files_and_words() {
        let words = ["a=1=2".to_owned(), "b=".to_owned()];
        assert_eq!(given(&[], &words).unwrap(), map(json!({ "a": "1=2", "b": "" })));
        assert!(given(&[], &["a".into()]).is_err() && given(&[], &["a-b=1".into()]).is_err());
    }
}
