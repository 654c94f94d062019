//! Commands: whatever a door wants to have run, by the one way there is. A command is judged,
//! put behind its walls, handed to a supervisor, and recorded in the audit.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use legwork_base::clock::now_ms;
use legwork_base::digest::{same, sha256};
use legwork_policy::{Decision, Policy, RunText, Verdict, is_steering};
use legwork_process::sandbox::{Profile, World};
use legwork_process::{
    Adoption, EndedBy, Limits, Piped, Running, Size, SpawnError, Spec, State, Status, SyntaxCheck, Terminal,
    check_syntax,
};

use crate::audit::{Place, Record};
use crate::gating::Standing;
use crate::operation::{BashOutput, Denial, Failure, Requester};
use crate::redact::redact;
use crate::runner::{Runner, in_place};
use crate::walls::{InForce, Passed, Under};

/// What is to be run, and by whose word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A program, by an absolute path, and its arguments. A door starts it by its own word: no
    /// rule is asked, and behind its wall it may execute anything.
    Program(Vec<String>),
    /// A shell line that somebody asks for. The policy judges it, and the runner's own bash
    /// runs what was judged.
    Line(String),
    /// A shell that somebody types into, by an absolute path, and its arguments. The policy
    /// judges it as the line that starts it: what will be typed can't be read beforehand. Where
    /// the exec gate stands, it judges all that the shell executes.
    Shell(Vec<String>),
}

impl Default for What {
    fn default() -> Self {
        Self::Program(Vec::new())
    }
}

/// A command to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// What is run.
    pub what: What,
    /// Variables beside those of the runner's configuration; these win.
    pub env: BTreeMap<String, String>,
    /// The folder, beneath the root.
    pub workdir: String,
    /// Wall time; `None` for no limit.
    pub timeout: Option<Duration>,
    /// What the audit calls it; the line or the arguments where this is empty.
    pub subject: String,
    /// Its temporary folder, where that is not to be one of its own. (Behind walls that have
    /// another root it has /tmp.)
    pub tmp: Option<PathBuf>,
    /// What it leaves running lives on: see [`Spec::keeps_tree`].
    pub keeps_tree: bool,
    /// The walls around it, where they are not the runner's usual ones:
    /// [`Off`](Profile::Off), or one of [`Walled::others`](crate::Walled::others).
    pub walls: Option<Profile>,
    /// Whose wall it is behind, where each is a world of its own.
    pub wall: Wall,
    /// People have said yes to it, where the rules ask.
    pub approved: Option<Approved>,
}

/// That people have said yes to a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approved {
    /// Of what they said yes to: see [`Held::digest`]. A command of another one is held again.
    pub digest: String,
    /// Who they are, for the audit.
    pub by: Vec<String>,
}

/// A line that needs a person's yes before it may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// SHA-256, in hex, of all that says what would run: the line, the text that bash gets, the
    /// folder, the time limit and the variables.
    pub digest: String,
    /// The very text that bash gets.
    pub text: String,
    /// The part of the line that asks.
    pub part: String,
    /// The rule by which it asks.
    pub rule: String,
    /// How many people must say yes.
    pub persons: u8,
}

/// Whose wall a command is behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wall {
    /// One of its own.
    #[default]
    Own,
    /// One of its own, into which others are let. It is ended when nobody has watched it for so
    /// long.
    Opens(Duration),
    /// That of the command whose file this is.
    Of(PathBuf),
}

impl Command {
    fn subject(&self) -> String {
        match &self.what {
            _ if !self.subject.is_empty() => redact(&self.subject),
            What::Line(line) => redact(line),
            What::Program(argv) | What::Shell(argv) => redact(&argv.join(" ")),
        }
    }

    /// What the audit knows before it has run.
    fn record(&self, requester: &Requester) -> Record {
        let (operation, line) = match &self.what {
            What::Line(line) => ("bash", Some(line)),
            What::Program(_) => ("program", None),
            What::Shell(_) => ("shell", None),
        };
        Record {
            operation: operation.into(),
            subject: self.subject(),
            sha256: line.map(sha256),
            approved_by: self.approved.as_ref().map(|yes| yes.by.clone()).unwrap_or_default(),
            ..record_of(requester)
        }
    }
}

/// See [`Held::digest`].
fn digest_of(command: &Command, text: &str) -> String {
    let line = match &command.what {
        What::Line(line) => line.as_str(),
        What::Program(_) | What::Shell(_) => "",
    };
    let limit = command.timeout.map(|limit| limit.as_secs());
    // A list of texts, numbers and a map of texts always serialises, and only in one way.
    sha256(
        serde_json::to_vec(&("bash", line, text, &command.workdir, limit, &command.env)).unwrap_or_default(),
    )
}

/// Why a command was not started, and the verdict if it was the policy's.
struct Refused(Failure, Option<Box<Verdict>>);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure, None)
    }
}

fn not_started(cause: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("failed to execute command: {cause}"))
}

impl Runner {
    /// Judges a command and, if it may run, starts it under a supervisor with the file `file`,
    /// to which its output goes. One that is not started is recorded in the audit here.
    pub async fn start(
        self: &Arc<Self>,
        command: &Command,
        requester: &Requester,
        file: &Path,
    ) -> Result<Running, Failure> {
        let spawn = |cwd: BorrowedFd<'_>, spec: Spec| self.config.spawner.spawn(file, cwd, &spec);
        let started = self.launch(command, file, spawn);
        self.started(started, command, requester).await
    }

    /// The same for a command that talks to this process and ends with it. What wants to be
    /// served of its progress is the caller's.
    pub async fn start_piped(
        self: &Arc<Self>,
        command: &Command,
        requester: &Requester,
        file: &Path,
    ) -> Result<Piped, Failure> {
        let spawn = |cwd: BorrowedFd<'_>, spec| self.config.spawner.spawn_piped(file, cwd, spec);
        let started = self.launch(command, file, spawn);
        self.started(started, command, requester).await
    }

    /// The same for a command in a terminal whose near end is this process's. It may run for
    /// days, so the audit has a record of its start as well. Does not wait: with more records
    /// on their way than there is room for it fails.
    pub fn start_terminal(
        &self,
        command: &Command,
        requester: &Requester,
        file: &Path,
        size: Size,
    ) -> Result<(Running, Terminal), Failure> {
        let spawn = |cwd: BorrowedFd<'_>, spec| self.config.spawner.spawn_terminal(file, cwd, spec, size);
        let (started, place) = self.start_now(command, requester, file, spawn)?;
        place.record(Record {
            decision: "allow",
            outcome: "started",
            gate: self.gate_of(command, file),
            sandbox: sandbox_of(file),
            started_ms: now_ms(),
            ..command.record(requester)
        });
        Ok(started)
    }

    /// As [`start`](Self::start), without waiting: with more records on their way to the audit
    /// than there is room for it fails.
    pub fn start_at_once(
        &self,
        command: &Command,
        requester: &Requester,
        file: &Path,
    ) -> Result<Running, Failure> {
        let spawn = |cwd: BorrowedFd<'_>, spec: Spec| self.config.spawner.spawn(file, cwd, &spec);
        Ok(self.start_now(command, requester, file, spawn)?.0)
    }

    /// Starts a command, with room in the audit for one more record of it.
    fn start_now<T>(
        &self,
        command: &Command,
        requester: &Requester,
        file: &Path,
        spawn: impl FnOnce(BorrowedFd<'_>, Spec) -> Result<T, SpawnError>,
    ) -> Result<(T, Place), Failure> {
        let Some(place) = self.config.audit.place() else {
            return Err(not_started("the audit can't be written, and what can't be recorded is not done"));
        };
        match self.launch(command, file, spawn) {
            Ok(started) => Ok((started, place)),
            Err(refused) => {
                place.record(self.record_refused(command, requester, &refused));
                Err(refused.0)
            }
        }
    }

    async fn started<T>(
        &self,
        started: Result<T, Refused>,
        command: &Command,
        requester: &Requester,
    ) -> Result<T, Failure> {
        match started {
            Ok(started) => Ok(started),
            Err(refused) => {
                let record = self.record_refused(command, requester, &refused);
                self.config.audit.record(record).await;
                Err(refused.0)
            }
        }
    }

    fn record_refused(&self, command: &Command, requester: &Requester, refused: &Refused) -> Record {
        let Refused(failure, verdict) = refused;
        let denied = matches!(failure, Failure::Denied(_));
        Record {
            gate: match &command.what {
                What::Line(line) => self.walls.current_for(line, &self.config.env).standing().name(),
                What::Shell(_) => self.walls.current().standing().name(),
                What::Program(_) => "",
            },
            decision: if denied { "deny" } else { "allow" },
            outcome: if denied { "denied" } else { "failed" },
            rule: verdict.as_ref().and_then(|verdict| verdict.rule().map(redact)),
            reason: Some(redact(&failure.to_string())),
            started_ms: now_ms(),
            ..command.record(requester)
        }
    }

    fn launch<T>(
        &self,
        command: &Command,
        file: &Path,
        spawn: impl FnOnce(BorrowedFd<'_>, Spec) -> Result<T, SpawnError>,
    ) -> Result<T, Refused> {
        let launched = in_place(|| -> Result<T, Refused> {
            let (cwd, spec) = self.spec(command, file)?;
            spawn(cwd.as_fd(), spec).map_err(|error| not_started(error).into())
        });
        launched.unwrap_or_else(|| {
            let text = "the command could not be started; see the runner's log";
            Err(Failure::Failed(text.into()).into())
        })
    }

    /// What a supervisor is told of a command, and where it starts.
    fn spec(&self, command: &Command, file: &Path) -> Result<(OwnedFd, Spec), Refused> {
        let in_force = match &command.what {
            What::Line(line) => self.walls.current_for(line, &self.config.env),
            What::Program(_) | What::Shell(_) => self.walls.current(),
        };
        let (argv, under, writes, asks) = self.judged(command, &in_force)?;
        let steers = |name: &&String| under == Under::Lines && is_steering(name);
        if in_force.rules.policy.needs_exec_gate()
            && let Some(name) = command.env.keys().find(steers)
        {
            let text =
                format!("command denied: it may not be given the variable {name}: it steers what runs");
            return Err(Failure::Denied(text.into()).into());
        }
        let cwd = self.config.root.open_dir(&command.workdir);
        let cwd = cwd.map_err(|e| Failure::Failed(e.to_string()))?;
        let here = rustix::fs::readlink(format!("/proc/self/fd/{}", cwd.as_raw_fd()), Vec::new())
            .map_err(|e| Failure::Failed(e.to_string()))?;
        let here = PathBuf::from(std::ffi::OsString::from(here.to_string_lossy().into_owned()));
        let mut env = self.config.env.clone();
        env.extend(command.env.clone());
        let mut spec = Spec {
            argv,
            env,
            limits: Limits { timeout: command.timeout, ..self.config.limits.clone() },
            keeps_tree: command.keeps_tree,
            ..Spec::default()
        };
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let places = (self.config.root.path(), &*here);
        let profile = self
            .walls
            .surround(&mut spec, (&in_force, under), places, (command.walls, &name))
            .map_err(not_started)?;
        if let Some(gate) = &mut spec.gate {
            gate.writes = writes;
            if !asks.is_empty() {
                gate.rules = std::mem::take(&mut gate.rules).with_approved(asks);
            }
        }
        self.put_in_place(&mut spec, &command.wall)?;
        if let Some(tmp) = &command.tmp
            && profile == Profile::Landlock
        {
            spec.env.insert("TMPDIR".into(), tmp.to_string_lossy().into_owned());
        }
        Ok((cwd, spec))
    }

    /// Lets others behind a command's wall, or the command behind that of another.
    fn put_in_place(&self, spec: &mut Spec, wall: &Wall) -> Result<(), Failure> {
        let Some(plan) = spec.sandbox.as_mut().filter(|plan| plan.profile.holds_network()) else {
            return Ok(());
        };
        match wall {
            Wall::Own => {}
            Wall::Opens(unwatched) => {
                plan.world = World::Open;
                spec.limits.unwatched = Some(*unwatched);
            }
            Wall::Of(file) => {
                let gone = || not_started("the task's wall is gone");
                let status = legwork_process::status(file).map_err(|_| gone())?;
                plan.world = World::Of(status.inhabitant.ok_or_else(gone)?);
                let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                spec.group = self.walls.group(&name);
            }
        }
        Ok(())
    }

    /// Whether the rules in force ask about a line, whatever people may have said: what they would
    /// have to say yes to. `None` where it may run, or may not.
    pub fn asks(&self, command: &Command) -> Option<Held> {
        let What::Line(line) = &command.what else { return None };
        in_place(|| {
            let in_force = self.walls.current_for(line, &self.config.env);
            let policy = &in_force.rules.policy;
            let verdict = policy.judge(line);
            let (Decision::Ask, Some(run), Some(part)) = (verdict.decision, &verdict.run, &verdict.deciding)
            else {
                return None;
            };
            Some(Held {
                digest: digest_of(command, &run.text),
                text: run.text.clone(),
                part: part.command.clone(),
                rule: part.rule.clone().unwrap_or_default(),
                persons: policy.persons_for(&verdict),
            })
        })
        .flatten()
    }

    /// Records that a line waits for people's yes.
    pub async fn record_held(&self, command: &Command, requester: &Requester, held: &Held) {
        let record = Record {
            decision: "ask",
            outcome: "held",
            rule: Some(redact(&held.rule)),
            started_ms: now_ms(),
            ..command.record(requester)
        };
        self.config.audit.record(record).await;
    }

    /// What is executed, under which rules, whether openings for writing are judged, and the rules
    /// that asked about it and were answered.
    fn judged(&self, command: &Command, in_force: &InForce) -> Result<Judged, Refused> {
        let refused = |(failure, verdict)| Refused(failure, Some(verdict));
        let policy = &in_force.rules.policy;
        match &command.what {
            What::Program(argv) => Ok((argv.clone(), Under::Programs, false, Vec::new())),
            What::Line(line) => {
                let (run, verdict) = self.judge(command, line, policy).map_err(refused)?;
                let argv = self.line(run.text).map_err(not_started)?;
                let asks = verdict.asks().map(str::to_owned).collect();
                Ok((argv, Under::Lines, run.computed_writes, asks))
            }
            What::Shell(argv) => {
                let name = argv.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
                verdict_on(name, policy, |_| false).map_err(refused)?;
                if let Standing::Reading(reason) = in_force.standing() {
                    let text =
                        format!("command denied: what is typed into {name} can't be judged here: {reason}");
                    return Err(Failure::Denied(text.into()).into());
                }
                Ok((argv.clone(), Under::Lines, true, Vec::new()))
            }
        }
    }

    /// What of the line is to be run, if anything.
    fn judge(
        &self,
        command: &Command,
        line: &str,
        policy: &Policy,
    ) -> Result<(RunText, Box<Verdict>), Verdicted> {
        let yes = |run: &RunText| {
            command.approved.as_ref().is_some_and(|yes| same(&yes.digest, &digest_of(command, &run.text)))
        };
        let (run, verdict) = verdict_on(line, policy, yes)?;
        let own = run.check_syntax.then_some(&run.text);
        for text in own.into_iter().chain(&run.scripts) {
            let bash = match self.bash() {
                Ok(bash) => bash,
                Err(error) => return Err((not_started(error), verdict)),
            };
            match check_syntax(bash, text, &self.config.env) {
                Ok(SyntaxCheck::Valid) => {}
                Ok(SyntaxCheck::Invalid(cause)) => {
                    let text = format!("failed to parse command: {cause}");
                    return Err((Failure::Denied(text.into()), verdict));
                }
                Err(error) => return Err((not_started(format!("{}: {error}", bash.display())), verdict)),
            }
        }
        Ok((run, verdict))
    }

    /// How a command ended, and the audit's record of it. What it printed is in its file.
    pub async fn finish(
        self: &Arc<Self>,
        command: &Command,
        requester: &Requester,
        file: &Path,
    ) -> Result<Status, Failure> {
        let result = in_place(|| ended(file)).unwrap_or_else(|| {
            Err(Failure::Failed("its end could not be found out; see the runner's log".into()))
        });
        self.record_end(command, requester, file, (result.as_ref().ok(), result.as_ref().err()), &[]).await;
        result
    }

    /// The same, with what it printed gathered for an answer.
    pub async fn finish_with_output(
        self: &Arc<Self>,
        command: &Command,
        requester: &Requester,
        file: &Path,
    ) -> Result<BashOutput, Failure> {
        let gathered = in_place(|| {
            let status = match ended(file) {
                Ok(status) => status,
                Err(failure) => return (Err(failure), None),
            };
            let output = self.collect(command, file, &status);
            let output =
                output.map_err(|e| Failure::Failed(format!("failed to read the command's output: {e}")));
            (output, Some(status))
        });
        let (result, status) = gathered.unwrap_or_else(|| {
            let text = "the output could not be gathered; see the runner's log";
            (Err(Failure::Failed(text.into())), None)
        });
        let blocked = result.as_ref().map(|output| &*output.blocked).unwrap_or_default();
        self.record_end(command, requester, file, (status.as_ref(), result.as_ref().err()), blocked).await;
        result
    }

    async fn record_end(
        &self,
        command: &Command,
        requester: &Requester,
        file: &Path,
        (status, failure): (Option<&Status>, Option<&Failure>),
        blocked: &[String],
    ) {
        let Passed { sent, received, refused } = self.walls.close_door(file);
        let record = Record {
            decision: "allow",
            egress_sent: (sent + received > 0).then_some(sent),
            egress_received: (sent + received > 0).then_some(received),
            egress_refused: refused,
            blocked: blocked.to_vec(),
            denied: status.map(denials).unwrap_or_default(),
            gate: self.gate_of(command, file),
            sandbox: sandbox_of(file),
            outcome: match (failure, status.and_then(|status| status.ended_by)) {
                (Some(Failure::Lost(_)), _) => "lost",
                (Some(_), _) => "failed",
                (None, Some(EndedBy::Timeout)) => "timed_out",
                (None, Some(EndedBy::Cancel)) => "cancelled",
                (None, None) => "exited",
            },
            reason: failure.map(|failure| redact(&failure.to_string())),
            exit_code: status.filter(|_| failure.is_none()).and_then(|status| status.exit_code),
            bytes: status.map(|status| status.stdout_bytes + status.stderr_bytes),
            started_ms: status.map_or_else(now_ms, |status| status.started_ms),
            ..command.record(requester)
        };
        self.config.audit.record(record).await;
    }

    /// How the execs of a command were judged.
    fn gate_of(&self, command: &Command, file: &Path) -> &'static str {
        if matches!(command.what, What::Program(_)) {
            return "";
        }
        let judged = legwork_process::spec_of(file).is_ok_and(|spec| spec.gate.is_some());
        match self.walls.current().standing() {
            _ if judged => Standing::Exec.name(),
            Standing::Exec => "",
            other => other.name(),
        }
    }

    /// Finds a command again that was started by an earlier process.
    pub async fn adopt(&self, file: &Path) -> Adoption {
        let file = file.to_owned();
        tokio::task::spawn_blocking(move || legwork_process::adopt(&file))
            .await
            .unwrap_or_else(|_| Adoption::Lost("the runner failed while it looked for it".into()))
    }

    /// Records the loss of a command whose file is gone as well.
    pub async fn record_lost(&self, command: &Command, requester: &Requester, reason: &str) -> Failure {
        let record = Record {
            decision: "allow",
            outcome: "lost",
            reason: Some(reason.to_owned()),
            started_ms: now_ms(),
            ..command.record(requester)
        };
        self.config.audit.record(record).await;
        lost(reason)
    }
}

/// A failure, and the verdict that led to it.
type Verdicted = (Failure, Box<Verdict>);

/// See [`Runner::judged`].
type Judged = (Vec<String>, Under, bool, Vec<String>);

/// What the policy lets run of a line; `yes` says whether people have said yes to a text.
fn verdict_on(
    line: &str,
    policy: &Policy,
    yes: impl Fn(&RunText) -> bool,
) -> Result<(RunText, Box<Verdict>), Verdicted> {
    let verdict = Box::new(policy.judge_and_repair(line));
    for part in &verdict.parts {
        tracing::debug!(
            command = %redact(&part.command),
            decision = ?part.decision,
            rule = part.rule.as_deref().unwrap_or("-"),
            reason = part.reason.as_deref().unwrap_or("-"),
            "judged"
        );
    }
    match (verdict.decision, verdict.run.clone()) {
        (Decision::Allow, Some(run)) => Ok((run, verdict)),
        (Decision::Ask, Some(run)) if yes(&run) => Ok((run, verdict)),
        _ => Err((Failure::Denied(Denial::of(&verdict)), verdict)),
    }
}

/// How a command ended, by its file.
fn ended(file: &Path) -> Result<Status, Failure> {
    let status = match legwork_process::status(file) {
        Ok(status) if status.state != State::Running => status,
        // The supervisor is gone without a last word; adopt() knows why.
        _ => match legwork_process::adopt(file) {
            Adoption::Ended(status) => status,
            Adoption::Lost(reason) => return Err(lost(&reason)),
            // The helper was killed before it came to it: nothing ran.
            Adoption::NeverStarted => return Err(not_started("its supervisor was not started")),
            Adoption::Running(_) => return Err(lost("its supervisor closed the connection")),
        },
    };
    if status.state == State::Failed {
        return Err(not_started(status.error.clone().unwrap_or_default()));
    }
    Ok(status)
}

/// What a command's gate did not let it execute, in words.
pub(crate) fn denials(status: &Status) -> Vec<String> {
    let mut lines: Vec<String> = status.denied.iter().map(|denial| redact(&denial.to_string())).collect();
    if status.denied_more > 0 {
        lines.push(format!("{} more", status.denied_more));
    }
    lines
}

fn lost(reason: &str) -> Failure {
    Failure::Lost(format!("the command was started but its end is unknown: {reason}"))
}

/// What the audit knows of a request by who has made it.
pub(crate) fn record_of(requester: &Requester) -> Record {
    Record {
        door: requester.door,
        who: requester.who.clone(),
        task_id: requester.task_id.clone(),
        // Operations on files are held beneath the workspace by the kernel's path
        // resolution; a sandbox is around processes.
        sandbox: Profile::Off.name(),
        finished_ms: now_ms(),
        ..Record::default()
    }
}

/// The wall a command was really behind.
fn sandbox_of(file: &Path) -> &'static str {
    let plan = legwork_process::spec_of(file).ok().and_then(|spec| spec.sandbox);
    plan.map_or(Profile::Off, |plan| plan.profile).name()
}
