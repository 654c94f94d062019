//! A change that is taken back unless somebody confirms it in time: by a process of this
//! program on the host, which needs no connection and nobody's order.
//!
//! A file beside the config stands for the change. Whoever removes it has confirmed; whoever
//! renames it has taken the change back. The file system lets only one of them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_proto::micro::{Command, CommandType, Message, kind};

use super::sshd::{Effective, put, take_back};
use super::sshd_config::Config;
use crate::fields::Fields;
use crate::os::cause;
use crate::process::quiet;
use crate::request::{Context, Trouble};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long whoever takes a change back waits till it is done.
const PATIENCE: Duration = Duration::from_secs(15);

fn files(token: &str) -> Result<(PathBuf, PathBuf), Trouble> {
    if token.is_empty() || token.len() > 64 || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("not the name of a change".into());
    }
    let place = |what: &str| PathBuf::from(format!("/etc/ssh/.legwork-{what}-{token}"));
    Ok((place("pending"), place("undo")))
}

/// Starts the watch, before anything is changed. Names the change.
pub(super) fn arm(
    context: &mut Context<'_>,
    former: &Config,
    effective: &Effective,
    seconds: u64,
) -> Result<String, Trouble> {
    let failed = |error: std::io::Error| format!("failed to prepare the roll-back: {}", cause(&error));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let token = format!("{:x}{:x}", std::process::id(), now.as_nanos());
    let (pending, _) = files(&token)?;
    let text = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let mut contents = String::new();
    for file in &former.files {
        let between = if contents.is_empty() { "" } else { "," };
        contents += &format!(
            "{between}{}:\"{}\"",
            text(&file.path.to_string_lossy()),
            STANDARD.encode(file.lines.concat())
        );
    }
    let pid_file = effective.iter().find(|(keyword, _)| keyword == "pidfile");
    let pid_file = text(pid_file.map_or("none", |(_, path)| path));
    let params = format!(
        "{{\"keep_watch\":{{\"token\":\"{token}\",\"seconds\":{seconds},\"pidfile\":{pid_file},\"files\":{{{contents}}}}}}}"
    );
    let params = serde_json::value::RawValue::from_string(params).map_err(|error| error.to_string())?;
    let data = Command {
        id: "watch",
        kind: CommandType::SshdHarden.name(),
        timeout: seconds + 60,
        params: &*params,
        idempotency_key: None,
        signature: None,
    };
    let message = Message { kind: kind::CMD.to_owned(), timestamp: None, data };
    let line = serde_json::to_vec(&message).unwrap_or_default();
    std::fs::File::create_new(&pending).map_err(failed)?;
    let started = std::env::current_exe().and_then(|program| {
        let life = format!("{}s", seconds + 120);
        let mut command = quiet(program);
        let mut child =
            command.args(["--elevated", "--keep", "--ttl", &life]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?.write_all(&line)?;
        Ok(child.id())
    });
    match started {
        Ok(process) => context.port.tree.spare(process),
        Err(error) => {
            let _ = std::fs::remove_file(&pending);
            return Err(failed(error).into());
        }
    }
    Ok(token)
}

/// The change stays.
pub(super) fn confirm(token: &str) -> Result<(), Trouble> {
    let (pending, _) = files(token)?;
    std::fs::remove_file(pending).map_err(|_| "the change was taken back already: the time was over".into())
}

/// The change is taken back now; returns once that is done.
pub(super) fn undo(context: &mut Context<'_>, token: &str) -> Result<(), Trouble> {
    let (pending, undone) = files(token)?;
    let until = Instant::now() + PATIENCE;
    let asked = std::fs::rename(pending, &undone).is_ok();
    while undone.exists() {
        if Instant::now() > until {
            return Err("the change was not taken back: /etc/ssh/sshd_config.bak is as it was".into());
        }
        context.pause(LOOK)?;
    }
    if asked { Ok(()) } else { Err("there is no such change, or it was confirmed".into()) }
}

/// The watch itself: a process of its own.
pub(super) fn keep_watch(context: &mut Context<'_>, order: &str) -> Result<(), Trouble> {
    // It outlives the session that it was started in.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let fields = Fields::parse(order, &["token", "seconds", "files", "pidfile"])?;
    let (pending, undone) = files(&fields.string("token")?)?;
    let until = Instant::now() + Duration::from_secs(u64::try_from(fields.integer("seconds")?).unwrap_or(0));
    let contents = fields.map("files")?;
    let effective = vec![("pidfile".to_owned(), fields.string("pidfile")?)];
    loop {
        if !pending.exists() && !undone.exists() {
            return Ok(());
        }
        // Told to end, it has no time left.
        let over = context.pause(LOOK).is_err() || Instant::now() >= until;
        if over {
            let _ = std::fs::rename(&pending, &undone);
        }
        if undone.exists() {
            break;
        }
    }
    for (path, content) in &contents {
        if let Ok(content) = STANDARD.decode(content) {
            let same = std::fs::read(path).is_ok_and(|now| now == content);
            let _ = if same { Ok(()) } else { put(Path::new(path), &[content]) };
        }
    }
    take_back(context, None, &effective);
    let _ = std::fs::remove_file(&undone);
    Ok(())
}
