//! `service.reload`: a unit of systemd.

use std::path::Path;
use std::time::{Duration, Instant};

use legwork_proto::micro::result;

use crate::fields::Fields;
use crate::process::{Job, Keep, look_up};
use crate::request::{Context, Request, Trouble, failure};

/// Systemd's longest unit name is 255.
const MAX_NAME: usize = 255;

/// How long a unit that was started must stay up.
const WATCH: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn run(context: &mut Context<'_>, request: &Request) -> Result<result::ServiceReload, Trouble> {
    let fields = Fields::parse(&request.params, &["name", "action", "dry_run"])?;
    let (name, action) = (fields.string("name")?, fields.string("action")?);
    if name.is_empty() {
        return Err("service name is required".into());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.starts_with('-') || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(format!("invalid service name: {name:?}").into());
    }
    let before = State::read(context, &name)?;
    let (done, already) = match action.as_str() {
        "reload" => ("reloaded", None),
        "restart" => ("restarted", None),
        "start" => ("started", (before.status == "active").then_some("already_started")),
        "stop" => ("stopped", (before.status == "inactive").then_some("already_stopped")),
        "enable" => ("enabled", before.enabled.then_some("already_enabled")),
        "disable" => ("disabled", (before.known && !before.enabled).then_some("already_disabled")),
        _ => return Err(format!("invalid action: {}", action.chars().take(100).collect::<String>()).into()),
    };
    if already.is_none() && !fields.boolean("dry_run")? {
        let keep = Keep::Capture(64 * 1024);
        let job = Job { out: keep, err: keep, ..Job::new("systemctl", &[&action, "--", &name]) };
        let failed = |why: Trouble| why.context(&format!("failed to {action} service"));
        let before = restarts(context, &name)?;
        context.succeed(&job).map_err(|why| failed(explain(why)))?;
        if matches!(action.as_str(), "reload" | "restart" | "start") {
            // A start counts its restarts anew.
            let before = if action == "reload" { before } else { 0 };
            watch(context, &name, before).map_err(failed)?;
        }
    }
    let after = State::read(context, &name)?;
    Ok(result::ServiceReload {
        changed: already.is_none(),
        action: already.unwrap_or(done).to_owned(),
        status: after.status,
        enabled: after.enabled,
        sub_state: after.sub_state,
    })
}

fn ask(context: &mut Context<'_>, args: &[&str]) -> Result<String, Trouble> {
    let job = Job { out: Keep::Capture(4096), ..Job::new("systemctl", args) };
    let ended = context.run(&job)?;
    Ok(String::from_utf8_lossy(&ended.stdout.bytes).trim().to_owned())
}

fn property(context: &mut Context<'_>, name: &str, property: &str) -> Result<String, Trouble> {
    ask(context, &["show", &format!("--property={property}"), "--value", "--", name])
}

/// How often systemd has started a unit again by itself; 0 where it does not say.
fn restarts(context: &mut Context<'_>, name: &str) -> Result<u64, Trouble> {
    Ok(property(context, name, "NRestarts")?.parse().unwrap_or(0))
}

/// Looks for a moment whether a unit stays up: for most, systemd calls it a success that a
/// process could be started at all.
fn watch(context: &mut Context<'_>, name: &str, before: u64) -> Result<(), Trouble> {
    let until = Instant::now() + WATCH;
    loop {
        let status = ask(context, &["is-active", "--", name])?;
        let is_gone = match status.as_str() {
            "failed" => true,
            // One that does its work and ends has ended well.
            "inactive" => property(context, name, "Type")? != "oneshot",
            "activating" => property(context, name, "SubState")? == "auto-restart",
            _ => restarts(context, name)? > before,
        };
        if is_gone {
            let how = property(context, name, "Result")?;
            let keep = Keep::Capture(64 * 1024);
            let args = ["status", "--no-pager", "--full", "--lines=10", "--", name];
            let told = context.run(&Job { out: keep, err: keep, ..Job::new("systemctl", &args) })?;
            let Trouble::Failed(_, said) = failure(&told) else { return Ok(()) };
            return Err(Trouble::Failed(format!("it did not stay up: {status} ({how})"), said));
        }
        if Instant::now() >= until {
            return Ok(());
        }
        context.pause(LOOK)?;
    }
}

/// Without systemd, "exit status 1" would send the reader after the service.
fn explain(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Failed(why, said) if !is_booted() => {
            Trouble::Failed(format!("{why}: systemd does not run on this host"), said)
        }
        other => other,
    }
}

/// As sd_booted(3) has it.
pub(super) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

struct State {
    status: String,
    enabled: bool,
    /// `is-enabled` had an answer.
    known: bool,
    sub_state: String,
}

impl State {
    fn read(context: &mut Context<'_>, name: &str) -> Result<Self, Trouble> {
        if look_up("systemctl").is_err() {
            let none = String::new;
            return Ok(Self { status: none(), enabled: false, known: false, sub_state: none() });
        }
        let status = ask(context, &["is-active", "--", name])?;
        let enabled = ask(context, &["is-enabled", "--", name])?;
        let sub_state = property(context, name, "SubState")?;
        Ok(Self { status, enabled: enabled == "enabled", known: !enabled.is_empty(), sub_state })
    }
}
