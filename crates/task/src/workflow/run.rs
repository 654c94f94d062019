//! Jobs in their order, or side by side.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use legwork_proto::task::{Body, Code, Level, Step as StepName, StepState};
use legwork_runner::Requester;
use legwork_workflow::{Action, Job, Step, Workflow};

use super::scope::{Past, Scope};
use super::step::{self, Ended};
use crate::abort::Abort;
use crate::agent::Persistence;
use crate::events::Events;
use crate::hands::Hands;
use crate::journal::{Entry, Journal};
use crate::masks::written_in;
use crate::settings::Settings;
use crate::task::Contact;
use legwork_messages::Client;

/// Most characters of a name that is what a step runs.
const NAME: usize = 50;
/// Said of a mask that is none. What it was is not said.
pub(super) const TOO_SHORT: &str =
    "A mask of one or two characters is not used: it would stand in every other word";

/// What a workflow works with.
pub(crate) struct World<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) hands: &'a Hands,
    pub(crate) events: &'a Events,
    /// For agent steps.
    pub(crate) client: Option<&'a Client>,
    pub(crate) persistence: Option<&'a Persistence>,
    pub(crate) abort: &'a Abort,
    pub(crate) requester: &'a Requester,
    /// What it has of a hub beside: for agent steps.
    pub(crate) contact: &'a Contact,
    /// Where its journal and the files of its commands are.
    pub(crate) dir: PathBuf,
}

/// Why it failed, if it did.
pub(crate) type Ending = Option<(Code, String)>;

/// What all jobs share.
struct Shared<'a> {
    workflow: &'a Workflow,
    world: &'a World<'a>,
    journal: Mutex<Journal>,
    /// Steps of an earlier process: begun, and over.
    past: BTreeMap<u64, Option<Entry>>,
    /// The one that ended last: its end was noted, and perhaps not told.
    last_end: Option<u64>,
    /// The first failure that counts.
    failed: Mutex<Ending>,
}

/// What is known of a job that is over.
#[derive(Debug, Clone)]
struct End {
    end: JobEnd,
    past: Past,
    /// It went well, and so did all that it needed, and what those needed: a report that is
    /// always made does not make a failed test good.
    is_good: bool,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobEnd {
    Good,
    Failed,
    Skipped,
}

/// Runs a workflow to its end, or on from where an earlier process was.
pub(crate) async fn run(workflow: &Workflow, world: &World<'_>) -> Ending {
    let path = world.dir.join("workflow.journal");
    let (journal, entries) = match Journal::open(&path) {
        Ok(opened) => opened,
        Err(error) => {
            return Some((Code::Internal, format!("the journal {} can't be used: {error}", path.display())));
        }
    };
    for mask in &workflow.masks {
        if !world.events.masks.add(mask) {
            world.events.log(Level::Info, TOO_SHORT).await;
        }
    }
    for said in step::noted_masks(&world.dir) {
        world.events.masks.add_said(&said);
    }
    let mut past = BTreeMap::new();
    let last_end = match entries.last() {
        Some(Entry::StepEnd { index, .. }) => Some(*index),
        _ => None,
    };
    for entry in entries {
        match &entry {
            Entry::StepBegin { index } => drop(past.insert(*index, None)),
            Entry::StepEnd { index, .. } => drop(past.insert(*index, Some(entry))),
            _ => {}
        }
    }
    let shared =
        Shared { workflow, world, journal: Mutex::new(journal), past, last_end, failed: Mutex::new(None) };
    shared.jobs().await;
    if let Some(why) = world.abort.now() {
        return Some((Code::Aborted, why.message().into()));
    }
    shared.failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    async fn jobs(&self) {
        let jobs = &self.workflow.jobs;
        let mut ends: Vec<Option<End>> = vec![None; jobs.len()];
        let mut started = vec![false; jobs.len()];
        let mut running = FuturesUnordered::new();
        let mut env = Scope::default();
        env.set(&self.workflow.env);
        loop {
            for (place, job) in jobs.iter().enumerate() {
                if running.len() >= self.workflow.parallel || self.world.abort.now().is_some() {
                    break;
                }
                let ready = !started[place] && job.needs.iter().all(|need| ends[*need].is_some());
                if !ready {
                    continue;
                }
                started[place] = true;
                let scope = self.scope_of(job, &ends, &env);
                let above = scope.has_failed && !job.needs.is_empty();
                running.push(async move {
                    let (end, past) = self.job(job, scope).await;
                    (place, End { is_good: end == JobEnd::Good && !above, end, past })
                });
            }
            let Some((place, end)) = running.next().await else { return };
            ends[place] = Some(end);
        }
    }

    /// What a job starts with. Without needs it counts what was before it, one after the
    /// other; side by side it counts nothing.
    fn scope_of(&self, job: &Job, ends: &[Option<End>], env: &Scope) -> Scope {
        let mut scope = env.clone();
        for need in &job.needs {
            if let Some(End { past, .. }) = &ends[*need] {
                scope.needs.insert(self.workflow.jobs[*need].id.clone(), past.clone());
            }
        }
        scope.has_failed = match (job.needs.is_empty(), self.workflow.parallel) {
            (false, _) => job.needs.iter().any(|need| ends[*need].as_ref().is_some_and(|end| !end.is_good)),
            (true, 1) => ends.iter().flatten().any(|end| end.end == JobEnd::Failed),
            (true, _) => false,
        };
        scope
    }

    async fn job(&self, job: &Job, mut scope: Scope) -> (JobEnd, Past) {
        let holds = match &job.condition {
            Some(condition) => condition.holds(&scope),
            None => !scope.has_failed,
        };
        let word = |text: &str| Past { conclusion: text.into(), outcome: text.into(), ..Past::default() };
        if !holds {
            self.world.events.log(Level::Info, &format!("Skipped job: {}", job.id)).await;
            return (JobEnd::Skipped, word("skipped"));
        }
        // Within the job only its own steps count.
        scope.has_failed = false;
        scope.set(&job.env);
        let until = job.timeout.map(|time| Instant::now() + time);
        let (mut failed, mut out_of_time) = (None, false);
        for step in &job.steps {
            if self.world.abort.now().is_some() {
                break;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) && !out_of_time {
                out_of_time = true;
                scope.has_failed = true;
                let text = format!("Job {} timed out", job.id);
                self.world.events.log(Level::Error, &text).await;
                failed.get_or_insert(text);
            }
            // What cleans up after a job that is out of time gets its own time.
            let time = if out_of_time { None } else { left };
            if let Some(message) = self.step(step, &mut scope, time).await {
                failed.get_or_insert(message);
            }
        }
        let outputs =
            job.outputs.iter().map(|(name, template)| (name.clone(), template.fill(&scope))).collect();
        let (end, text) = match failed {
            None => (JobEnd::Good, "success"),
            Some(_) if job.continue_on_error => (JobEnd::Good, "success"),
            Some(message) => {
                let mut first = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert((Code::StepFailed, message));
                (JobEnd::Failed, "failure")
            }
        };
        (end, Past { outputs, ..word(text) })
    }

    /// What a step is called, without secrets: also without the half of one that the cut leaves.
    fn name_of(&self, step: &Step, scope: &Scope) -> String {
        let masks = &self.world.events.masks;
        if let Action::Run { script, .. } = &step.action {
            for said in written_in(script) {
                masks.add_said(said);
            }
        }
        let name = masks.apply(step.name.fill(scope));
        if step.is_unnamed { name.chars().take(NAME).collect() } else { name }
    }

    /// Runs a step if it is to run; what to say of it if it failed.
    async fn step(
        &self,
        step: &Step,
        scope: &mut Scope,
        time: Option<std::time::Duration>,
    ) -> Option<String> {
        let name = self.name_of(step, scope);
        let events = self.world.events.in_step(StepName { step_name: name.clone(), step_index: step.index });
        let before = self.past.get(&step.index);
        if let Some(Some(Entry::StepEnd { state, outcome, left, told, .. })) = before {
            if self.last_end == Some(step.index) {
                events.tell(told.clone()).await;
            }
            scope.take(step.id.as_deref(), *outcome, *state, left);
            return (*state != StepState::Success).then(|| format!("Step {name} failed"));
        }
        let mut inner = scope.clone();
        inner.set(&step.env);
        let holds = match &step.condition {
            Some(condition) => condition.holds(&inner),
            None => !inner.has_failed,
        };
        if !holds {
            if let Some(condition) = &step.condition {
                events.log(Level::Info, &format!("Skipped: {name} (if: {})", condition.text)).await;
            }
            scope.skip(step.id.as_deref());
            return None;
        }
        let started = Instant::now();
        if before.is_none() {
            events.tell(Body::StepStart {}).await;
        }
        let mut ended = match self.begin(step, before.is_some()) {
            Ok(()) => step::run(step, &inner, self.world.settings.strict, time, self.world, &events).await,
            Err(error) => Ended::error(format!("the task's journal can't be written: {error}")),
        };
        let outcome = ended.outcome.unwrap_or(StepState::Error);
        let forgiven =
            step.continue_on_error && outcome != StepState::Success && self.world.abort.now().is_none();
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
        let aborted = self.world.abort.now().is_some() && outcome != StepState::Success;
        if !aborted {
            let (left, index) = (ended.left.clone(), step.index);
            let entry = Entry::StepEnd { index, state, outcome, left, told: told.clone() };
            let noted = self.journal.lock().unwrap_or_else(PoisonError::into_inner).add(&entry);
            if let (Err(error), Body::StepEnd { output, .. }) = (noted, &mut told) {
                *output = Some(format!("the task's journal can't be written: {error}"));
            }
        }
        scope.take(step.id.as_deref(), outcome, state, &ended.left);
        events.tell(told).await;
        step::clean_up(&self.world.dir, step.index, ended);
        (state != StepState::Success).then(|| format!("Step {name} failed"))
    }

    /// Notes that a step is about to run. One that an earlier process began is gone on with:
    /// its command has a file from before it starts until its end is noted, and by that file
    /// it is found again, or known to be lost.
    fn begin(&self, step: &Step, was_begun: bool) -> std::io::Result<()> {
        if was_begun {
            return Ok(());
        }
        let entry = Entry::StepBegin { index: step.index };
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).add(&entry)
    }
}
