//! Work on many hosts: who is chosen, in which waves, and what becomes of each.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use legwork_remote::{
    Binaries, Client, Error, Local, Options, Outcome, Pool, Ssh, Template, Transport, Whom,
};
use serde_json::Map;

use super::connected::{Connected, explain, invalid};
use super::inventory::{Inventory, Target};
use super::report::{self, Printer, Report, State, Style};
use super::template::{Condition, Engine, Variables};
use super::work::Work;
use super::{harden, input, login};
use crate::args::ssh::SshCommon;
use crate::{exit, output};

/// With more hosts than this, connections do not stay for the next call.
const FEW: usize = 20;
/// Beyond a command's time, the runner lives so much longer.
const SPARE: Duration = Duration::from_secs(60);

/// How hosts are reached, and as whom work is done there.
pub(super) struct Fleet {
    pub(super) common: SshCommon,
    pub(super) inventory: Arc<Inventory>,
    /// As the command line says; `None`: as the inventory says of each.
    pub(super) whom: Option<Whom>,
    /// For whomever the inventory names.
    pub(super) password: legwork_remote::Secret,
}

impl Fleet {
    /// Does the work on the hosts; the exit status.
    pub(super) async fn carry_out(&self, targets: Vec<Target>, work: Work) -> Result<u8> {
        let (targets, mut reports) = match &self.common.condition {
            Some(condition) => self.choose(targets, &Condition::new(condition)?).await?,
            None => (targets, Vec::new()),
        };
        let style = match &self.common {
            common if common.json_lines => Style::Lines,
            common if common.json => Style::Json,
            common if common.group => Style::Grouped,
            _ if targets.len() + reports.len() == 1 => Style::Plain,
            _ => Style::Prefixed,
        };
        let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
        let printer = Arc::new(Printer::new(style, &names, self.common.output_dir.as_deref())?);
        reports.iter().for_each(|report| printer.ended(report));
        let begun = Instant::now();
        let done = self.work(targets, work, &printer).await?;
        let Some(done) = done else { return Ok(exit::PIPE) };
        reports.extend(done);
        if let Some(file) = &self.common.failed_to {
            write_failed(file, &reports)?;
        }
        Ok(report::finish(&reports, style, begun.elapsed()))
    }

    /// The hosts of which a condition holds, and reports of those of which that can't be told.
    async fn choose(
        &self,
        targets: Vec<Target>,
        condition: &Condition,
    ) -> Result<(Vec<Target>, Vec<Report>)> {
        let mut reports = Vec::new();
        let mut facts = vec![None; targets.len()];
        if condition.asks_facts {
            let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
            let printer = Arc::new(Printer::quiet(&names));
            let asked = self.work(targets.clone(), Work::Facts, &printer).await?.unwrap_or_default();
            for (fact, mut report) in facts.iter_mut().zip(asked) {
                *fact = report.results.pop().filter(|_| report.state == State::Succeeded);
                if fact.is_none() {
                    reports.push(report);
                }
            }
        }
        let mut chosen = Vec::new();
        for (target, facts) in targets.into_iter().zip(facts) {
            if condition.asks_facts && facts.is_none() {
                continue;
            }
            let variables = Variables::of(
                &Engine::default(),
                &self.inventory,
                &target.name,
                &Map::new(),
                facts.as_ref(),
            )?;
            if condition.holds(&variables).with_context(|| format!("host {}", target.name))? {
                chosen.push(Target { facts, ..target });
            }
        }
        if chosen.is_empty() && reports.is_empty() {
            bail!("--where holds of no host");
        }
        Ok((chosen, reports))
    }

    /// Does something on one host that only serves what comes after; its report if it failed.
    pub(super) async fn first(&self, target: Target, work: Work) -> Result<Option<Report>> {
        let printer = Arc::new(Printer::quiet(std::slice::from_ref(&target.name)));
        let reports = self.work(vec![target], work, &printer).await?.unwrap_or_default();
        Ok(reports.into_iter().find(|report| report.state != State::Succeeded))
    }

    /// A report of each host; `None` if nobody reads any more.
    async fn work(
        &self,
        targets: Vec<Target>,
        work: Work,
        printer: &Arc<Printer>,
    ) -> Result<Option<Vec<Report>>> {
        let common = &self.common;
        let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
        let steps = u32::try_from(work.steps()).unwrap_or(u32::MAX);
        let options = Options {
            ttl: Some(Duration::from_secs(common.timeout).saturating_mul(steps) + SPARE),
            policy: common.policy.as_ref().map(login::rules).transpose()?,
            ..Default::default()
        };
        let few = targets.len() <= FEW;
        let persist = Duration::from_secs(common.persist.unwrap_or(if few { 60 } else { 0 }));
        let (interrupt, interrupted) = tokio::sync::watch::channel(false);
        let stdin = names.len() == 1 && !common.no_input && matches!(work, Work::Exec(_));
        let shared = Arc::new(Shared {
            interrupted,
            binaries: login::binaries(common)?,
            options,
            interactive: targets.len() == 1 && rustix::termios::isatty(std::io::stdin()),
            persist,
            timeout: Duration::from_secs(common.timeout),
            common: common.clone(),
            whom: self.whom.clone(),
            password: self.password.clone(),
            printer: Arc::clone(printer),
            stdin: stdin.then(input::Input::open).flatten(),
            work,
        });
        let pool = pool(common, names.len())?;
        let is_for_its_output = shared.work.is_for_its_output();
        let working = pool.run(
            targets,
            |target| {
                let shared = Arc::clone(&shared);
                async move {
                    let report = shared.on_host(&target).await;
                    if report.state == State::Succeeded { Ok(report) } else { Err(report) }
                }
            },
            |at, outcome| match outcome {
                Outcome::Done(report) | Outcome::Failed(report) => printer.ended(report),
                Outcome::Skipped => printer.ended(&skipped(&names[at])),
            },
        );
        tokio::pin!(working);
        let outcomes = tokio::select! {
            outcomes = &mut working => outcomes,
            signal = tokio::signal::ctrl_c() => {
                signal?;
                eprintln!("legwork: interrupted; what was running on the hosts is being ended");
                let _ = interrupt.send(true);
                working.await
            }
            // What changes hosts is done to its end; a command's output is what it is run for.
            () = output::reader_gone(), if is_for_its_output => {
                let _ = interrupt.send(true);
                working.await;
                return Ok(None);
            }
        };
        let report = |(outcome, name): (Outcome<Report, Report>, &String)| match outcome {
            Outcome::Done(report) | Outcome::Failed(report) => report,
            Outcome::Skipped => skipped(name),
        };
        Ok(Some(outcomes.into_iter().zip(&names).map(report).collect()))
    }
}

fn pool(common: &SshCommon, hosts: usize) -> Result<Pool> {
    let mut pool = Pool::default().concurrency(common.parallel);
    if let Some(most) = common.max_failures.or(common.fail_fast.then_some(1)) {
        pool = pool.max_failures(most);
    }
    if !common.serial.is_empty() {
        pool = pool.waves(waves(&common.serial, hosts)?);
    }
    Ok(pool)
}

/// The hosts that did not go well, so that they can be named again.
fn write_failed(file: &Path, reports: &[Report]) -> Result<()> {
    let failed = reports.iter().filter(|report| report.state != State::Succeeded);
    let lines: String = failed.map(|report| format!("{}\n", report.host)).collect();
    std::fs::write(file, lines).with_context(|| format!("failed to write {}", file.display()))
}

/// How many hosts each wave has: a number, or a part of all, of which one is the least.
fn waves(words: &[String], hosts: usize) -> Result<Vec<usize>> {
    let size = |word: &String| {
        let (number, part) = word.strip_suffix('%').map_or((word.as_str(), false), |number| (number, true));
        let number: usize = number.parse().ok().filter(|number| *number > 0)?;
        Some(if part { (hosts * number.min(100) / 100).max(1) } else { number })
    };
    words
        .iter()
        .map(|word| {
            size(word).with_context(|| format!("--serial {word}: expected a number of hosts, or 10%"))
        })
        .collect()
}

fn skipped(name: &str) -> Report {
    let error = Some("not tried: too many hosts had failed before".to_owned());
    Report { error, ..Report::new(name, State::Skipped) }
}

/// What work on every host needs.
struct Shared {
    interrupted: tokio::sync::watch::Receiver<bool>,
    binaries: Binaries,
    options: Options,
    interactive: bool,
    persist: Duration,
    timeout: Duration,
    common: SshCommon,
    whom: Option<Whom>,
    password: legwork_remote::Secret,
    printer: Arc<Printer>,
    work: Work,
    /// Our standard input, for the one host that there is.
    stdin: Option<input::Input>,
}

impl Shared {
    async fn on_host(&self, target: &Target) -> Report {
        let begun = Instant::now();
        let mut interrupted = self.interrupted.clone();
        let result = tokio::select! {
            biased;
            // The connection is dropped: that ends the runner, and what it runs.
            _ = interrupted.wait_for(|yes| *yes) => {
                let error = Some("interrupted".to_owned());
                return Report { error, ..Report::new(&target.name, State::Interrupted) };
            }
            result = self.try_host(target) => result,
        };
        let mut report = match result {
            Ok(report) => report,
            Err(error) => {
                let state = state_of(&error);
                Report { error: Some(explain(&error)), ..Report::new(&target.name, state) }
            }
        };
        report.seconds = begun.elapsed().as_secs_f64();
        report
    }

    async fn try_host(&self, target: &Target) -> Result<Report, Error> {
        if let Some(via) = &self.common.via {
            // A host's name goes into the program's arguments: the same names as for ssh.
            Ssh::new(&target.address)?;
            let words = via.split_whitespace().map(|word| word.replace("{host}", &target.address));
            return self.with(&Template::new(&target.name, words), target, None).await;
        }
        if target.is_here {
            return self.with(&Local::default(), target, None).await;
        }
        let mut ssh = Ssh::new(&target.address)?.interactive(self.interactive).persist(self.persist);
        ssh = ssh.retries(self.common.connect_retries);
        if let Some(config) = &self.common.ssh_config {
            ssh = ssh.arg(format!("-F{}", config.display()));
        }
        // ssh takes the first of each: what the host's name itself says, then the command line.
        for arg in target.named.iter().chain(&login::arguments(&self.common)) {
            ssh = ssh.arg(arg);
        }
        for arg in &target.args {
            ssh = ssh.arg(arg);
        }
        let way = harden::Way { ssh: &ssh, binaries: &self.binaries, options: &self.options };
        let report = self.with(&ssh, target, Some(&way)).await;
        if self.persist.is_zero() {
            ssh.disconnect().await;
        }
        report
    }

    async fn with(
        &self,
        transport: &dyn Transport,
        target: &Target,
        way: Option<&harden::Way<'_>>,
    ) -> Result<Report, Error> {
        let whom = self.whom(target)?;
        if !whom.user.is_empty() && !matches!(self.work, Work::Exec(_) | Work::Facts) {
            let why = "only commands run as another user than root; --sudo does all else as root";
            return Err(invalid(format!("as {}: {why}", whom.user)));
        }
        let client = Client::start(transport, &self.binaries, self.options.clone()).await?;
        let mut report = Report::new(&target.name, State::Succeeded);
        let on = Connected {
            client: &client,
            target,
            whom,
            printer: &self.printer,
            timeout: self.timeout,
            way,
            stdin: self.stdin.as_ref(),
            diff: self.common.diff,
        };
        let done = self.work.run(&on, &mut report).await;
        client.close().await;
        // What was done before something failed is part of the report.
        if let Err(error) = done {
            report.state = state_of(&error);
            report.error = Some(explain(&error));
        }
        Ok(report)
    }

    /// The command line's word counts, then the inventory's.
    fn whom(&self, target: &Target) -> Result<Whom, Error> {
        let mut whom = match (&self.whom, &target.whom) {
            (Some(whom), _) => return Ok(whom.clone()),
            (None, Some(whom)) => whom.clone(),
            (None, None) if self.password.is_empty() => return Ok(Whom::default()),
            (None, None) => {
                return Err(invalid(
                    "a password for sudo is of use with --sudo, --become-user or --become-method",
                ));
            }
        };
        if !self.password.is_empty() {
            whom.password = self.password.clone();
        }
        Ok(whom)
    }
}

fn state_of(error: &Error) -> State {
    match error {
        Error::Denied(_) => State::Denied,
        Error::Command(failure) if failure.code == "TIMEOUT" => State::TimedOut,
        Error::ResponseTimeout | Error::Read(_) | Error::Exited | Error::Send(_) => State::Lost,
        error if error.is_unreachable() => State::Unreachable,
        _ => State::Failed,
    }
}
