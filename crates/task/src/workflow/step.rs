//! One step, from its start to its end.

mod agent_step;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use legwork_process::{Chunk, EndedBy, Status, Stream};
use legwork_proto::task::{Body, Level, Step as StepName, StepState};
use legwork_runner::What;
use legwork_workflow::{
    Action, AgentStep, Dialect, Item, Lookup, PYTHON_FILLER, Script, Shell, Step, Uses, minutes,
};

use super::commands::Commands;
use super::files::Files;
use super::lines::{Lines, Position};
use super::run::{Key, Reins, Shared, TOO_SHORT, World};
use super::scope::{Scope, failed};
use crate::abort::Abort;
use crate::agent;
use crate::events::Events;
use crate::hands::{Continue, command_file};
use crate::journal::{Entry, Left};
use crate::masks::{said_in, written_in};
use agent_step::run_agent;

/// Most bytes of a variable that the system hands on, and most lines of a summary.
const MAX_VARIABLE: usize = 128 << 10;
const MAX_SUMMARY: usize = 1000;
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
    pub(super) files: Option<Files>,
}

impl Ended {
    pub(super) fn with(outcome: StepState) -> Self {
        Self { outcome: Some(outcome), ..Self::default() }
    }

    /// The runner itself failed.
    pub(super) fn error(output: impl Into<String>) -> Self {
        Self { output: Some(output.into()), ..Self::with(StepState::Error) }
    }
}

/// Where a step stands.
pub(super) struct At<'a> {
    /// Among all steps of the task.
    pub(super) index: u64,
    /// Its job's name, where there are jobs.
    pub(super) job: Option<&'a str>,
    /// What is left of its job's time.
    pub(super) time: Duration,
    pub(super) reins: &'a Reins,
}

/// Something that is left to do when the job is over.
pub(super) struct Post<'a> {
    pub(super) name: StepName,
    pub(super) key: Key,
    pub(super) what: After<'a>,
}

/// What that is.
pub(super) enum After<'a> {
    /// A file that node runs.
    Node { uses: &'a Uses, dir: String, file: String, state: BTreeMap<String, String> },
    /// A cache to be kept.
    Cache { key: String, paths: String },
}

/// Most characters of a name that is what a step runs.
const NAME: usize = 50;

impl Shared<'_> {
    /// What a step is called, without secrets: also without the half of one that the cut leaves.
    fn name_of(&self, step: &Step, scope: &Scope) -> String {
        let masks = &self.world.events.masks;
        if let Action::Run { text, .. } = &step.action {
            for said in written_in(text) {
                masks.add_said(said);
            }
        }
        let name = masks.apply(step.name.fill(scope).unwrap_or_default());
        let name = name.chars().map(|c| if c.is_control() { ' ' } else { c });
        let most = if step.is_unnamed { NAME } else { 1000 };
        name.take(most).collect::<String>().trim_end().to_owned()
    }

    /// Runs a step of a job if it is to run; what to say of it if it failed.
    pub(super) async fn step<'s>(
        &self,
        step: &'s Step,
        at: &At<'_>,
        scope: &mut Scope,
        posts: &mut Vec<Post<'s>>,
    ) -> Option<String> {
        let name = StepName {
            step_name: self.name_of(step, scope),
            step_index: at.index,
            job_id: at.job.map(str::to_owned),
            step_key: step.id.clone(),
        };
        let events = self.world.events.in_step(name.clone());
        let key = (at.index, String::new());
        let ended = self.one(step, (&name, &key), at, scope, &events, posts).await?;
        (ended != StepState::Success).then(|| format!("Step {} failed", name.step_name))
    }

    /// A step of a job or of an action; how it ended, if it ran.
    pub(super) async fn one<'s>(
        &self,
        step: &'s Step,
        (name, key): (&StepName, &Key),
        at: &At<'_>,
        scope: &mut Scope,
        events: &Events,
        posts: &mut Vec<Post<'s>>,
    ) -> Option<StepState> {
        let is_sub = !key.1.is_empty();
        let before = self.past.get(key);
        if let Some(Some(Entry::StepEnd { state, outcome, left, told, .. })) = before {
            if self.last_end.as_ref() == Some(key) && !is_sub {
                events.tell(told.clone()).await;
            }
            scope.take(step.id.as_deref(), *outcome, *state, left);
            return Some(*state);
        }
        let mut inner = scope.clone();
        let ready = inner.set(&step.env).and_then(|()| match &step.condition {
            Some(condition) => condition.holds(&inner).map_err(|error| failed("if", &error)),
            None => Ok(inner.status().is_good),
        });
        if ready == Ok(false) {
            if let Some(condition) = &step.condition {
                let text = format!("Skipped: {} (if: {})", name.step_name, condition.text);
                events.log(Level::Info, &text).await;
            }
            scope.skip(step.id.as_deref());
            return None;
        }
        let started = Instant::now();
        if before.is_none() && !is_sub {
            events.tell(Body::StepStart {}).await;
        }
        let mut ended = match ready.and_then(|_| self.begin(key, before.is_some())) {
            Ok(()) => self.act(step, (name, key), at, &inner, events, posts).await,
            Err(error) => Ended::error(error),
        };
        let outcome = ended.outcome.unwrap_or(StepState::Error);
        let is_aborted = at.reins.abort.now().is_some();
        let may_fail = || step.continue_on_error.as_ref().and_then(|flag| flag.fill(&inner).ok());
        let forgiven =
            outcome != StepState::Success && !is_aborted && may_fail().is_some_and(|flag| flag == "true");
        if forgiven {
            let code = ended.exit_code.map_or_else(String::new, |code| format!(" with exit status {code}"));
            events.log(Level::Error, &format!("Step failed{code}: continue-on-error")).await;
        }
        let state = if forgiven { StepState::Success } else { outcome };
        let mut told = Body::StepEnd {
            step_state: state,
            output: ended.output.take().filter(|text| !text.is_empty()),
            exit_code: ended.exit_code,
            duration_ms: Some(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)),
        };
        if !is_aborted || outcome == StepState::Success {
            let (left, (index, sub)) = (ended.left.clone(), key.clone());
            let entry = Entry::StepEnd { index, sub, state, outcome, left, told: told.clone() };
            let noted = self.journal.lock().unwrap_or_else(PoisonError::into_inner).add(&entry);
            if let (Err(error), Body::StepEnd { output, .. }) = (noted, &mut told) {
                *output = Some(format!("the task's journal can't be written: {error}"));
            }
        }
        scope.take(step.id.as_deref(), outcome, state, &ended.left);
        match told {
            Body::StepEnd { output: Some(output), .. } if is_sub => events.log(Level::Error, &output).await,
            _ if is_sub => {}
            told => events.tell(told).await,
        }
        clean_up(&self.world.dir, key, ended);
        Some(state)
    }

    /// Notes that a step is about to run. One that an earlier process began is gone on with:
    /// its command has a file from before it starts until its end is noted, and by that file
    /// it is found again, or known to be lost.
    fn begin(&self, (index, sub): &Key, was_begun: bool) -> Result<(), String> {
        if was_begun {
            return Ok(());
        }
        let entry = Entry::StepBegin { index: *index, sub: sub.clone() };
        let noted = self.journal.lock().unwrap_or_else(PoisonError::into_inner).add(&entry);
        noted.map_err(|error| format!("the task's journal can't be written: {error}"))
    }

    /// Does what a step does; its own variables are in `scope` already.
    async fn act<'s>(
        &self,
        step: &'s Step,
        (name, key): (&StepName, &Key),
        at: &At<'_>,
        scope: &Scope,
        events: &Events,
        posts: &mut Vec<Post<'s>>,
    ) -> Ended {
        let time = match step.timeout.as_ref().map(|time| time.value(scope)) {
            None => at.time,
            Some(Ok(time)) => minutes(&time).map_or(at.time, |time| time.min(at.time)),
            Some(Err(error)) => return Ended::error(failed("timeout-minutes", &error)),
        };
        let workdir = match step.workdir.fill(scope) {
            Ok(workdir) => workdir,
            Err(error) => return Ended::error(failed("working-directory", &error)),
        };
        let reins = at.reins;
        let abort = if reins.abort.now().is_some() { &reins.cleaning } else { &reins.abort };
        let command =
            Command { key, job: at.job, scope, timeout: time, workdir, world: self.world, events, abort };
        match &step.action {
            Action::Run { text, script, shell } => {
                tell_command(events, "Running: ", text).await;
                command.script(script, shell, text, self.is_strict).await
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
            Action::Uses(uses) => {
                let call = super::uses::Call { uses, name, at };
                Box::pin(self.uses(&call, &command, posts)).await
            }
            Action::Unsupported(what) => {
                events.log(Level::Error, &format!("Unsupported step: {what}")).await;
                Ended::with(StepState::Failure)
            }
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

pub(super) struct Command<'a> {
    pub(super) key: &'a Key,
    pub(super) job: Option<&'a str>,
    pub(super) scope: &'a Scope,
    pub(super) timeout: Duration,
    pub(super) workdir: String,
    pub(super) world: &'a World<'a>,
    pub(super) events: &'a Events,
    pub(super) abort: &'a Abort,
}

impl Command<'_> {
    pub(super) fn inherited_path(&self) -> Option<&str> {
        self.world.settings.env.get("PATH").map(String::as_str)
    }

    pub(super) fn find(&self, name: &str) -> Option<String> {
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
        file_of(&self.world.dir, self.key)
    }

    /// Runs a script by its shell.
    async fn script(&self, script: &Script, shell: &Shell, text: &str, strict: bool) -> Ended {
        let values = match script.variables(self.scope) {
            Ok(values) => values,
            Err(error) => return Ended::error(failed("run", &error)),
        };
        if let Some((_, value)) = values.iter().find(|(_, value)| value.len() >= MAX_VARIABLE) {
            let text = format!(
                "a value of ${{{{ }}}} has {} bytes: more than the system hands to a program; put it into a file",
                value.len()
            );
            return Ended::error(text);
        }
        let argv = match self.argv(shell, text, strict) {
            Ok(argv) => argv,
            Err(cause) => {
                self.events.log(Level::Error, &cause).await;
                return Ended::with(StepState::Failure);
            }
        };
        let is_python = shell.dialect() == Dialect::Python && script.has_values();
        let make = |folder: &Path| -> std::io::Result<Vec<String>> {
            if *shell == Shell::Inline {
                return Ok(argv);
            }
            let ending = match shell.dialect() {
                Dialect::PowerShell => ".ps1",
                Dialect::Python => ".py",
                _ => ".sh",
            };
            let file = folder.join(format!("script{ending}"));
            std::fs::write(&file, &script.text)?;
            let mut path = file.to_string_lossy().into_owned();
            if is_python {
                let filler = folder.join("fill.py");
                std::fs::write(&filler, PYTHON_FILLER)?;
                path = format!("{}\0{path}", filler.to_string_lossy());
            }
            Ok(argv.iter().flat_map(|arg| place(arg, &path)).collect())
        };
        self.run_with(make, values, text).await
    }

    fn argv(&self, shell: &Shell, script: &str, strict: bool) -> Result<Vec<String>, String> {
        if strict {
            if script.contains(META) {
                return Err(REJECTED.into());
            }
            let words: Vec<String> = script.split_whitespace().map(str::to_owned).collect();
            let (first, rest) = words.split_first().ok_or("nothing to run")?;
            let program = self.find(first).ok_or_else(|| format!("{first}: command not found"))?;
            return Ok(std::iter::once(program).chain(rest.iter().cloned()).collect());
        }
        let (names, args): (Vec<&str>, Vec<String>) = match shell {
            Shell::Inline => return Ok(["/bin/sh", "-e", "-c", script].map(String::from).to_vec()),
            Shell::Usual => (vec!["bash", "sh"], ["-e", "{0}"].map(String::from).to_vec()),
            Shell::Program { program, args } if program == "python" => {
                (vec!["python", "python3"], args.clone())
            }
            Shell::Program { program, args } => (vec![program], args.clone()),
        };
        let found = names.iter().find_map(|name| self.find(name));
        let found = found.ok_or_else(|| format!("{} is not installed here", names[0]))?;
        Ok(std::iter::once(found).chain(args).collect())
    }

    /// Runs a program.
    pub(super) async fn run(&self, argv: Vec<String>, subject: &str) -> Ended {
        self.run_with(|_| Ok(argv), Vec::new(), subject).await
    }

    /// Runs a program that is made in the folder of the step's files, with further variables.
    pub(super) async fn run_with(
        &self,
        make: impl FnOnce(&Path) -> std::io::Result<Vec<String>>,
        more: Vec<(String, String)>,
        subject: &str,
    ) -> Ended {
        let Some(workdir) = self.located() else {
            return Ended::error("working-directory must be within workspace");
        };
        let scratch = self.world.settings.scratch();
        // A step of an earlier process has its files already: their name is kept.
        let name_file = self.file().with_extension("files");
        let name = std::fs::read_to_string(&name_file).unwrap_or_else(|_| Files::fresh_name());
        let made = std::fs::write(&name_file, &name).and_then(|()| {
            let files = Files::make(&scratch, &name)?;
            let argv = make(files.folder())?;
            Ok((files, argv))
        });
        let (files, argv) = match made {
            Ok(made) => made,
            Err(error) => return Ended::error(format!("the step's files can't be made: {error}")),
        };
        let mut env = self.scope.variables(self.inherited_path());
        env.extend(files.variables());
        env.extend(more);
        self.usual(&mut env);
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
        let mut left = Left::default();
        let mut ended = self.supervise(&program, &mut left).await;
        match files.read() {
            Ok((written, summary)) => {
                self.tell_summary(&summary).await;
                left.outputs.extend(written.outputs);
                left.state.extend(written.state);
                ended.left = Left { outputs: left.outputs, state: left.state, ..written };
            }
            Err(cause) if ended.outcome == Some(StepState::Success) => {
                self.events.log(Level::Error, &cause).await;
                ended = Ended { output: Some(cause), ..Ended::with(StepState::Failure) };
            }
            Err(_) => {}
        }
        ended.files = Some(files);
        ended
    }

    /// What every program of a job finds.
    fn usual(&self, env: &mut BTreeMap<String, String>) {
        let mut usual = |name: &str, value: String| {
            env.entry(name.into()).or_insert(value);
        };
        usual("CI", "true".into());
        if self.job.is_none() {
            return;
        }
        usual("GITHUB_ACTIONS", "true".into());
        usual("GITHUB_JOB", self.scope.job.clone());
        usual("GITHUB_ACTION", format!("__run_{}", self.key.0));
        if let Some(path) = &self.scope.action_path {
            usual("GITHUB_ACTION_PATH", path.clone());
        }
        if let Item::Map(runner) = &*self.scope.runner {
            for (key, value) in runner.iter().filter(|(key, _)| key != "debug") {
                usual(&format!("RUNNER_{}", key.to_uppercase()), value.text());
            }
        }
    }

    async fn tell_summary(&self, summary: &str) {
        for line in summary.lines().take(MAX_SUMMARY) {
            self.events.log(Level::Info, &format!("Summary: {line}")).await;
        }
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

    async fn supervise(&self, program: &legwork_runner::Command, left: &mut Left) -> Ended {
        let mut commands = Commands::default();
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
                    if let Some((level, line)) = self.obey(level, line, &mut commands, left).await {
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
        let status = world.hands.run_settling(program, world.requester, &file, self.abort, from, each).await;
        for (stream, line) in lines.rest() {
            if let Some((level, line)) = self.obey(level(stream), line, &mut commands, left).await {
                held.add(Instant::now(), level, line);
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

    /// Obeys a line that is a command to us; what is to be told of it, if anything.
    async fn obey(
        &self,
        level: Level,
        line: String,
        commands: &mut Commands,
        left: &mut Left,
    ) -> Option<(Level, String)> {
        let Some(said) = said_in(&line).filter(|_| !commands.is_stopped()) else {
            // The plain form knows no other command.
            return if self.job.is_none() { Some((level, line)) } else { commands.obey(level, line, left) };
        };
        if !self.events.masks.add_said(said) && !said.trim().is_empty() {
            self.events.log(Level::Info, TOO_SHORT).await;
        }
        // Whoever comes after a kill does not see this line again.
        if let Err(error) = note_mask(&self.world.dir, said) {
            tracing::warn!(error = %error, "a mask can't be noted: it is lost if the runner is killed");
        }
        None
    }
}

/// An argument with the script's file in it.
fn place(arg: &str, path: &str) -> Vec<String> {
    if arg == "{0}" {
        return path.split('\0').map(str::to_owned).collect();
    }
    vec![arg.replace("{0}", path.rsplit('\0').next().unwrap_or(path))]
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
pub(super) fn clean_up(dir: &Path, key: &Key, ended: Ended) {
    let file = file_of(dir, key);
    for path in [position_of(&file), file.with_extension("files"), file] {
        let _ = std::fs::remove_file(path);
    }
    drop(ended.files);
}

/// Where a step's command keeps its output.
fn file_of(dir: &Path, (index, sub): &Key) -> PathBuf {
    let which = if sub.is_empty() { index.to_string() } else { format!("{index}/{sub}") };
    command_file(dir, "step", &which)
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
        clean_up(&command.world.dir, command.key, ended);
        ended = command.run(argv, &format!("{program} {}", call.join(" "))).await;
        if ended.outcome != Some(StepState::Success) {
            break;
        }
    }
    ended
}
