//! One step, from its start to its end.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use legwork_process::{Chunk, EndedBy, Status, Stream};
use legwork_proto::task::{Level, StepState};
use legwork_runner::What;
use legwork_workflow::{Action, AgentStep, Shell, Step};

use super::files::Files;
use super::lines::{Lines, Position};
use super::run::{TOO_SHORT, World};
use super::scope::Scope;
use crate::agent;
use crate::events::Events;
use crate::hands::{Continue, command_file};
use crate::journal::Left;
use crate::masks::said_in;

/// What no command may have under the original's rule.
const META: &[char] = &[';', '\\', '|', '&', '$', '`', '<', '>'];
const REJECTED: &str = "Command rejected: contains shell metacharacters";

/// How a step ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) outcome: Option<StepState>,
    pub(super) output: Option<String>,
    pub(super) exit_code: Option<i32>,
    pub(super) left: Left,
    /// Kept until it is noted what was in them.
    files: Option<Files>,
}

impl Ended {
    fn with(outcome: StepState) -> Self {
        Self { outcome: Some(outcome), ..Self::default() }
    }

    /// The runner itself failed.
    pub(super) fn error(output: impl Into<String>) -> Self {
        Self { output: Some(output.into()), ..Self::with(StepState::Error) }
    }
}

/// Runs a step; its own variables are in `scope` already.
pub(super) async fn run(
    step: &Step,
    scope: &Scope,
    strict: bool,
    time: Option<Duration>,
    world: &World<'_>,
    events: &Events,
) -> Ended {
    let timeout = time.map_or(step.timeout, |left| left.min(step.timeout));
    let workdir = step.workdir.fill(scope);
    let command = Command { step, scope, timeout, workdir, world, events };
    match &step.action {
        Action::Run { script, shell } => {
            tell_command(events, "Running: ", script).await;
            match argv(script, *shell, strict, &command) {
                Ok(argv) => command.run(argv, script).await,
                Err(cause) => {
                    events.log(Level::Error, &cause).await;
                    Ended::with(StepState::Failure)
                }
            }
        }
        Action::Checkout { reference } => checkout(reference, &command).await,
        Action::Env(variables) => {
            let mut left = Left::default();
            for (name, value) in variables {
                events.log(Level::Info, &format!("Set env: {name}")).await;
                left.env.insert(name.clone(), value.clone());
            }
            Ended { left, ..Ended::with(StepState::Success) }
        }
        Action::Agent(task) => run_agent(task, &command).await,
        Action::Unsupported(what) => {
            events.log(Level::Error, &format!("Unsupported step: {what}")).await;
            Ended::with(StepState::Failure)
        }
    }
}

async fn tell_command(events: &Events, prefix: &str, script: &str) {
    let mut lines = script.trim_end().lines();
    events.log(Level::Info, &format!("{prefix}{}", lines.next().unwrap_or_default())).await;
    for line in lines {
        events.log(Level::Info, line).await;
    }
}

fn argv(script: &str, shell: Shell, strict: bool, command: &Command<'_>) -> Result<Vec<String>, String> {
    if strict {
        if script.contains(META) {
            return Err(REJECTED.into());
        }
        let words: Vec<String> = script.split_whitespace().map(str::to_owned).collect();
        let (first, rest) = words.split_first().ok_or("nothing to run")?;
        let program = command.find(first).ok_or_else(|| format!("{first}: command not found"))?;
        return Ok(std::iter::once(program).chain(rest.iter().cloned()).collect());
    }
    let (program, args): (&str, &[&str]) = match shell {
        Shell::Sh => return Ok(["/bin/sh", "-e", "-c", script].map(String::from).to_vec()),
        Shell::Bash => ("bash", &["--noprofile", "--norc", "-e", "-o", "pipefail", "-c"]),
        Shell::Python => ("python3", &["-c"]),
        Shell::Node => ("node", &["-e"]),
    };
    let found = command.find(program).ok_or_else(|| format!("{program} is not installed here"))?;
    Ok(std::iter::once(found.as_str())
        .chain(args.iter().copied())
        .chain([script])
        .map(str::to_owned)
        .collect())
}

struct Command<'a> {
    step: &'a Step,
    scope: &'a Scope,
    timeout: Duration,
    workdir: String,
    world: &'a World<'a>,
    events: &'a Events,
}

impl Command<'_> {
    fn inherited_path(&self) -> Option<&str> {
        self.world.settings.env.get("PATH").map(String::as_str)
    }

    fn find(&self, name: &str) -> Option<String> {
        if name.contains('/') {
            return Some(name.to_owned());
        }
        let env = self.scope.variables(self.inherited_path());
        let path = env.get("PATH").map(String::as_str).or(self.inherited_path())?;
        std::env::split_paths(path)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
            .map(|file| file.to_string_lossy().into_owned())
    }

    fn file(&self) -> PathBuf {
        file_of(&self.world.dir, self.step.index)
    }

    async fn run(&self, argv: Vec<String>, subject: &str) -> Ended {
        let Some(workdir) = self.located() else {
            return Ended::error("working-directory must be within workspace");
        };
        let scratch = self.world.settings.scratch();
        // A step of an earlier process has its files already: their name is kept.
        let name_file = self.file().with_extension("files");
        let name = std::fs::read_to_string(&name_file).unwrap_or_else(|_| Files::fresh_name());
        let files = match std::fs::write(&name_file, &name).and_then(|()| Files::make(&scratch, &name)) {
            Ok(files) => files,
            Err(error) => return Ended::error(format!("the step's files can't be made: {error}")),
        };
        let mut env = self.scope.variables(self.inherited_path());
        env.extend(files.variables());
        env.entry("CI".into()).or_insert_with(|| "true".into());
        let program = legwork_runner::Command {
            what: What::Program(argv),
            env,
            workdir,
            timeout: Some(self.timeout),
            subject: subject.to_owned(),
            tmp: Some(self.world.hands.place.tmp.clone()),
            keeps_tree: true,
            ..legwork_runner::Command::default()
        };
        let mut ended = self.supervise(&program).await;
        match files.read() {
            Ok(left) => ended.left = left,
            Err(cause) if ended.outcome == Some(StepState::Success) => {
                self.events.log(Level::Error, &cause).await;
                ended = Ended { output: Some(cause), ..Ended::with(StepState::Failure) };
            }
            Err(_) => {}
        }
        ended.files = Some(files);
        ended
    }

    fn located(&self) -> Option<String> {
        let root = &self.world.hands.root;
        let path = Path::new(&self.workdir);
        let inside = match path.is_absolute() {
            false => path,
            true => path.strip_prefix(root.path()).or_else(|_| path.strip_prefix("/workspace")).ok()?,
        };
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        let text = inside.to_str()?.to_owned();
        let escapes = matches!(
            root.stat(&text),
            Err(legwork_workspace::Error::Outside { .. } | legwork_workspace::Error::Escapes { .. })
        );
        (!escapes).then_some(text)
    }

    async fn supervise(&self, program: &legwork_runner::Command) -> Ended {
        let file = self.file();
        let (position, from) = match Position::open(&position_of(&file)) {
            Ok(opened) => opened,
            Err(error) => return Ended::error(format!("the step's place can't be noted: {error}")),
        };
        let mut lines = Lines::from(from);
        // Lines that are not told yet: a mask said on the other stream may be on its way.
        let mut held = Held::default();
        let each = async |chunk: Option<Chunk>| {
            let now = Instant::now();
            if let Some(chunk) = &chunk {
                let level = level(chunk.stream);
                for line in lines.take(chunk, &self.events.masks) {
                    if !self.obey(&line).await {
                        held.add(now, level, line);
                    }
                }
            }
            while let Some((level, line)) = held.next(now, chunk.is_none()) {
                self.events.log(level, &line).await;
            }
            // What is told twice after a kill is better than what is never told.
            if held.is_empty() {
                let _ = position.save(lines.told());
            }
            Continue::Yes
        };
        let world = self.world;
        let status = world.hands.run_settling(program, world.requester, &file, world.abort, from, each).await;
        for (stream, line) in lines.rest() {
            if !self.obey(&line).await {
                held.add(Instant::now(), level(stream), line);
            }
        }
        while let Some((level, line)) = held.next(Instant::now(), true) {
            self.events.log(level, &line).await;
        }
        match status {
            Ok(status) => self.ended(&status).await,
            Err(failure) => Ended::error(failure.to_string()),
        }
    }

    async fn ended(&self, status: &Status) -> Ended {
        if status.dropped_bytes > 0 {
            let why = status.journal_error.as_deref().unwrap_or("the limit of its size was reached");
            let text = format!("{} bytes of output were not kept: {why}", status.dropped_bytes);
            self.events.log(Level::Error, &text).await;
        }
        match (status.ended_by, status.exit_code, status.signal) {
            (Some(EndedBy::Timeout), _, _) => {
                self.events.log(Level::Error, "Command timed out").await;
                let text = format!("timed out after {} s", self.timeout.as_secs());
                Ended { output: Some(text), ..Ended::with(StepState::Failure) }
            }
            (Some(EndedBy::Cancel), _, _) => {
                Ended { output: Some("aborted".into()), ..Ended::with(StepState::Failure) }
            }
            (None, Some(0), _) => Ended { exit_code: Some(0), ..Ended::with(StepState::Success) },
            (None, Some(code), _) => Ended { exit_code: Some(code), ..Ended::with(StepState::Failure) },
            (None, None, signal) => {
                let signal = signal.unwrap_or(0);
                let text = format!("ended by signal {signal}");
                let text = if status.out_of_memory { format!("{text}: out of memory") } else { text };
                Ended { output: Some(text), exit_code: Some(-signal), ..Ended::with(StepState::Failure) }
            }
        }
    }

    /// Obeys a line that is a command to us; false if it is none.
    async fn obey(&self, line: &str) -> bool {
        let Some(said) = said_in(line) else { return false };
        if !self.events.masks.add_said(said) && !said.trim().is_empty() {
            self.events.log(Level::Info, TOO_SHORT).await;
        }
        // Whoever comes after a kill does not see this line again.
        if let Err(error) = note_mask(&self.world.dir, said) {
            tracing::warn!(error = %error, "a mask can't be noted: it is lost if the runner is killed");
        }
        true
    }
}

/// Lines that wait for a moment, the oldest first.
#[derive(Default)]
struct Held {
    lines: VecDeque<(Instant, Level, String)>,
    bytes: usize,
}

impl Held {
    /// How long a line waits, and most bytes that do.
    const WAIT: Duration = Duration::from_millis(20);
    const MOST: usize = 1 << 20;

    fn add(&mut self, now: Instant, level: Level, line: String) {
        self.bytes += line.len();
        self.lines.push_back((now, level, line));
    }

    /// The next line that has waited long enough; all of them if nothing more has come.
    fn next(&mut self, now: Instant, all: bool) -> Option<(Level, String)> {
        let (since, ..) = self.lines.front()?;
        if !all && self.bytes <= Self::MOST && now.duration_since(*since) < Self::WAIT {
            return None;
        }
        let (_, level, line) = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some((level, line))
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Removes what a step's command left, when its end is noted.
pub(super) fn clean_up(dir: &Path, index: u64, ended: Ended) {
    let file = file_of(dir, index);
    for path in [position_of(&file), file.with_extension("files"), file] {
        let _ = std::fs::remove_file(path);
    }
    drop(ended.files);
}

/// Where a step's command keeps its output.
fn file_of(dir: &Path, index: u64) -> PathBuf {
    command_file(dir, "step", &index.to_string())
}

fn level(stream: Stream) -> Level {
    match stream {
        Stream::Stdout => Level::Stdout,
        Stream::Stderr => Level::Stderr,
    }
}

/// Masks that steps have added, one a line.
pub(super) fn noted_masks(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("masks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn note_mask(dir: &Path, secret: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::options().append(true).create(true).open(dir.join("masks"))?;
    file.write_all(format!("{secret}\n").as_bytes())
}

fn position_of(file: &Path) -> PathBuf {
    file.with_extension("position")
}

/// Brings the workspace to a revision, with jj or git.
async fn checkout(reference: &str, command: &Command<'_>) -> Ended {
    command.events.log(Level::Info, &format!("Checking out: {reference}")).await;
    if reference.is_empty() || reference.starts_with('-') {
        command.events.log(Level::Error, "the ref is none").await;
        return Ended::with(StepState::Failure);
    }
    let root = &command.world.hands.root;
    let is_git = root.stat(".jj").is_err() && root.stat(".git").is_ok();
    let (program, calls): (&str, Vec<Vec<&str>>) = match (is_git, reference) {
        (true, "@") => ("git", vec![vec!["status", "--short", "--branch"]]),
        (true, reference) => ("git", vec![vec!["checkout", "--quiet", reference, "--"]]),
        (false, "@") => ("jj", vec![vec!["workspace", "update-stale"]]),
        (false, reference) => ("jj", vec![vec!["workspace", "update-stale"], vec!["edit", reference]]),
    };
    let Some(found) = command.find(program) else {
        command.events.log(Level::Error, &format!("{program} is not installed here")).await;
        return Ended::with(StepState::Failure);
    };
    let mut ended = Ended::with(StepState::Success);
    for call in calls {
        let argv: Vec<String> =
            std::iter::once(found.as_str()).chain(call.iter().copied()).map(str::to_owned).collect();
        // Of several calls each is a command of its own.
        clean_up(&command.world.dir, command.step.index, ended);
        ended = command.run(argv, &format!("{program} {}", call.join(" "))).await;
        if ended.outcome != Some(StepState::Success) {
            break;
        }
    }
    ended
}

async fn run_agent(step: &AgentStep, command: &Command<'_>) -> Ended {
    let world = command.world;
    let Some(client) = world.client else {
        return Ended::error("ANTHROPIC_API_KEY environment variable is required");
    };
    let dir = world.dir.join(format!("agent-{}", command.step.index));
    if let Err(error) = std::fs::create_dir_all(&dir) {
        return Ended::error(format!("the agent's journal can't be made: {error}"));
    }
    let mut task = match super::agent_of(step, world.settings.rules()) {
        Ok(task) => task,
        Err(problems) => return Ended::error(problems.join("; ")),
    };
    let budget = task.budget.time.map_or(command.timeout, |time| time.min(command.timeout));
    task.budget.time = Some(budget);
    let started = Instant::now();
    let agent = agent::World {
        contact: world.contact,
        settings: world.settings,
        hands: world.hands,
        events: command.events,
        client,
        persistence: world.persistence,
        abort: world.abort,
        requester: world.requester,
        dir,
    };
    // An agent's own loop is large: not within every step's.
    let ending = Box::pin(agent::run(&task, &agent)).await;
    tracing::info!(
        step = command.step.index,
        seconds = started.elapsed().as_secs(),
        input_tokens = ending.usage.input_tokens,
        output_tokens = ending.usage.output_tokens,
        "an agent step ended"
    );
    let mut left = Left::default();
    left.outputs.insert("text".into(), ending.text);
    match ending.failure {
        None => Ended { left, ..Ended::with(StepState::Success) },
        Some((_, message)) => Ended { left, output: Some(message), ..Ended::with(StepState::Failure) },
    }
}
