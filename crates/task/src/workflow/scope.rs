//! What steps see of what was before them.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use legwork_proto::task::StepState;
use legwork_workflow::{Failed, Item, Lookup, Status, Template};
use legwork_workspace::Root;
use sha2::{Digest, Sha256};

use super::given::Given;
use crate::abort::Abort;
use crate::journal::Left;

/// Most files that one digest is made of.
const MAX_HASHED: usize = 100_000;

/// How a step or job ended, and what it left.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    pub(super) outcome: String,
    pub(super) conclusion: String,
    pub(super) outputs: BTreeMap<String, String>,
}

/// The word for it in expressions.
pub(super) fn word(state: StepState) -> &'static str {
    match state {
        StepState::Success => "success",
        StepState::Failure | StepState::Error => "failure",
    }
}

/// A job's view of things. What grows with its steps is shared: a copy costs the same for each.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    pub(super) env: BTreeMap<String, String>,
    /// Put before PATH, the last one first.
    pub(super) path: Arc<Vec<String>>,
    pub(super) steps: Arc<BTreeMap<String, Past>>,
    pub(super) needs: Arc<BTreeMap<String, Past>>,
    pub(super) given: Given,
    pub(super) secrets: Arc<Item>,
    pub(super) runner: Arc<Item>,
    pub(super) matrix: Arc<Item>,
    pub(super) strategy: Arc<Item>,
    pub(super) job: String,
    /// Of an action: where its files are.
    pub(super) action_path: Option<String>,
    pub(super) has_failed: bool,
    /// Something that it needs was not run.
    pub(super) has_skipped: bool,
    pub(super) abort: Option<Abort>,
    pub(super) root: Option<Arc<Root>>,
}

impl Scope {
    /// Sets variables in their order; each may use those before it.
    pub(super) fn set(&mut self, env: &[(String, Template)]) -> Result<(), String> {
        for (name, template) in env {
            let value = template.fill(self).map_err(|error| format!("env.{name}: {error}"))?;
            self.env.insert(name.clone(), value);
        }
        Ok(())
    }

    /// Takes in what a step left.
    pub(super) fn take(&mut self, id: Option<&str>, outcome: StepState, state: StepState, left: &Left) {
        self.env.extend(left.env.clone());
        if !left.path.is_empty() {
            Arc::make_mut(&mut self.path).extend(left.path.iter().cloned());
        }
        if let Some(id) = id {
            let past = Past {
                outcome: word(outcome).into(),
                conclusion: word(state).into(),
                outputs: left.outputs.clone(),
            };
            Arc::make_mut(&mut self.steps).insert(id.to_owned(), past);
        }
        self.has_failed |= state != StepState::Success;
    }

    /// A step that did not run.
    pub(super) fn skip(&mut self, id: Option<&str>) {
        if let Some(id) = id {
            let past = Past { outcome: "skipped".into(), conclusion: "skipped".into(), ..Past::default() };
            Arc::make_mut(&mut self.steps).insert(id.to_owned(), past);
        }
    }

    /// The steps of an action know nothing of those around them.
    pub(super) fn of_action(&self, inputs: Item, path: String) -> Self {
        let mut scope = self.clone();
        scope.steps = Arc::default();
        scope.given.inputs = Arc::new(inputs);
        scope.action_path = Some(path);
        scope
    }

    /// The variables of a program.
    pub(super) fn variables(&self, inherited: Option<&str>) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        if !self.path.is_empty() {
            let usual = env.get("PATH").map(String::as_str).or(inherited).unwrap_or_default();
            let path: Vec<&str> = self.path.iter().rev().map(String::as_str).chain([usual]).collect();
            env.insert("PATH".into(), path.join(":"));
        }
        env
    }

    /// The folders of programs that it has, and another has not.
    pub(super) fn path_beyond(&self, other: &Self) -> Vec<String> {
        self.path.iter().skip(other.path.len()).cloned().collect()
    }

    fn github(&self, key: &str) -> Option<Item> {
        let path = || self.action_path.clone().unwrap_or_default();
        match key.to_ascii_lowercase().as_str() {
            "job" => Some(self.job.as_str().into()),
            "action_path" => Some(path().into()),
            "action" => Some(self.job.as_str().into()),
            _ => None,
        }
    }
}

fn past(past: &Past, is_step: bool) -> Item {
    let mut entries = vec![("outputs".to_owned(), Item::map(&past.outputs))];
    if is_step {
        entries.push(("outcome".into(), past.outcome.as_str().into()));
        entries.push(("conclusion".into(), past.conclusion.as_str().into()));
    } else {
        entries.push(("result".into(), past.conclusion.as_str().into()));
    }
    Item::Map(entries)
}

fn all(known: &BTreeMap<String, Past>, is_step: bool) -> Item {
    Item::Map(known.iter().map(|(id, known)| (id.clone(), past(known, is_step))).collect())
}

impl Lookup for Scope {
    fn status(&self) -> Status {
        let is_cancelled = self.abort.as_ref().is_some_and(|abort| abort.now().is_some());
        Status {
            is_good: !self.has_failed && !self.has_skipped && !is_cancelled,
            has_failed: self.has_failed,
            is_cancelled,
        }
    }

    fn context(&self, name: &str) -> Item {
        match name {
            "env" => Item::map(&self.env),
            "steps" => all(&self.steps, true),
            "needs" | "jobs" => all(&self.needs, false),
            "github" => (*self.given.github).clone(),
            "inputs" => (*self.given.inputs).clone(),
            "vars" => (*self.given.vars).clone(),
            "secrets" => (*self.secrets).clone(),
            "runner" => (*self.runner).clone(),
            "matrix" => (*self.matrix).clone(),
            "strategy" => (*self.strategy).clone(),
            "job" => {
                let status = match self.status() {
                    Status { is_cancelled: true, .. } => "cancelled",
                    Status { has_failed: true, .. } => "failure",
                    _ => "success",
                };
                Item::Map(vec![("status".into(), status.into())])
            }
            _ => Item::Null,
        }
    }

    fn member(&self, context: &str, key: &str) -> Item {
        let find = |known: &BTreeMap<String, Past>, is_step| {
            let exact = known.get(key);
            let found =
                exact.or_else(|| known.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, p)| p));
            found.map(|found| past(found, is_step)).unwrap_or_default()
        };
        match context {
            "env" => self.env.get(key).map(|value| value.as_str().into()).unwrap_or_default(),
            "steps" => find(&self.steps, true),
            "needs" | "jobs" => find(&self.needs, false),
            "github" => self.github(key).unwrap_or_else(|| self.given.github.named(key)),
            "secrets" => self.secrets.named(key),
            _ => self.context(context).named(key),
        }
    }

    fn hash_files(&self, patterns: &[String]) -> Result<String, String> {
        let Some(root) = &self.root else { return Ok(String::new()) };
        let mut found = std::collections::BTreeSet::new();
        for pattern in patterns.iter().flat_map(|pattern| pattern.lines()).map(str::trim) {
            let (pattern, is_out) = match pattern.strip_prefix('!') {
                Some(pattern) => (pattern, true),
                None => (pattern, false),
            };
            for path in root.glob(pattern).map_err(|error| error.to_string())? {
                if is_out {
                    found.remove(&path)
                } else {
                    found.insert(path)
                };
            }
            if found.len() > MAX_HASHED {
                return Err(format!("more than {MAX_HASHED} files"));
            }
        }
        let mut all = Sha256::new();
        let mut is_any = false;
        for path in found {
            let Ok((mut file, meta)) = root.open_file(&path.to_string_lossy()) else { continue };
            if meta.is_dir {
                continue;
            }
            let (mut one, mut part) = (Sha256::new(), vec![0; 64 << 10]);
            loop {
                let len = file.read(&mut part).map_err(|e| format!("{}: {e}", path.display()))?;
                if len == 0 {
                    break;
                }
                one.update(&part[..len]);
            }
            all.update(one.finalize());
            is_any = true;
        }
        let digest = all.finalize();
        Ok(if is_any { legwork_base::digest::hex(digest) } else { String::new() })
    }
}

/// What an expression comes to, for a message.
pub(super) fn failed(what: &str, error: &Failed) -> String {
    format!("{what}: {error}")
}
