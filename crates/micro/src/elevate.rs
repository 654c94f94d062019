//! Work that needs root, by sudo.
//!
//! The password is tried first (`sudo -S -v`), then everything runs with `sudo -n`: sudo
//! never waits for a terminal, and the password never reaches the command's own input.
//! All but `exec` is done by this very program, started once more as root: files are
//! replaced as a whole there, too, and no other tool is needed.

use legwork_proto::micro::{Command, MAX_LINE, Message, kind};
use serde_json::value::RawValue;

use crate::commands::Answer;
use crate::fields::Fields;
use crate::output::entry;
use crate::process::{Job, Keep};
use crate::request::{Context, Request, Trouble, failure};

/// Whether sudo would change nothing.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes sudo run without asking, if a password was given.
pub(crate) fn authenticate(context: &mut Context<'_>, password: &str) -> Result<(), Trouble> {
    if password.is_empty() {
        return Ok(());
    }
    if password.contains(['\n', '\0']) {
        return Err("sudo_password: must be one line".into());
    }
    let input = format!("{password}\n");
    let job = Job {
        input: input.as_bytes(),
        err: Keep::Capture(4096),
        by_sudo: true,
        ..Job::new("sudo", &["-S", "-p", "", "-v"])
    };
    context.succeed(&job).map(drop).map_err(|trouble| trouble.context("sudo authentication failed"))
}

/// Has a command carried out by this program as root.
pub(crate) fn as_root(
    context: &mut Context<'_>,
    request: &Request,
    password: &str,
) -> Result<Answer, Trouble> {
    authenticate(context, password)?;
    let program = std::env::current_exe().map_err(|error| crate::os::cause(&error))?;
    let program = program.to_string_lossy();
    let left = context.deadline.saturating_duration_since(std::time::Instant::now()).as_secs() + 1;
    let params = serde_json::from_str::<&RawValue>(&request.params).map_err(|error| error.to_string())?;
    let data = Command {
        id: &request.id,
        kind: request.kind.name(),
        timeout: left,
        params,
        idempotency_key: None,
        signature: None,
    };
    let message = Message { kind: kind::CMD.to_owned(), timestamp: None, data };
    // Writing to memory can't fail, and our types have no keys that are no strings.
    let line = serde_json::to_vec(&message).unwrap_or_default();
    let (life, capture) = (format!("{}s", left + 10), Keep::Capture(MAX_LINE));
    let job = Job {
        input: &line,
        out: capture,
        err: Keep::Capture(4096),
        by_sudo: true,
        ..Job::new("sudo", &["-n", "--", &program, "--elevated", "--keep", "--ttl", &life])
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
    let said = data.map("details").ok().and_then(|mut details| details.remove("output"));
    Err(Trouble::Failed(data.string("message").unwrap_or_default(), said.map(|text| entry("output", text))))
}
