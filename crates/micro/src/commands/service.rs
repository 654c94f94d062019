//! `service.reload`: a unit of systemd.

use std::path::Path;

use legwork_proto::micro::result;

use crate::fields::Fields;
use crate::process::{Job, Keep, look_up};
use crate::request::{Context, Request, Trouble};

/// Systemd's longest unit name is 255.
const MAX_NAME: usize = 255;

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
        context.succeed(&job).map_err(|why| explain(why).context(&format!("failed to {action} service")))?;
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
        let mut ask = |args: &[&str]| {
            let job = Job { out: Keep::Capture(4096), ..Job::new("systemctl", args) };
            let ended = context.run(&job)?;
            Ok::<_, Trouble>(String::from_utf8_lossy(&ended.stdout.bytes).trim().to_owned())
        };
        let status = ask(&["is-active", "--", name])?;
        let enabled = ask(&["is-enabled", "--", name])?;
        let sub_state = ask(&["show", "--property=SubState", "--value", "--", name])?;
        Ok(Self { status, enabled: enabled == "enabled", known: !enabled.is_empty(), sub_state })
    }
}
