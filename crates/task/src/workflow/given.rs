//! What a workflow is given: `github`, `inputs`, `vars`, `secrets`, `runner`.

use std::sync::Arc;

use legwork_workflow::{Input, Item, Workflow, fill_node};
use legwork_workspace::Root;
use legwork_yaml::Node;

use super::scope::Scope;
use legwork_base::Secret;

/// Most bytes of a file of git that is looked at.
const MAX_GIT_FILE: u64 = 1 << 20;

/// The same for all jobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub(super) github: Arc<Item>,
    pub(super) vars: Arc<Item>,
    pub(super) inputs: Arc<Item>,
}

impl Given {
    /// From the task's own words, and what git says of the workspace.
    pub(crate) fn of(config: &Node, workflow: &Workflow, root: &Root) -> Self {
        let part = |key: &str| config.get(key).map(Item::of_node).unwrap_or_default();
        let said = part("github");
        let mut github = head(root);
        let event = workflow.events.iter().find(|event| *event == "push").or(workflow.events.first());
        let event = event.map_or("workflow_dispatch", String::as_str);
        for (key, value) in [
            ("event_name", event),
            ("workflow", workflow.name.as_deref().unwrap_or_default()),
            ("actor", "legwork"),
            ("triggering_actor", "legwork"),
            ("run_id", "1"),
            ("run_number", "1"),
            ("run_attempt", "1"),
            ("server_url", "https://github.com"),
            ("api_url", "https://api.github.com"),
            ("graphql_url", "https://api.github.com/graphql"),
            ("repository", "local/workspace"),
            ("repository_owner", "local"),
            ("base_ref", ""),
            ("head_ref", ""),
            ("token", ""),
        ] {
            github.push((key.into(), value.into()));
        }
        github.push(("workspace".into(), root.path().to_string_lossy().into_owned().into()));
        github.push(("event".into(), Item::Map(Vec::new())));
        if let Item::Map(said) = said {
            for (key, value) in said {
                github.retain(|(known, _)| !known.eq_ignore_ascii_case(&key));
                if let (true, Item::Text(name)) = (key == "repository", &value) {
                    let owner = name.split('/').next().unwrap_or_default().to_owned();
                    github.retain(|(known, _)| known != "repository_owner");
                    github.push(("repository_owner".into(), owner.into()));
                }
                github.push((key, value));
            }
        }
        let inputs = inputs(&workflow.inputs, &part("inputs"), &Scope::default());
        Self {
            github: Arc::new(Item::Map(github)),
            vars: Arc::new(part("vars")),
            inputs: Arc::new(inputs.unwrap_or_default()),
        }
    }

    /// The variables that stand for `github`.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let Item::Map(entries) = &*self.github else { return Vec::new() };
        entries
            .iter()
            .filter(|(key, _)| !["event", "token"].contains(&key.as_str()))
            .map(|(key, value)| (format!("GITHUB_{}", key.to_uppercase()), value.text()))
            .collect()
    }
}

/// Inputs with their defaults; which one is missing, or is not what it must be.
pub(super) fn inputs(known: &[Input], given: &Item, scope: &Scope) -> Result<Item, String> {
    let mut inputs: Vec<(String, Item)> = match given {
        Item::Map(entries) => entries.clone(),
        _ => Vec::new(),
    };
    for input in known {
        let found = inputs.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case(&input.name));
        match (found, &input.default) {
            (Some((_, value)), _) => {
                if input.kind == "boolean" && matches!(value, Item::Text(_)) {
                    *value = Item::Bool(value.text() == "true");
                }
                let text = value.text();
                if !input.options.is_empty() && !input.options.contains(&text) {
                    let options = input.options.join(", ");
                    return Err(format!("input {}: '{text}' is none of {options}", input.name));
                }
            }
            (None, Some(default)) => {
                let value = fill_node(default, scope).map_err(|e| format!("input {}: {e}", input.name))?;
                inputs.push((input.name.clone(), value));
            }
            (None, None) if input.is_required => return Err(format!("input {} is missing", input.name)),
            (None, None) => {
                let nothing = if input.kind == "boolean" { Item::Bool(false) } else { "".into() };
                inputs.push((input.name.clone(), nothing));
            }
        }
    }
    Ok(Item::Map(inputs))
}

/// Commit and branch, by the files of git: its programs may be steered by the workspace.
fn head(root: &Root) -> Vec<(String, Item)> {
    let read = |path: &str| {
        let data = root.read(path, 0, 0, MAX_GIT_FILE).ok()?.data;
        String::from_utf8(data).ok().map(|text| text.trim().to_owned())
    };
    let head = read(".git/HEAD").unwrap_or_default();
    let reference = head.strip_prefix("ref: ").map(str::trim);
    let packed = |name: &str| {
        let packed = read(".git/packed-refs")?;
        packed.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix(' ').map(str::to_owned))
    };
    let sha = match reference {
        Some(name) => read(&format!(".git/{name}")).or_else(|| packed(name)).unwrap_or_default(),
        None => head.clone(),
    };
    let name = reference.unwrap_or("refs/heads/main");
    let short = name.strip_prefix("refs/heads/").unwrap_or(name);
    [("sha", sha.as_str()), ("ref", name), ("ref_name", short), ("ref_type", "branch")]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect()
}

/// `secrets`, of those that are named.
pub(super) fn secrets(names: &[String], find: &dyn Fn(&str) -> Option<Secret>) -> Item {
    let known = names.iter().filter_map(|name| Some((name.clone(), find(name)?.expose().into())));
    Item::Map(known.collect())
}

/// `runner`.
pub(super) fn runner(temp: &str) -> Item {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "X64",
        "aarch64" => "ARM64",
        other => other,
    };
    let pairs = [
        ("os", "Linux"),
        ("arch", arch),
        ("name", "legwork"),
        ("environment", "self-hosted"),
        ("temp", temp),
        ("tool_cache", temp),
        ("debug", ""),
    ];
    Item::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
}
