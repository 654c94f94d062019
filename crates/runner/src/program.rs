//! Programs that a door starts by its own word: behind the same walls as shell lines and
//! under the same audit. Only a [`Program::line`] is judged by the policy, which is about what
//! others ask for.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use legwork_process::sandbox::Profile;
use legwork_process::{EndedBy, Limits, Piped, Running, Spec, Status};

use crate::audit::Record;
use crate::operation::{Failure, Requester};
use crate::redact::redact;
use crate::runner::{Runner, denials, ended, in_place, now_ms, record_of, sandbox_of};
use crate::walls::{Passed, Under};

/// A program to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// Program, by an absolute path, and arguments.
    pub argv: Vec<String>,
    /// Beside the usual environment; these win.
    pub env: BTreeMap<String, String>,
    /// The folder, beneath the root.
    pub workdir: String,
    /// Wall time; `None` for no limit.
    pub timeout: Option<Duration>,
    /// A shell line to run instead, if the policy lets it.
    pub line: Option<String>,
    /// What it is, for the audit.
    pub subject: String,
    /// Its temporary folder, where that is not to be one of its own. (Behind walls that have
    /// another root it has /tmp.)
    pub tmp: Option<PathBuf>,
    /// What it leaves running lives on: see [`Spec::keeps_tree`].
    pub keeps_tree: bool,
}

impl Runner {
    /// Starts a program under a supervisor with the file `file`.
    pub async fn start_program(
        self: &Arc<Self>,
        program: &Program,
        requester: &Requester,
        file: &Path,
    ) -> Result<Running, Failure> {
        let started = in_place(|| self.start_program_now(program, file)).unwrap_or_else(|| {
            Err(Failure::Failed("the program could not be started; see the runner's log".into()))
        });
        match started {
            Ok(running) => Ok(running),
            Err(failure) => {
                let denied = matches!(failure, Failure::Denied(_));
                let record = Record {
                    decision: if denied { "deny" } else { "allow" },
                    outcome: if denied { "denied" } else { "failed" },
                    reason: Some(redact(&failure.to_string())),
                    started_ms: now_ms(),
                    ..program_record(program, requester)
                };
                self.config.audit.record(record).await;
                Err(failure)
            }
        }
    }

    /// Starts a program that talks to this process and ends with it. What wants to be
    /// served of its progress is the caller's.
    pub async fn start_piped(
        self: &Arc<Self>,
        program: &Program,
        requester: &Requester,
        file: &Path,
    ) -> Result<Piped, Failure> {
        let started = self.spec(program, file).and_then(|(cwd, spec)| {
            let spawned = self.config.spawner.spawn_piped(file, cwd.as_fd(), spec);
            spawned.map_err(|e| Failure::Failed(format!("failed to execute command: {e}")))
        });
        if let Err(failure) = &started {
            let record = Record {
                decision: "allow",
                outcome: "failed",
                reason: Some(redact(&failure.to_string())),
                started_ms: now_ms(),
                ..program_record(program, requester)
            };
            self.config.audit.record(record).await;
        }
        started
    }

    fn start_program_now(&self, program: &Program, file: &Path) -> Result<Running, Failure> {
        let (cwd, spec) = self.spec(program, file)?;
        let spawned = self.config.spawner.spawn(file, cwd.as_fd(), &spec);
        spawned.map_err(|e| Failure::Failed(format!("failed to execute command: {e}")))
    }

    /// What a supervisor is told of a program, and where it starts.
    fn spec(&self, program: &Program, file: &Path) -> Result<(OwnedFd, Spec), Failure> {
        let failed = |cause: String| Failure::Failed(format!("failed to execute command: {cause}"));
        let in_force = match &program.line {
            Some(line) => self.walls.current_for(line, &self.config.env),
            None => self.walls.current(),
        };
        let cwd = self.config.root.open_dir(&program.workdir).map_err(|e| failed(e.to_string()))?;
        let (argv, under, writes) = match &program.line {
            None => (program.argv.clone(), Under::Programs, false),
            Some(line) => {
                let run = self.judge(line, &in_force.rules.policy).map_err(|(failure, _)| failure)?;
                let argv = self.line(run.text).map_err(|e| failed(e.to_string()))?;
                (argv, Under::Lines, run.computed_writes)
            }
        };
        let mut env = self.config.env.clone();
        env.extend(program.env.clone());
        let mut spec = Spec {
            argv,
            env,
            limits: Limits { timeout: program.timeout, ..self.config.limits.clone() },
            keeps_tree: program.keeps_tree,
            ..Spec::default()
        };
        let here = PathBuf::from(self.config.root.path()).join(&program.workdir);
        let here = here.canonicalize().unwrap_or(here);
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let workspace = self.config.root.path();
        self.walls.surround(&mut spec, &in_force, under, (workspace, &here), &name);
        if let Some(gate) = &mut spec.gate {
            gate.writes = writes;
        }
        if let Some(tmp) = &program.tmp
            && self.sandbox() == Profile::Landlock
        {
            spec.env.insert("TMPDIR".into(), tmp.to_string_lossy().into_owned());
        }
        Ok((cwd, spec))
    }

    /// How a program ended, and the audit's record of it. What it printed is in its file.
    pub async fn finish_program(
        self: &Arc<Self>,
        program: &Program,
        requester: &Requester,
        file: &Path,
    ) -> Result<Status, Failure> {
        let result = in_place(|| ended(file)).unwrap_or_else(|| {
            Err(Failure::Failed("its end could not be found out; see the runner's log".into()))
        });
        let Passed { sent, received, refused } = self.walls.close_door(file);
        let record = Record {
            decision: "allow",
            denied: result.as_ref().map(denials).unwrap_or_default(),
            gate: if program.line.is_some() { self.gate_of(file) } else { "" },
            sandbox: sandbox_of(file),
            egress_sent: (sent + received > 0).then_some(sent),
            egress_received: (sent + received > 0).then_some(received),
            egress_refused: refused,
            outcome: match &result {
                Ok(status) => match status.ended_by {
                    Some(EndedBy::Timeout) => "timed_out",
                    Some(EndedBy::Cancel) => "cancelled",
                    None => "exited",
                },
                Err(Failure::Lost(_)) => "lost",
                Err(_) => "failed",
            },
            reason: result.as_ref().err().map(|e| redact(&e.to_string())),
            exit_code: result.as_ref().ok().and_then(|s| s.exit_code),
            bytes: result.as_ref().ok().map(|s| s.stdout_bytes + s.stderr_bytes),
            started_ms: result.as_ref().map_or_else(|_| now_ms(), |s| s.started_ms),
            ..program_record(program, requester)
        };
        self.config.audit.record(record).await;
        result
    }
}

fn program_record(program: &Program, requester: &Requester) -> Record {
    Record { operation: "program".into(), subject: redact(&program.subject), ..record_of(requester) }
}
