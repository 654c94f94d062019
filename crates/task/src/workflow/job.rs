//! A job: its rows, and the steps of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use legwork_proto::task::Level;
use legwork_workflow::{Call, Item, Job, Lookup, MAX_ROWS, Template, Workflow, fill_node, minutes};
use tokio::sync::Semaphore;

use super::given;
use super::run::{Flow, JobEnd, MAX_DEPTH, Reins, Shared};
use super::scope::{Past, Scope};
use super::step::Post;
use crate::abort::Why;

/// Of a job, unless it says otherwise.
const JOB_TIME: Duration = Duration::from_secs(360 * 60);
/// Most bytes of another workflow's file.
const MAX_FILE: u64 = 4 << 20;

type Outputs = BTreeMap<String, String>;

impl Shared<'_> {
    pub(super) async fn job(
        &self,
        flow: &Flow<'_>,
        job: &Job,
        scope: Scope,
        reins: &Reins,
    ) -> (JobEnd, Past) {
        let name = format!("{}{}", flow.prefix, job.id);
        let holds = match &job.condition {
            Some(condition) => condition.holds(&scope).map_err(|e| format!("jobs.{name}.if: {e}")),
            None => Ok(scope.status().is_good),
        };
        let (end, outputs) = match holds {
            Ok(false) => {
                self.world.events.log(Level::Info, &format!("Skipped job: {name}")).await;
                (JobEnd::Skipped, Outputs::new())
            }
            Ok(true) => match self.rows(flow, job, scope, reins).await {
                Ok(ended) => ended,
                Err(error) => self.broken(flow, &name, error).await,
            },
            Err(error) => self.broken(flow, &name, error).await,
        };
        let word = end.word().to_owned();
        (end, Past { outcome: word.clone(), conclusion: word, outputs })
    }

    /// A job that can't even begin.
    async fn broken(&self, flow: &Flow<'_>, name: &str, error: String) -> (JobEnd, Outputs) {
        let text = format!("Job {name}: {error}");
        self.world.events.log(Level::Error, &text).await;
        if flow.counts {
            self.failed(text);
        }
        (JobEnd::Failed, Outputs::new())
    }

    /// Runs a job once for each row of its matrix, or once.
    async fn rows(
        &self,
        flow: &Flow<'_>,
        job: &Job,
        mut scope: Scope,
        reins: &Reins,
    ) -> Result<(JobEnd, Outputs), String> {
        // Within the job only its own steps count.
        (scope.has_failed, scope.has_skipped) = (false, false);
        let Some(matrix) = &job.matrix else { return Ok(self.row(flow, job, scope, None, reins).await) };
        let rows = matrix.rows(&scope).map_err(|error| format!("strategy.matrix: {error}"))?;
        let of = |template: &Option<Template>| {
            template.as_ref().map(|template| template.value(&scope)).transpose().map_err(|e| e.to_string())
        };
        let fail_fast = of(&matrix.fail_fast)?.is_none_or(|value| value.text() != "false");
        let most = of(&matrix.max_parallel)?.and_then(|value| value.text().parse::<usize>().ok());
        let most = most.filter(|most| *most > 0).unwrap_or(MAX_ROWS);
        let places = Semaphore::new(most);
        let own = Reins::default();
        let total = rows.len();
        let run = async {
            let mut running: FuturesUnordered<_> = rows
                .into_iter()
                .enumerate()
                .map(|(place, row)| {
                    let mut scope = scope.clone();
                    scope.abort = Some(own.abort.clone());
                    scope.matrix = Arc::new(row);
                    scope.strategy = Arc::new(strategy(place, total, fail_fast, most));
                    let (places, own) = (&places, &own);
                    async move {
                        let _place = places.acquire().await;
                        let ended = self.row(flow, job, scope, Some(place), own).await;
                        if ended.0 == JobEnd::Failed && fail_fast {
                            own.abort.wish(Why::Cancelled);
                        }
                        (place, ended)
                    }
                })
                .collect();
            let mut ends = BTreeMap::new();
            while let Some((place, ended)) = running.next().await {
                ends.insert(place, ended);
            }
            ends
        };
        let ends = tokio::select! {
            ends = run => ends,
            () = own.follow(reins, self.world.settings.cleanup) => BTreeMap::new(),
        };
        let mut outputs = Outputs::new();
        for (_, of_row) in ends.values() {
            outputs.extend(of_row.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.clone(), v.clone())));
        }
        let any = |end: JobEnd| ends.values().any(|(of_row, _)| *of_row == end);
        let end = match () {
            () if any(JobEnd::Failed) => JobEnd::Failed,
            () if any(JobEnd::Cancelled) => JobEnd::Cancelled,
            () if any(JobEnd::Good) => JobEnd::Good,
            () => JobEnd::Skipped,
        };
        Ok((end, outputs))
    }

    async fn row(
        &self,
        flow: &Flow<'_>,
        job: &Job,
        mut scope: Scope,
        place: Option<usize>,
        reins: &Reins,
    ) -> (JobEnd, Outputs) {
        let label = label(flow, job, &scope);
        if let Some(machine) = other_machine(job, &scope) {
            let text = format!("Skipped job: {label} (it is for {machine}, and this is Linux)");
            self.world.events.log(Level::Info, &text).await;
            return (JobEnd::Skipped, Outputs::new());
        }
        if let Some(call) = &job.call {
            return match Box::pin(self.call(flow, call, &label, scope, reins)).await {
                Ok(ended) => ended,
                Err(error) => self.broken(flow, &label, error).await,
            };
        }
        let _permit = self.permits.acquire().await;
        if scope.status().is_cancelled && !job.condition.as_ref().is_some_and(|c| c.asks_status()) {
            return (JobEnd::Cancelled, Outputs::new());
        }
        let base = match (job.base, flow.prefix.is_empty()) {
            (Some(base), true) => base,
            _ => {
                let key = format!("{}{}#{}", flow.prefix, job.id, place.unwrap_or(0));
                self.number(&key, job.steps.len())
            }
        };
        if let Err(error) = scope.set(&job.env) {
            return self.broken(flow, &label, error).await;
        }
        let time =
            job.timeout.as_ref().and_then(|time| minutes(&time.value(&scope).ok()?)).unwrap_or(JOB_TIME);
        let failed = self.steps(flow, job, &label, &mut scope, (base, time), reins).await;
        let mut outputs = Outputs::new();
        for (name, template) in &job.outputs {
            match template.fill(&scope) {
                Ok(value) => drop(outputs.insert(name.clone(), value)),
                Err(error) => {
                    self.world.events.log(Level::Error, &format!("{label}: outputs.{name}: {error}")).await;
                }
            }
        }
        let may_fail = || {
            let flag = job.continue_on_error.as_ref().and_then(|flag| flag.fill(&scope).ok());
            flag.is_some_and(|flag| flag == "true")
        };
        let end = match failed {
            None if scope.status().is_cancelled => JobEnd::Cancelled,
            None => JobEnd::Good,
            Some(_) if may_fail() => JobEnd::Good,
            Some(_) if scope.status().is_cancelled => JobEnd::Cancelled,
            Some(message) => {
                if flow.counts {
                    self.failed(message);
                }
                JobEnd::Failed
            }
        };
        (end, outputs)
    }

    /// The steps of a job, and what they have left to do at its end; the first failure.
    async fn steps(
        &self,
        flow: &Flow<'_>,
        job: &Job,
        label: &str,
        scope: &mut Scope,
        (base, time): (u64, Duration),
        reins: &Reins,
    ) -> Option<String> {
        let job_name = (!flow.workflow.is_plain).then(|| label.to_owned());
        let until = Instant::now() + time;
        let (mut failed, mut out_of_time) = (None, false);
        let mut posts: Vec<Post<'_>> = Vec::new();
        for step in &job.steps {
            if reins.cleaning.now().is_some() {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() && !out_of_time {
                out_of_time = true;
                scope.has_failed = true;
                let text = format!("Job {label} timed out");
                self.world.events.log(Level::Error, &text).await;
                failed.get_or_insert(text);
            }
            // What cleans up after a job that is out of time gets its own time.
            let time = if out_of_time { self.world.settings.cleanup } else { left };
            let at = super::step::At { index: base + step.index, job: job_name.as_deref(), time, reins };
            if let Some(message) = self.step(step, &at, scope, &mut posts).await {
                failed.get_or_insert(message);
            }
        }
        for post in posts.into_iter().rev() {
            if reins.cleaning.now().is_none() {
                self.post(&post, job_name.as_deref(), scope, reins).await;
            }
        }
        failed
    }

    /// Another workflow as a job.
    async fn call(
        &self,
        above: &Flow<'_>,
        call: &Call,
        label: &str,
        scope: Scope,
        reins: &Reins,
    ) -> Result<(JobEnd, Outputs), String> {
        if above.depth >= MAX_DEPTH {
            return Err(format!("workflows call one another more than {MAX_DEPTH} deep"));
        }
        let data = self.world.hands.root.read(&call.path, 0, 0, MAX_FILE).map_err(|e| e.to_string())?.data;
        let text = String::from_utf8(data).map_err(|_| format!("{}: no UTF-8", call.path))?;
        let node = legwork_yaml::parse(&text).map_err(|error| format!("{}: {error}", call.path))?;
        let first = |problems: Vec<String>| {
            format!("{}: {}", call.path, problems.first().map_or("it can't be read", String::as_str))
        };
        let workflow: Workflow =
            super::workflow_of_file(&node, self.world.settings.rules()).map_err(first)?;
        if !workflow.events.iter().any(|event| event == "workflow_call") {
            return Err(format!("{}: it can't be called: on has no workflow_call", call.path));
        }
        let mut given = Vec::new();
        for (name, template) in &call.with {
            given.push((name.clone(), template.value(&scope).map_err(|e| format!("with.{name}: {e}"))?));
        }
        let inputs = given::inputs(&workflow.inputs, &Item::Map(given), &scope)?;
        let secrets = match &call.secrets {
            None => given::secrets(&workflow.names("secrets"), self.world.secret),
            Some(list) => {
                let mut secrets = Vec::new();
                for (name, template) in list {
                    let value = template.fill(&scope).map_err(|e| format!("secrets.{name}: {e}"))?;
                    secrets.push((name.clone(), Item::Text(value)));
                }
                Item::Map(secrets)
            }
        };
        self.mask(&secrets);
        let mut inner = Scope { needs: Arc::default(), matrix: Arc::default(), ..scope };
        inner.env.clear();
        inner.given.inputs = Arc::new(inputs);
        inner.secrets = Arc::new(secrets);
        let counts = above.counts;
        let prefix = format!("{label}/");
        let flow = Flow { workflow: &workflow, scope: inner, prefix, depth: above.depth + 1, counts };
        let ends = self.jobs(&flow, reins).await;
        let mut scope = flow.scope.clone();
        let past = workflow.jobs.iter().zip(&ends);
        scope.needs = Arc::new(
            past.filter_map(|(job, end)| Some((job.id.clone(), end.as_ref()?.past.clone()))).collect(),
        );
        let fill = |(name, template): &(String, Template)| Some((name.clone(), template.fill(&scope).ok()?));
        let outputs = workflow.outputs.iter().filter_map(fill).collect();
        let any = |is: JobEnd| ends.iter().flatten().any(|end| end.end == is);
        let end = match () {
            () if any(JobEnd::Failed) || ends.iter().any(Option::is_none) => JobEnd::Failed,
            () if any(JobEnd::Cancelled) => JobEnd::Cancelled,
            () => JobEnd::Good,
        };
        Ok((end, outputs))
    }
}

fn strategy(place: usize, total: usize, fail_fast: bool, most: usize) -> Item {
    #[allow(clippy::cast_precision_loss, reason = "rows are few")]
    let number = |n: usize| Item::Number(n as f64);
    Item::Map(vec![
        ("fail-fast".into(), fail_fast.into()),
        ("job-index".into(), number(place)),
        ("job-total".into(), number(total)),
        ("max-parallel".into(), number(most.min(total))),
    ])
}

/// What a row is called: its job's name, with what makes it another one than its neighbours.
fn label(flow: &Flow<'_>, job: &Job, scope: &Scope) -> String {
    let values = match &*scope.matrix {
        Item::Map(row) => {
            let texts: Vec<String> = row
                .iter()
                .flat_map(|(_, value)| match value {
                    Item::Map(inner) => inner.iter().map(|(_, value)| value.text()).collect(),
                    value => vec![value.text()],
                })
                .collect();
            format!(" ({})", texts.join(", "))
        }
        _ => String::new(),
    };
    let text = format!("{}{}{values}", flow.prefix, job.id);
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// The system that a job is for, if that is another one.
fn other_machine(job: &Job, scope: &Scope) -> Option<&'static str> {
    let item = fill_node(job.runs_on.as_ref()?, scope).ok()?;
    let text = item.to_json_text().to_lowercase();
    let known = [("windows", "Windows"), ("macos", "macOS")];
    known.into_iter().find(|(word, _)| text.contains(word)).map(|(_, name)| name)
}
