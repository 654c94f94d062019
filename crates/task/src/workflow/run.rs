//! A workflow from its start to its end, or on from where an earlier process was.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use legwork_proto::task::{Code, Level};
use legwork_runner::Requester;
use legwork_workflow::{Item, Job, Workflow};
use tokio::sync::Semaphore;

use super::given::{self, Given};
use super::scope::{Past, Scope};
use super::step;
use crate::abort::{Abort, Why};
use crate::agent::Persistence;
use crate::events::Events;
use crate::hands::Hands;
use crate::journal::{Entry, Journal};
use crate::settings::Settings;
use crate::task::Contact;
use legwork_base::Secret;
use legwork_messages::Client;

/// Said of a mask that is none. What it was is not said.
pub(super) const TOO_SHORT: &str =
    "A mask of fewer than 4 characters is not used: it would stand in every other word";
/// Workflows that call one another, and actions that use one another.
pub(super) const MAX_DEPTH: usize = 8;
/// What cleans up has so long where the process itself is to end.
const STOPPED: Duration = Duration::from_secs(10);

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
    /// What it is given.
    pub(crate) given: Given,
    /// Finds a secret by its name.
    pub(crate) secret: &'a (dyn Fn(&str) -> Option<Secret> + Sync),
}

/// Why it failed, if it did.
pub(crate) type Ending = Option<(Code, String)>;

/// Which step: its number, and which one of an action's.
pub(super) type Key = (u64, String);

/// What all jobs share.
pub(super) struct Shared<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) is_strict: bool,
    pub(super) journal: Mutex<Journal>,
    /// Steps of an earlier process: begun, and over.
    pub(super) past: HashMap<Key, Option<Entry>>,
    /// The one that ended last: its end was noted, and perhaps not told.
    pub(super) last_end: Option<Key>,
    /// Numbers of steps that were not known beforehand, and the next one.
    numbered: Mutex<(HashMap<String, u64>, u64)>,
    /// The first failure that counts.
    failed: Mutex<Ending>,
    /// Jobs that may run now.
    pub(super) permits: Semaphore,
}

/// A workflow that runs: the task's, or one that a job of it is.
pub(super) struct Flow<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) scope: Scope,
    /// Before the names of its jobs.
    pub(super) prefix: String,
    pub(super) depth: usize,
    /// Whether its failures are the task's.
    pub(super) counts: bool,
}

/// How work is ended: first the work itself, then what cleans up after it.
#[derive(Debug, Clone, Default)]
pub(super) struct Reins {
    pub(super) abort: Abort,
    pub(super) cleaning: Abort,
}

impl Reins {
    /// Passes on what those above wish. Never comes back.
    pub(super) async fn follow(&self, above: &Reins, time: Duration) {
        let pass = async {
            let why = above.abort.wished().await;
            self.abort.wish(why);
        };
        tokio::select! {
            () = pass => {}
            _ = self.abort.wished() => {}
        }
        let limit = async {
            let why = self.abort.wished().await;
            tokio::time::sleep(if why == Why::Stopped { time.min(STOPPED) } else { time }).await;
            why
        };
        let stopped = async {
            above.abort.stopped().await;
            tokio::time::sleep(time.min(STOPPED)).await;
            Why::Stopped
        };
        let why = tokio::select! {
            why = limit => why,
            why = stopped => why,
            why = above.cleaning.wished() => why,
        };
        self.cleaning.wish(why);
        std::future::pending().await
    }
}

/// What is known of a job that is over.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) end: JobEnd,
    pub(super) past: Past,
    /// It went well, and so did all that it needed, and what those needed: a report that is
    /// always made does not make a failed test good.
    pub(super) is_good: bool,
    /// It failed, or something before it did.
    pub(super) has_failed: bool,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobEnd {
    Good,
    Failed,
    Cancelled,
    Skipped,
}

impl JobEnd {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Good => "success",
            Self::Failed => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// Runs a workflow to its end.
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
    for note in &workflow.notes {
        world.events.log(Level::Info, &format!("Note: {note}")).await;
    }
    let shared = Shared::new(workflow, world, journal, entries);
    let names = workflow.names("secrets");
    let scope = Scope {
        given: world.given.clone(),
        secrets: Arc::new(given::secrets(&names, world.secret)),
        runner: Arc::new(given::runner(&world.hands.place.tmp.to_string_lossy())),
        root: Some(world.hands.root.clone()),
        ..Scope::default()
    };
    shared.mask(&scope.secrets);
    let flow = Flow { workflow, scope, prefix: String::new(), depth: 0, counts: true };
    let above = Reins { abort: world.abort.clone(), ..Reins::default() };
    let reins = Reins { abort: world.abort.clone(), ..Reins::default() };
    tokio::select! {
        _ = shared.jobs(&flow, &reins) => {}
        () = reins.follow(&above, world.settings.cleanup) => {}
    }
    if let Some(why) = world.abort.now() {
        return Some((Code::Aborted, why.message().into()));
    }
    shared.failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Shared<'a> {
    fn new(workflow: &Workflow, world: &'a World<'a>, journal: Journal, entries: Vec<Entry>) -> Self {
        let mut past = HashMap::new();
        let last_end = match entries.last() {
            Some(Entry::StepEnd { index, sub, .. }) => Some((*index, sub.clone())),
            _ => None,
        };
        let known = workflow.jobs.iter().filter_map(|job| Some(job.base? + job.steps.len() as u64)).max();
        let (mut numbered, mut next) = (HashMap::new(), known.unwrap_or(0));
        for entry in entries {
            match &entry {
                Entry::StepBegin { index, sub } => drop(past.insert((*index, sub.clone()), None)),
                Entry::StepEnd { index, sub, .. } => drop(past.insert((*index, sub.clone()), Some(entry))),
                Entry::Numbered { job, base, steps } => {
                    next = next.max(base + steps);
                    numbered.insert(job.clone(), *base);
                }
                _ => {}
            }
        }
        Self {
            world,
            is_strict: world.settings.strict && workflow.is_plain,
            journal: Mutex::new(journal),
            past,
            last_end,
            numbered: Mutex::new((numbered, next)),
            failed: Mutex::new(None),
            permits: Semaphore::new(workflow.parallel),
        }
    }

    /// Secrets are no more to be told than masks are.
    pub(super) fn mask(&self, secrets: &Item) {
        if let Item::Map(entries) = secrets {
            for (_, value) in entries {
                self.world.events.masks.add(&value.text());
            }
        }
    }

    /// The number of the first step of a job that was not known beforehand.
    pub(super) fn number(&self, job: &str, steps: usize) -> u64 {
        let mut numbered = self.numbered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = numbered.0.get(job) {
            return *base;
        }
        let (base, steps) = (numbered.1, steps as u64);
        numbered.1 += steps;
        numbered.0.insert(job.to_owned(), base);
        let entry = Entry::Numbered { job: job.to_owned(), base, steps };
        if let Err(error) = self.journal.lock().unwrap_or_else(PoisonError::into_inner).add(&entry) {
            tracing::warn!(error = %error, "the numbers of a job's steps can't be noted");
        }
        base
    }

    /// Notes a failure that counts.
    pub(super) fn failed(&self, message: String) {
        let mut first = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert((Code::StepFailed, message));
    }

    /// Runs all jobs of a workflow.
    pub(super) async fn jobs(&self, flow: &Flow<'_>, reins: &Reins) -> Vec<Option<End>> {
        let jobs = &flow.workflow.jobs;
        let mut ends: Vec<Option<End>> = vec![None; jobs.len()];
        let mut started = vec![false; jobs.len()];
        let mut running = FuturesUnordered::new();
        let mut scope = flow.scope.clone();
        scope.abort = Some(reins.abort.clone());
        if !flow.workflow.is_plain {
            scope.env.extend(self.world.given.variables());
        }
        if let Err(error) = scope.set(&flow.workflow.env) {
            self.world.events.log(Level::Error, &error).await;
            self.failed(error);
            return ends;
        }
        loop {
            for (place, job) in jobs.iter().enumerate() {
                let ready = !started[place] && job.needs.iter().all(|need| ends[*need].is_some());
                if !ready {
                    continue;
                }
                started[place] = true;
                let scope = scope_of(flow.workflow, job, &ends, &scope);
                running.push(async move {
                    let (was_good, had_failed) = (!scope.has_skipped && !scope.has_failed, scope.has_failed);
                    let (end, past) = self.job(flow, job, scope, reins).await;
                    let is_good = end == JobEnd::Good && was_good;
                    (place, End { end, past, is_good, has_failed: had_failed || end == JobEnd::Failed })
                });
            }
            let Some((place, end)) = running.next().await else { return ends };
            ends[place] = Some(end);
        }
    }
}

/// What a job starts with: what it needs counts, and all that that needed.
fn scope_of(workflow: &Workflow, job: &Job, ends: &[Option<End>], above: &Scope) -> Scope {
    let mut scope = above.clone();
    let mut needs = std::collections::BTreeMap::new();
    for need in &job.needs {
        if let Some(End { past, .. }) = &ends[*need] {
            needs.insert(workflow.jobs[*need].id.clone(), past.clone());
        }
    }
    let any = |is: &dyn Fn(&End) -> bool| job.needs.iter().any(|need| ends[*need].as_ref().is_some_and(is));
    scope.has_failed = any(&|end| end.has_failed);
    scope.has_skipped = any(&|end| !end.is_good);
    scope.needs = Arc::new(needs);
    scope.job.clone_from(&job.id);
    scope
}
