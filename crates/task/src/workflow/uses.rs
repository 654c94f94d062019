//! Actions: ours, those of the workspace, and those of the operator's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use legwork_proto::task::{Level, Step as StepName, StepState};
use legwork_workflow::{ActionFile, Builtin, Item, Source, Step, Tool, Uses, Using};
use legwork_workspace::Root;

use super::given;
use super::run::{Key, MAX_DEPTH, Reins, Shared};
use super::scope::Scope;
use super::step::{After, At, Command, Ended, Post};
use crate::journal::Left;
use crate::settings::Settings;

const SETUP: &str = include_str!("setup.sh");
const CHECKOUT: &str = include_str!("checkout.sh");
/// Most bytes of an action's file.
const MAX_FILE: u64 = 1 << 20;

/// A step that uses an action.
pub(super) struct Call<'a, 's> {
    pub(super) uses: &'s Uses,
    pub(super) name: &'a StepName,
    pub(super) at: &'a At<'a>,
}

/// An action's file, and its folder as programs see it.
struct Found {
    file: ActionFile,
    dir: PathBuf,
}

/// Where an action of the operator's folder is.
pub(crate) fn mirrored(settings: &Settings, path: &str, revision: &str) -> Option<PathBuf> {
    let root = settings.actions.as_ref()?;
    let mut parts = path.splitn(3, '/');
    let (owner, name, rest) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
    let own = root.join(owner);
    let places = [own.join(format!("{name}@{revision}")), own.join(name).join(revision), own.join(name)];
    places
        .into_iter()
        .map(|dir| dir.join(rest))
        .find(|dir| ["action.yml", "action.yaml"].iter().any(|file| dir.join(file).is_file()))
}

impl Shared<'_> {
    pub(super) async fn uses<'s>(
        &self,
        call: &Call<'_, 's>,
        command: &Command<'_>,
        posts: &mut Vec<Post<'s>>,
    ) -> Ended {
        command.events.log(Level::Info, &format!("Running: {}", call.uses.name)).await;
        let mut inputs = BTreeMap::new();
        for (name, template) in &call.uses.with {
            match template.fill(command.scope) {
                Ok(value) => drop(inputs.insert(name.to_lowercase(), value)),
                Err(error) => return Ended::error(format!("with.{name}: {error}")),
            }
        }
        match &call.uses.source {
            Source::Builtin(builtin) => self.builtin(*builtin, &inputs, call, command, posts).await,
            Source::Local(path) => {
                let root = &self.world.hands.root;
                match action_file(root, path) {
                    Ok(file) => {
                        self.action(call, command, Found { file, dir: root.path().join(path) }, inputs, posts)
                            .await
                    }
                    Err(error) => Ended::error(format!("{}: {error}", call.uses.name)),
                }
            }
            Source::Mirror(path, revision) => {
                let Some(dir) = mirrored(self.world.settings, path, revision) else {
                    return Ended::error(format!("{}: {}", call.uses.name, super::NOT_HERE));
                };
                let file =
                    Root::open(&dir).map_err(|e| e.to_string()).and_then(|root| action_file(&root, "."));
                match file {
                    Ok(file) => self.action(call, command, Found { file, dir }, inputs, posts).await,
                    Err(error) => Ended::error(format!("{}: {error}", call.uses.name)),
                }
            }
        }
    }

    async fn builtin<'s>(
        &self,
        builtin: Builtin,
        inputs: &BTreeMap<String, String>,
        call: &Call<'_, 's>,
        command: &Command<'_>,
        posts: &mut Vec<Post<'s>>,
    ) -> Ended {
        match builtin {
            Builtin::Checkout => shell(command, CHECKOUT, given_variables(inputs), &call.uses.name).await,
            Builtin::Setup(tool) => {
                let mut variables = tool_variables(&tool, inputs);
                let tools = self.world.settings.tools.as_ref();
                variables.push((
                    "SETUP_FOLDERS".into(),
                    tools.map(|d| d.display().to_string()).unwrap_or_default(),
                ));
                variables.push(("SETUP_ACTION".into(), call.uses.name.clone()));
                shell(command, SETUP, variables, &call.uses.name).await
            }
            Builtin::Cargo => {
                let get = |name: &str| inputs.get(name).cloned().unwrap_or_default();
                let variables = [("CARGO_WORD", get("command")), ("CARGO_ARGS", get("args"))];
                let variables = variables.map(|(k, v)| (k.to_owned(), v)).to_vec();
                shell(command, "exec cargo $CARGO_WORD $CARGO_ARGS", variables, &call.uses.name).await
            }
            Builtin::Nothing => {
                command.events.log(Level::Info, "There is nothing to do for it here").await;
                Ended::with(StepState::Success)
            }
            Builtin::Upload => self.upload(inputs, command).await,
            Builtin::Download => self.download(inputs, command).await,
            Builtin::Cache | Builtin::CacheRestore | Builtin::CacheSave => {
                let (ended, save) = self.cache(builtin, inputs, command).await;
                if let Some((key, paths)) = save {
                    let key_of = after(command.key);
                    posts.push(Post {
                        name: call.name.clone(),
                        key: key_of,
                        what: After::Cache { key, paths },
                    });
                }
                ended
            }
        }
    }

    async fn action<'s>(
        &self,
        call: &Call<'_, 's>,
        command: &Command<'_>,
        found: Found,
        given: BTreeMap<String, String>,
        posts: &mut Vec<Post<'s>>,
    ) -> Ended {
        let texts = Item::Map(given.into_iter().map(|(name, value)| (name, Item::Text(value))).collect());
        let inputs = match given::inputs(&found.file.inputs, &texts, command.scope) {
            Ok(inputs) => inputs,
            Err(error) => return Ended::error(format!("{}: {error}", call.uses.name)),
        };
        let dir = found.dir.to_string_lossy().into_owned();
        match &found.file.using {
            Using::Composite(steps) => {
                let scope = command.scope.of_action(inputs, dir);
                self.composite(call, command, scope, steps, &found.file).await
            }
            Using::Node { pre, main, post } => {
                let mut variables = input_variables(&inputs);
                variables.push(("GITHUB_ACTION_PATH".into(), dir.clone()));
                if let Some(pre) = pre {
                    let ended = node(command, &dir, pre, variables.clone(), &call.uses.name).await;
                    if ended.outcome != Some(StepState::Success) {
                        return ended;
                    }
                    super::step::clean_up(&self.world.dir, command.key, ended);
                }
                let ended = node(command, &dir, main, variables, &call.uses.name).await;
                if let Some(post) = post {
                    let what = After::Node {
                        uses: call.uses,
                        dir,
                        file: post.clone(),
                        state: ended.left.state.clone(),
                    };
                    posts.push(Post { name: call.name.clone(), key: after(command.key), what });
                }
                ended
            }
        }
    }

    /// Steps of an action: they see its inputs and one another, and leave what it says it leaves.
    async fn composite(
        &self,
        call: &Call<'_, '_>,
        command: &Command<'_>,
        mut scope: Scope,
        steps: &[Step],
        file: &ActionFile,
    ) -> Ended {
        if command.key.1.matches('/').count() >= MAX_DEPTH {
            return Ended::error(format!("actions use one another more than {MAX_DEPTH} deep"));
        }
        let before = scope.env.clone();
        let mut posts = Vec::new();
        let mut failed = None;
        for step in steps {
            let key = (command.key.0, format!("{}/{}", command.key.1, step.index));
            let name =
                StepName { step_name: step.name.fill(&scope).unwrap_or_default(), ..call.name.clone() };
            let ended = self.one(step, (&name, &key), call.at, &mut scope, command.events, &mut posts).await;
            if ended.is_some_and(|state| state != StepState::Success) {
                failed.get_or_insert(name.step_name);
            }
        }
        for post in posts.iter().rev() {
            self.post(post, call.at.job, &scope, call.at.reins).await;
        }
        let mut left = Left::default();
        for (name, template) in &file.outputs {
            match template.fill(&scope) {
                Ok(value) => drop(left.outputs.insert(name.clone(), value)),
                Err(error) => return Ended::error(format!("outputs.{name}: {error}")),
            }
        }
        // What its steps have told later ones is for those around it as well.
        left.env = scope
            .env
            .iter()
            .filter(|(k, v)| before.get(*k) != Some(v))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        left.path = scope.path_beyond(command.scope);
        match failed {
            None => Ended { left, ..Ended::with(StepState::Success) },
            Some(name) => {
                Ended { left, output: Some(format!("{name} failed")), ..Ended::with(StepState::Failure) }
            }
        }
    }

    /// What an action has left to do when the job is over.
    pub(super) async fn post(&self, post: &Post<'_>, job: Option<&str>, scope: &Scope, reins: &Reins) {
        let events = self.world.events.in_step(post.name.clone());
        let abort = if reins.abort.now().is_some() { &reins.cleaning } else { &reins.abort };
        let command = Command {
            key: &post.key,
            job,
            scope,
            timeout: self.world.settings.cleanup.max(std::time::Duration::from_secs(600)),
            workdir: ".".into(),
            world: self.world,
            events: &events,
            abort,
        };
        match &post.what {
            After::Cache { key, paths } => {
                if !scope.has_failed {
                    self.keep_cache(key, paths, &command).await;
                }
            }
            After::Node { uses, dir, file, state } => {
                events.log(Level::Info, &format!("Running after the job: {}", uses.name)).await;
                let mut variables: Vec<_> = uses
                    .with
                    .iter()
                    .filter_map(|(name, value)| Some((input_name(name), value.fill(scope).ok()?)))
                    .collect();
                variables.extend(state.iter().map(|(k, v)| (format!("STATE_{k}"), v.clone())));
                let ended = node(&command, dir, file, variables, &uses.name).await;
                super::step::clean_up(&self.world.dir, &post.key, ended);
            }
        }
    }
}

fn after((index, sub): &Key) -> Key {
    (*index, format!("{sub}/after"))
}

fn action_file(root: &Root, path: &str) -> Result<ActionFile, String> {
    let read = |name: &str| root.read(&format!("{path}/{name}"), 0, 0, MAX_FILE).ok();
    let data = read("action.yml").or_else(|| read("action.yaml")).ok_or("there is no action.yml in it")?.data;
    let text = String::from_utf8(data).map_err(|_| "action.yml is no UTF-8")?;
    ActionFile::parse(&text).map_err(|problems| {
        problems.first().map_or_else(String::new, |problem| format!("action.yml: {problem}"))
    })
}

/// Runs a script of our own, by the system's shell.
async fn shell(
    command: &Command<'_>,
    script: &str,
    variables: Vec<(String, String)>,
    subject: &str,
) -> Ended {
    let argv = ["/bin/sh", "-e", "-c", script].map(String::from).to_vec();
    command.run_with(|_| Ok(argv), variables, subject).await
}

async fn node(
    command: &Command<'_>,
    dir: &str,
    file: &str,
    variables: Vec<(String, String)>,
    subject: &str,
) -> Ended {
    let is_within = !file.split('/').any(|part| part == "..") && !Path::new(file).is_absolute();
    match command.find("node").filter(|_| is_within) {
        Some(program) => {
            let argv = vec![program, format!("{dir}/{file}")];
            command.run_with(|_| Ok(argv), variables, subject).await
        }
        None if is_within => Ended::error("it is JavaScript, and node is not installed here"),
        None => Ended::error("its file lies outside of it"),
    }
}

fn input_name(name: &str) -> String {
    format!("INPUT_{}", name.replace(' ', "_").to_uppercase())
}

fn input_variables(inputs: &Item) -> Vec<(String, String)> {
    match inputs {
        Item::Map(entries) => entries.iter().map(|(name, value)| (input_name(name), value.text())).collect(),
        _ => Vec::new(),
    }
}

/// Inputs as variables that a shell can name.
fn given_variables(inputs: &BTreeMap<String, String>) -> Vec<(String, String)> {
    inputs.iter().map(|(name, value)| (input_name(name).replace('-', "_"), value.clone())).collect()
}

fn tool_variables(tool: &Tool, inputs: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let first = |names: &[&str]| names.iter().find_map(|name| inputs.get(*name)).cloned().unwrap_or_default();
    [
        ("SETUP_TOOL", tool.name.to_owned()),
        ("SETUP_PROGRAM", tool.program.to_owned()),
        ("SETUP_VERSION", first(tool.versions)),
        ("SETUP_FILE", first(tool.files)),
        ("SETUP_OUTPUT", tool.output.to_owned()),
        ("SETUP_COMPONENTS", first(&["components", "component"])),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
