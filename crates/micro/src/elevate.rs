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

/// Which program makes another of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Method {
    #[default]
    Sudo,
    Doas,
    Su,
}

/// As whom something is to run, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whom {
    pub(crate) method: Method,
    /// Empty: root.
    user: String,
}

impl Whom {
    /// From a command's parameters; `None`: as we are.
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Option<Self>, Trouble> {
        let (method, user) = (fields.string("become_method")?, fields.string("become_user")?);
        let asked = fields.boolean("use_sudo")? || !method.is_empty() || !user.is_empty();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+$".contains(c);
        if user.starts_with('-') || user.len() > 256 || !user.chars().all(plain) {
            return Err(format!("become_user: {user:?} is not the name of a user").into());
        }
        let method = match method.as_str() {
            // root needs nobody's leave, and may have no sudo.
            _ if is_root() => Method::Su,
            "" | "sudo" => Method::Sudo,
            "doas" => Method::Doas,
            "su" => Method::Su,
            _ => return Err("become_method: expected sudo, su or doas".into()),
        };
        let change = !is_root() || !matches!(user.as_str(), "" | "root");
        Ok((asked && change).then_some(Self { method, user }))
    }
}

/// How sudo, or another like it, is called once it knows us. Dropping it takes the password
/// off the host.
#[derive(Debug, Default)]
pub(crate) struct Sudo {
    whom: Whom,
    /// Of one that keeps no credentials: the file with the password, which this program, as
    /// sudo's askpass, reads.
    answer: Option<PathBuf>,
    program: String,
    /// What `su` reads before the command does.
    pub(crate) first: String,
}

impl Sudo {
    fn new(whom: Whom, first: String) -> Self {
        Self { whom, answer: None, program: String::new(), first }
    }

    /// The words before a program and its arguments.
    pub(crate) fn words(&self) -> Vec<&str> {
        let user = self.whom.user.as_str();
        let mut words = match (self.whom.method, &self.answer) {
            (Method::Sudo, Some(_)) => vec!["sudo", "-A", "-p", ""],
            (Method::Sudo, None) => vec!["sudo", "-n"],
            (Method::Doas, _) => vec!["doas", "-n"],
            (Method::Su, _) => {
                let user = if user.is_empty() { "root" } else { user };
                return vec!["su", "-s", "/bin/sh", "-c", "exec \"$0\" \"$@\"", "--", user];
            }
        };
        if !user.is_empty() {
            words.extend(["-u", user]);
        }
        words.push("--");
        words
    }

    /// Whether it can be asked what it permits.
    pub(crate) fn method(&self) -> Method {
        self.whom.method
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
pub(crate) fn authenticate(context: &mut Context<'_>, whom: Whom, password: &str) -> Result<Sudo, Trouble> {
    if password.is_empty() || whom.method == Method::Doas {
        return Ok(Sudo::new(whom, String::new()));
    }
    if password.contains(['\n', '\0']) {
        return Err("sudo_password: must be one line".into());
    }
    let input = format!("{password}\n");
    if whom.method == Method::Su {
        // It asks whoever is not root, and reads no more than its line.
        let first = if is_root() { String::new() } else { input };
        return Ok(Sudo::new(whom, first));
    }
    let job = Job {
        input: input.as_bytes(),
        err: Keep::Capture(4096),
        sudo: Some(&Sudo::default()),
        ..Job::new("sudo", &["-S", "-p", "", "-v"])
    };
    context.succeed(&job).map(drop).map_err(|trouble| trouble.context("sudo authentication failed"))?;
    if context.run(&Job::new("sudo", &["-n", "-v"]))?.code == Some(0) {
        return Ok(Sudo::new(whom, String::new()));
    }
    // It keeps no credentials (timestamp_timeout=0): it will ask each time, but never the
    // command's own input, and nobody if no password is needed after all.
    let failed =
        |error: std::io::Error| format!("sudo keeps no credentials, and {}", crate::os::cause(&error));
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let (file, mut open) = temporary(&folder.join("legwork-sudo")).map_err(failed)?;
    let sudo = Sudo {
        whom,
        first: String::new(),
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
    whom: Whom,
    password: &str,
) -> Result<Answer, Trouble> {
    if !matches!(whom.user.as_str(), "" | "root") {
        return Err("become_user: only exec runs as another than root".into());
    }
    let sudo = authenticate(context, whom, password)?;
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
    let mut line = sudo.first.clone().into_bytes();
    line.extend(serde_json::to_vec(&message).unwrap_or_default());
    // Our elevated self keeps to the time, and has a moment to say so. A package manager
    // that it leaves to finish is not ours to end either.
    context.deadline += ANSWER;
    let finish = request.kind == CommandType::PkgEnsure;
    let (life, capture) = (format!("{}s", left + 10), Keep::Capture(MAX_LINE));
    let mut words = sudo.words();
    words.extend([&*program, "--elevated", "--keep", "--ttl", &life]);
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
