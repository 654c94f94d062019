//! The runner: operations through policy and hands to their outcome.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use legwork_policy::{Decision, Policy, RunText, Verdict};
use legwork_process::sandbox::Profile;
use legwork_process::{
    Adoption, Cursor, EndedBy, Limits, Running, Spawner, Spec, State, Status, SyntaxCheck, check_syntax,
};
use legwork_workspace::Root;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::audit::{Audit, Record, hex};
use crate::gating::Standing;
use crate::net::Egress;
use crate::network::Network;
use crate::operation::{Bash, BashOutput, Denial, Failure, Requester};
use crate::output::{Exempt, MAX_INLINE, store_large};
use crate::redact::redact;
use crate::system::now;
use crate::trial::Walled;
use crate::walls::{InForce, Passed, Rules, Under, Walls, blocked};

/// The most that is kept of the beginning, and of the end, of a long stderr.
const STDERR_PART: usize = (MAX_INLINE / 2) as usize;

/// What a runner is made of.
#[derive(Debug)]
pub struct Config {
    /// Where files are, and commands run.
    pub root: Root,
    /// What may run.
    pub rules: Rules,
    /// The walls around it.
    pub walled: Walled,
    /// A folder for the temporary folders of commands.
    pub tmp_dir: PathBuf,
    /// Where the runner itself may connect for a controller.
    pub egress: Egress,
    /// A folder for the files of MCP servers, emptied at start.
    pub mcp_dir: PathBuf,
    /// The environment of commands.
    pub env: BTreeMap<String, String>,
    /// Starts supervisors.
    pub spawner: Arc<Spawner>,
    /// Where requests are recorded.
    pub audit: Audit,
    /// Requests carried out at a time; the rest waits in order.
    pub max_tasks: usize,
    /// Most bytes of one read.
    pub max_read_bytes: u64,
    /// Bounds of commands; each brings its own timeout.
    pub limits: Limits,
}

/// Carries out operations. Shared by all connections of a process.
#[derive(Debug)]
pub struct Runner {
    pub(crate) config: Config,
    pub(crate) network: Network,
    pub(crate) walls: Arc<Walls>,
    bash: Option<PathBuf>,
    slots: Arc<Semaphore>,
}

/// The right to run one request; dropping it lets the next one in.
#[derive(Debug)]
pub struct Permit(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A shell line that has been started.
#[derive(Debug)]
pub struct StartedBash {
    /// Its supervisor.
    pub running: Running,
}

impl Runner {
    /// Makes a runner.
    pub fn new(config: Config) -> io::Result<Self> {
        let path = config.env.get("PATH").map(String::as_str).unwrap_or_default();
        let bash = path
            .split(':')
            .filter(|dir| dir.starts_with('/'))
            .map(|dir| Path::new(dir).join("bash"))
            .find(|candidate| candidate.is_file());
        let slots = Arc::new(Semaphore::new(config.max_tasks));
        let walled = config.walled.clone();
        let in_force =
            InForce::new(config.rules.clone(), &config.env, &walled.gates).map_err(io::Error::other)?;
        let walls = Arc::new(Walls::new(walled, config.tmp_dir.clone(), in_force)?);
        let network = Network::new(&config, walls.clone())?;
        Ok(Self { config, network, walls, bash, slots })
    }

    /// The bash that runs lines: the one on the operator's PATH, if there is one.
    pub fn bash(&self) -> io::Result<&Path> {
        self.bash.as_deref().ok_or_else(|| {
            let path = self.config.env.get("PATH").map(String::as_str).unwrap_or_default();
            io::Error::other(format!("no bash found in PATH ({path})"))
        })
    }

    /// The program and arguments that run a line which was judged.
    pub(crate) fn line(&self, text: String) -> io::Result<Vec<String>> {
        let bash = self.bash()?.to_string_lossy().into_owned();
        Ok(vec![bash, "--noprofile".into(), "--norc".into(), "-c".into(), text])
    }

    /// The workspace.
    pub fn root(&self) -> &Root {
        &self.config.root
    }

    /// The profile of the walls that are in force.
    pub fn sandbox(&self) -> Profile {
        self.walls.profile()
    }

    /// Whether execs of lines are judged under the rules in force.
    pub fn gate(&self) -> Standing {
        self.walls.current().standing().clone()
    }

    /// The same for MCP servers.
    pub fn mcp_gate(&self) -> Standing {
        self.walls.current().mcp_standing().clone()
    }

    /// Puts other rules in force for all that starts from now on. What runs keeps the
    /// rules it was started under. Fails with the reason, and leaves the old rules in force,
    /// if execs must be judged and can't be under these.
    pub fn reload(&self, rules: Rules) -> Result<(), String> {
        self.network.forget_verdicts();
        let in_force = Arc::new(InForce::new(rules, &self.config.env, &self.walls.gates)?);
        *self.walls.in_force.write().unwrap_or_else(std::sync::PoisonError::into_inner) = in_force;
        self.network.forget_verdicts();
        Ok(())
    }

    /// Serves what a command says to its proxy.
    pub fn serve_door(&self, file: &Path, listener: std::net::TcpListener) {
        self.walls.serve_door(file, listener);
    }

    /// Waits for a free slot; first come, first served.
    pub async fn admit(&self) -> Permit {
        match self.slots.clone().acquire_owned().await {
            Ok(permit) => Permit(permit),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Judges a shell line and, if it may run, starts it under a supervisor with
    /// the file `file`. A line that is not started is recorded in the audit here.
    pub async fn start_bash(
        self: &Arc<Self>,
        bash: &Bash,
        requester: &Requester,
        file: &Path,
    ) -> Result<StartedBash, Failure> {
        let started = in_place(|| self.start_bash_now(bash, file)).unwrap_or_else(|| {
            Err((Failure::Failed("the command could not be judged; see the runner's log".into()), None))
        });
        match started {
            Ok(running) => Ok(StartedBash { running }),
            Err((failure, verdict)) => {
                let denied = matches!(failure, Failure::Denied(_));
                let record = Record {
                    gate: self.walls.current_for(&bash.command, &self.config.env).standing().name(),
                    decision: if denied { "deny" } else { "allow" },
                    outcome: if denied { "denied" } else { "failed" },
                    rule: verdict.as_ref().and_then(|v| v.rule().map(redact)),
                    reason: Some(redact(&failure.to_string())),
                    started_ms: now_ms(),
                    ..bash_record(bash, requester)
                };
                self.config.audit.record(record).await;
                Err(failure)
            }
        }
    }

    fn start_bash_now(&self, bash: &Bash, file: &Path) -> Result<Running, (Failure, Option<Box<Verdict>>)> {
        let in_force = self.walls.current_for(&bash.command, &self.config.env);
        let run = self
            .judge(&bash.command, &in_force.rules.policy)
            .map_err(|(failure, verdict)| (failure, Some(verdict)))?;
        let failed = |text: String| (Failure::Failed(text), None);
        let cwd = self.config.root.open_dir(&bash.workdir).map_err(|e| failed(e.to_string()))?;
        let mut spec = Spec {
            argv: self.line(run.text).map_err(|e| failed(e.to_string()))?,
            env: self.config.env.clone(),
            limits: Limits { timeout: Some(bash.timeout), ..self.config.limits.clone() },
            ..Spec::default()
        };
        let workspace = self.config.root.path();
        let here = rustix::fs::readlink(
            format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&cwd)),
            Vec::new(),
        )
        .map_err(|e| failed(e.to_string()))?;
        let here = PathBuf::from(std::ffi::OsString::from(here.to_string_lossy().into_owned()));
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        self.walls.surround(&mut spec, &in_force, Under::Lines, (workspace, &here), &name);
        if let Some(gate) = &mut spec.gate {
            gate.writes = run.computed_writes;
        }
        self.config
            .spawner
            .spawn(file, std::os::fd::AsFd::as_fd(&cwd), &spec)
            .map_err(|e| failed(format!("failed to execute command: {e}")))
    }

    /// What of the line is to be run, if anything.
    pub(crate) fn judge(&self, line: &str, policy: &Policy) -> Result<RunText, (Failure, Box<Verdict>)> {
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
            (Decision::Allow, Some(run)) => {
                let own = run.check_syntax.then_some(&run.text);
                let bash = match self.bash() {
                    Ok(bash) => bash,
                    Err(e) => {
                        return Err((Failure::Failed(format!("failed to execute command: {e}")), verdict));
                    }
                };
                for text in own.into_iter().chain(&run.scripts) {
                    match check_syntax(bash, text, &self.config.env) {
                        Ok(SyntaxCheck::Valid) => {}
                        Ok(SyntaxCheck::Invalid(cause)) => {
                            let text = format!("failed to parse command: {cause}");
                            return Err((Failure::Denied(text.into()), verdict));
                        }
                        Err(e) => {
                            let text = format!("failed to execute command: {}: {e}", bash.display());
                            return Err((Failure::Failed(text), verdict));
                        }
                    }
                }
                Ok(run)
            }
            _ => Err((Failure::Denied(Denial::of(&verdict)), verdict)),
        }
    }

    /// Gathers what an ended line came to, and records it in the audit.
    pub async fn finish_bash(
        self: &Arc<Self>,
        bash: &Bash,
        requester: &Requester,
        file: &Path,
    ) -> Result<BashOutput, Failure> {
        let (result, status) = in_place(|| self.finish_bash_now(bash, file)).unwrap_or_else(|| {
            let text = "the output could not be gathered; see the runner's log";
            (Err(Failure::Failed(text.into())), None)
        });
        let Passed { sent, received, refused } = self.walls.close_door(file);
        let record = Record {
            decision: "allow",
            egress_sent: (sent + received > 0).then_some(sent),
            egress_received: (sent + received > 0).then_some(received),
            egress_refused: refused,
            blocked: result.as_ref().map(|o| o.blocked.clone()).unwrap_or_default(),
            denied: status.as_ref().map(denials).unwrap_or_default(),
            gate: self.gate_of(file),
            sandbox: sandbox_of(file),
            outcome: match &result {
                Ok(output) => match output.ended_by {
                    Some(EndedBy::Timeout) => "timed_out",
                    Some(EndedBy::Cancel) => "cancelled",
                    None => "exited",
                },
                Err(Failure::Lost(_)) => "lost",
                Err(_) => "failed",
            },
            reason: result.as_ref().err().map(|e| redact(&e.to_string())),
            exit_code: result.as_ref().ok().and_then(|o| o.exit_code),
            bytes: status.as_ref().map(|s| s.stdout_bytes + s.stderr_bytes),
            started_ms: status.as_ref().map_or_else(now_ms, |s| s.started_ms),
            ..bash_record(bash, requester)
        };
        self.config.audit.record(record).await;
        result
    }

    fn finish_bash_now(&self, bash: &Bash, file: &Path) -> (Result<BashOutput, Failure>, Option<Status>) {
        let status = match ended(file) {
            Ok(status) => status,
            Err(failure) => return (Err(failure), None),
        };
        let output = self.collect(bash, file, &status);
        (
            output.map_err(|e| Failure::Failed(format!("failed to read the command's output: {e}"))),
            Some(status),
        )
    }

    fn collect(&self, bash: &Bash, file: &Path, status: &Status) -> io::Result<BashOutput> {
        let stdout = store_large(
            &self.config.root,
            "bash",
            status.stdout_bytes,
            StreamReader::new(Cursor::open(file, 0, u64::MAX)?),
            Exempt::of_command(&bash.command),
        )?;
        let mut stderr = head_and_tail(StreamReader::new(Cursor::open(file, u64::MAX, 0)?))?;
        let spec = legwork_process::spec_of(file).ok();
        // Where execs are judged nobody has to guess from what programs say of it.
        let judged = spec.as_ref().is_some_and(|spec| spec.gate.is_some());
        let guessed = spec
            .as_ref()
            .filter(|_| !judged)
            .and_then(|spec| Some(blocked(spec.sandbox.as_ref()?, &spec.env, &stderr)))
            .unwrap_or_default();
        let mut add_line = |line: &str| {
            if !stderr.is_empty() && !stderr.ends_with('\n') {
                stderr.push('\n');
            }
            stderr.push_str(line);
        };
        for denial in denials(status) {
            let what = if denial.starts_with("> ") { "denied to the shell" } else { "denied at exec" };
            add_line(&format!("legwork: {what}: {denial}"));
        }
        for program in &guessed {
            add_line(&format!(
                "legwork: blocked by sandbox: {program} (no rule names it; sandbox.exec adds helpers)"
            ));
        }
        if status.out_of_memory {
            add_line("legwork: the command was ended: it used more than sandbox.limits.memory");
        }
        if status.dropped_bytes > 0 {
            let why = status.journal_error.clone().unwrap_or_else(|| {
                format!("the limit of {} bytes per stream was reached", self.config.limits.output_bytes)
            });
            add_line(&format!("legwork: {} bytes of output were not kept: {why}", status.dropped_bytes));
        }
        if status.ended_by == Some(EndedBy::Timeout) {
            add_line("command timed out");
        }
        let denied = status.denied.iter().map(|denial| denial.program.clone());
        let blocked = denied.chain(guessed).collect();
        Ok(BashOutput { stdout, stderr, exit_code: status.exit_code, ended_by: status.ended_by, blocked })
    }

    /// How the execs of a command were judged.
    pub(crate) fn gate_of(&self, file: &Path) -> &'static str {
        let judged = legwork_process::spec_of(file).is_ok_and(|spec| spec.gate.is_some());
        match self.walls.current().standing() {
            _ if judged => Standing::Exec.name(),
            Standing::Exec => "",
            other => other.name(),
        }
    }

    /// Waits until the audit is written so far.
    pub async fn flush_audit(&self) {
        self.config.audit.flush().await;
    }

    /// Finds a line again that was started by an earlier process.
    pub async fn adopt(&self, file: &Path) -> Adoption {
        let file = file.to_owned();
        tokio::task::spawn_blocking(move || legwork_process::adopt(&file))
            .await
            .unwrap_or_else(|_| Adoption::Lost("the runner failed while it looked for it".into()))
    }

    /// Records the loss of a line whose file is gone as well.
    pub async fn record_lost(&self, bash: &Bash, requester: &Requester, reason: &str) -> Failure {
        let record = Record {
            decision: "allow",
            outcome: "lost",
            reason: Some(reason.to_owned()),
            started_ms: now_ms(),
            ..bash_record(bash, requester)
        };
        self.config.audit.record(record).await;
        lost(reason)
    }
}

/// Does blocking work on this very thread: a command's way is short enough that
/// changes of threads would be most of it. `None` if it panicked, which must not
/// cost the task its result.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> Option<T> {
    let work = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
    // A runtime with one thread has nowhere to put its other work meanwhile.
    let alone = tokio::runtime::Handle::try_current()
        .is_ok_and(|h| h.runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread);
    if alone { work() } else { tokio::task::block_in_place(work) }
}

/// How a command ended, by its file.
pub(crate) fn ended(file: &Path) -> Result<Status, Failure> {
    let status = match legwork_process::status(file) {
        Ok(status) if status.state != State::Running => status,
        // The supervisor is gone without a last word; adopt() knows why.
        _ => match legwork_process::adopt(file) {
            Adoption::Ended(status) => status,
            Adoption::Lost(reason) => return Err(lost(&reason)),
            // The helper was killed before it came to it: nothing ran.
            Adoption::NeverStarted => {
                let text = "failed to execute command: its supervisor was not started";
                return Err(Failure::Failed(text.into()));
            }
            Adoption::Running(_) => return Err(lost("its supervisor closed the connection")),
        },
    };
    if status.state == State::Failed {
        let cause = status.error.clone().unwrap_or_default();
        return Err(Failure::Failed(format!("failed to execute command: {cause}")));
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

pub(crate) fn now_ms() -> u64 {
    u64::try_from(now().as_millis()).unwrap_or(u64::MAX)
}

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
pub(crate) fn sandbox_of(file: &Path) -> &'static str {
    let plan = legwork_process::spec_of(file).ok().and_then(|spec| spec.sandbox);
    plan.map_or(Profile::Off, |plan| plan.profile).name()
}

fn bash_record(bash: &Bash, requester: &Requester) -> Record {
    Record {
        operation: "bash".into(),
        subject: redact(&bash.command),
        sha256: Some(hex(&Sha256::digest(bash.command.as_bytes()))),
        ..record_of(requester)
    }
}

/// One stream of a journal as a reader.
struct StreamReader {
    cursor: Cursor,
    rest: Vec<u8>,
    at: usize,
}

impl StreamReader {
    fn new(cursor: Cursor) -> Self {
        Self { cursor, rest: Vec::new(), at: 0 }
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.rest.len() {
            let Some(chunk) = self.cursor.next(64 * 1024)? else { return Ok(0) };
            self.rest = chunk.data;
            self.at = 0;
        }
        let len = buffer.len().min(self.rest.len() - self.at);
        buffer[..len].copy_from_slice(&self.rest[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// All of a short stream; beginning and end of a long one.
fn head_and_tail(mut stream: impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    stream.by_ref().take(2 * STDERR_PART as u64).read_to_end(&mut head)?;
    let mut tail: Vec<u8> = Vec::new();
    let mut omitted = 0u64;
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        if omitted == 0 && tail.is_empty() {
            tail = head.split_off(STDERR_PART);
        }
        tail.extend_from_slice(&buffer[..len]);
        let extra = tail.len().saturating_sub(STDERR_PART);
        tail.drain(..extra);
        omitted += extra as u64;
    }
    let mut text = String::from_utf8_lossy(&head).into_owned();
    if omitted > 0 {
        text.push_str(&format!("\n... [{omitted} bytes omitted] ...\n"));
    }
    text.push_str(&String::from_utf8_lossy(&tail));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_stderr_keeps_both_ends() {
        assert_eq!(head_and_tail(&b"short"[..]).expect("read"), "short");
        let exact = "x".repeat(30_000);
        assert_eq!(head_and_tail(exact.as_bytes()).expect("read"), exact);
        let long = format!("first{}last", "y".repeat(200_000));
        let kept = head_and_tail(long.as_bytes()).expect("read");
        assert!(kept.starts_with("first") && kept.ends_with("last"));
        assert!(kept.contains("... [170009 bytes omitted] ..."), "{}", &kept[14_990..15_060]);
    }
}
