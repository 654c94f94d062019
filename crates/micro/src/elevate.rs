//! Work that needs root, by sudo.
//!
//! The password is tried first (`sudo -S -v`), then everything runs with `sudo -n`: sudo
//! never waits for a terminal, and the password never reaches the command's own input.
//! All but `exec` is done by this very program, started once more as root: files are
//! replaced as a whole there, too, and no other tool is needed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use legwork_proto::micro::{Command, CommandType, MAX_LINE, Message, code, kind};
use serde_json::value::RawValue;

use crate::commands::{Answer, temporary};
use crate::fields::Fields;
use crate::output::entry;
use crate::process::{Job, Keep};
use crate::request::{Context, Request, Trouble, failure};

/// How long our elevated self may take to say that its time is over.
const ANSWER: Duration = Duration::from_secs(5);

/// Whether sudo would change nothing.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How sudo is called once it knows us. Dropping it takes the password off the host.
#[derive(Debug, Default)]
pub(crate) struct Sudo {
    /// Of one that keeps no credentials: the file with the password, which this program, as
    /// sudo's askpass, reads.
    answer: Option<PathBuf>,
    program: String,
}

impl Sudo {
    /// The words before a command.
    pub(crate) fn words(&self) -> &'static [&'static str] {
        if self.answer.is_some() { &["sudo", "-A", "-p", "", "--"] } else { &["sudo", "-n", "--"] }
    }

    /// The variables that sudo needs.
    pub(crate) fn variables(&self) -> Vec<(&str, &str)> {
        let answer = self.answer.as_ref().and_then(|file| file.to_str());
        answer.map_or_else(Vec::new, |file| vec![("SUDO_ASKPASS", self.program.as_str()), (ASKPASS, file)])
    }
}

impl Drop for Sudo {
    fn drop(&mut self) {
        self.answer.iter().for_each(|file| drop(std::fs::remove_file(file)));
    }
}

/// Names the file with the password to this program as sudo's askpass.
pub(crate) const ASKPASS: &str = "LEGWORK_MICRO_ASKPASS";

/// Makes sudo run without asking a person, if a password was given.
pub(crate) fn authenticate(context: &mut Context<'_>, password: &str) -> Result<Sudo, Trouble> {
    if password.is_empty() {
        return Ok(Sudo::default());
    }
    if password.contains(['\n', '\0']) {
        return Err("sudo_password: must be one line".into());
    }
    let input = format!("{password}\n");
    let job = Job {
        input: input.as_bytes(),
        err: Keep::Capture(4096),
        sudo: Some(&Sudo::default()),
        ..Job::new("sudo", &["-S", "-p", "", "-v"])
    };
    context.succeed(&job).map(drop).map_err(|trouble| trouble.context("sudo authentication failed"))?;
    if context.run(&Job::new("sudo", &["-n", "-v"]))?.code == Some(0) {
        return Ok(Sudo::default());
    }
    // It keeps no credentials (timestamp_timeout=0): it will ask each time, but never the
    // command's own input, and nobody if no password is needed after all.
    let failed =
        |error: std::io::Error| format!("sudo keeps no credentials, and {}", crate::os::cause(&error));
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let (file, mut open) = temporary(&folder.join("legwork-sudo")).map_err(failed)?;
    let sudo = Sudo {
        answer: Some(file),
        program: std::env::current_exe().map_err(failed)?.to_string_lossy().into_owned(),
    };
    std::io::Write::write_all(&mut open, input.as_bytes()).map_err(failed)?;
    Ok(sudo)
}

/// Has a command carried out by this program as root.
pub(crate) fn as_root(
    context: &mut Context<'_>,
    request: &Request,
    password: &str,
) -> Result<Answer, Trouble> {
    let sudo = authenticate(context, password)?;
    let program = std::env::current_exe().map_err(|error| crate::os::cause(&error))?;
    let program = program.to_string_lossy();
    let left = context.deadline.saturating_duration_since(std::time::Instant::now()).as_secs();
    let params = serde_json::from_str::<&RawValue>(&request.params).map_err(|error| error.to_string())?;
    let data = Command {
        id: &request.id,
        kind: request.kind.name(),
        timeout: left.max(1),
        params,
        idempotency_key: None,
        signature: None,
    };
    let message = Message { kind: kind::CMD.to_owned(), timestamp: None, data };
    // Writing to memory can't fail, and our types have no keys that are no strings.
    let line = serde_json::to_vec(&message).unwrap_or_default();
    // Our elevated self keeps to the time, and has a moment to say so. A package manager
    // that it leaves to finish is not ours to end either.
    context.deadline += ANSWER;
    let finish = request.kind == CommandType::PkgEnsure;
    let (life, capture) = (format!("{}s", left + 10), Keep::Capture(MAX_LINE));
    let words = [sudo.words(), &[&program, "--elevated", "--keep", "--ttl", &life]].concat();
    let variables = sudo.variables();
    let job = Job {
        input: &line,
        set: &variables,
        out: capture,
        err: Keep::Capture(4096),
        finish,
        sudo: Some(&sudo),
        ..Job::new(words[0], &words[1..])
    };
    let ended = context.run(&job)?;
    let answer = std::str::from_utf8(&ended.stdout.bytes).unwrap_or_default();
    let message = Fields::parse(answer.trim_end(), &["type", "data"]).ok();
    let data = message.as_ref().and_then(|message| message.raw("data"));
    let data = data.and_then(|data| Fields::parse(data, &["result", "code", "message", "details"]).ok());
    let Some(data) = data else { return Err(failure(&ended).context("sudo failed")) };
    if let Some(result) = data.raw("result") {
        let result = RawValue::from_string(result.to_owned());
        return result.map(Answer::Raw).map_err(|_| "the elevated runner gave no result".into());
    }
    if data.string("code").is_ok_and(|code| code == code::TIMEOUT) {
        return Err(Trouble::Left(data.string("message").unwrap_or_default()));
    }
    let said = data.map("details").ok().and_then(|mut details| details.remove("output"));
    Err(Trouble::Failed(data.string("message").unwrap_or_default(), said.map(|text| entry("output", text))))
}
