//! `legwork doctor`: what this machine can do, and what to do about what it can't.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use legwork_process::sandbox::{Profile, probe};
use legwork_runner::{Wanted, choose, try_gate};
use legwork_workspace::{Resolver, Root};
use serde_json::json;

use crate::args::DoctorArgs;
use crate::{context, exit};

struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

pub(crate) async fn run(args: DoctorArgs) -> Result<u8> {
    let mut checks = vec![kernel_paths(), bash(), supervisors(), open_files(), state(), hub()];
    checks.extend(walls().await);
    let failed = checks.iter().any(|c| !c.ok);
    if args.json {
        let list: Vec<_> =
            checks.iter().map(|c| json!({ "name": c.name, "ok": c.ok, "detail": c.detail })).collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
    } else {
        for check in &checks {
            println!("{}  {:12} {}", if check.ok { "ok  " } else { "FAIL" }, check.name, check.detail);
        }
    }
    Ok(if failed { exit::ERROR } else { 0 })
}

fn kernel_paths() -> Check {
    let probe = std::env::temp_dir();
    let (ok, detail) = match Root::open(&probe).map(|root| root.resolver()) {
        Ok(Resolver::Kernel) => (true, "openat2 keeps paths beneath the workspace".to_owned()),
        Ok(Resolver::Walk) => {
            (true, "no openat2 here: paths are walked component by component, slower and as safe".into())
        }
        Err(error) => (false, format!("{}: {error}", probe.display())),
    };
    Check { name: "paths", ok, detail }
}

fn bash() -> Check {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = legwork_base::programs::find("bash", &path);
    match found {
        Some(bash) => Check { name: "bash", ok: true, detail: bash.display().to_string() },
        None => Check {
            name: "bash",
            ok: false,
            detail: "not found in PATH: install bash, every command runs in it".into(),
        },
    }
}

fn supervisors() -> Check {
    let ok = !legwork_process::boot_id().is_empty() && Path::new("/proc/self/exe").exists();
    let detail = if ok {
        "commands outlive the runner and are adopted again"
    } else {
        "/proc is not mounted: commands can't be supervised"
    };
    Check { name: "supervisors", ok, detail: detail.into() }
}

fn open_files() -> Check {
    let limit = legwork_process::raise_open_files();
    let detail = format!("{limit} files may be open at a time");
    if limit < 4096 {
        return Check {
            name: "open files",
            ok: false,
            detail: format!("{detail}: raise it with ulimit -n or LimitNOFILE="),
        };
    }
    Check { name: "open files", ok: true, detail }
}

fn state() -> Check {
    let dir = context::state_dir();
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    let result = std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&probe, b""))
        .and_then(|()| std::fs::remove_file(&probe));
    match result {
        Ok(()) => Check { name: "state", ok: true, detail: dir.display().to_string() },
        Err(error) => Check {
            name: "state",
            ok: false,
            detail: format!("{}: {error}; set LEGWORK_STATE_DIR to a writable folder", dir.display()),
        },
    }
}

/// Each wall is tried by building it; one that can't be had is no failure, as long as
/// nobody asks for it.
async fn walls() -> Vec<Check> {
    let path = std::env::var("PATH").unwrap_or_default();
    let env = BTreeMap::from([("PATH".to_owned(), path.clone())]);
    let dir = context::state_dir().join("doctor");
    let mut checks = Vec::new();
    let workspace = dir.join("workspace");
    let spawner = std::fs::create_dir_all(&workspace)
        .and_then(|()| legwork_process::Spawner::start(Path::new("/proc/self/exe")));
    let gate = match &spawner {
        Ok(spawner) => try_gate(spawner, &env, &workspace, &dir).await,
        Err(error) => Err(error.to_string()),
    };
    let detail = match gate {
        Ok(()) => "execs can be judged (tried)".to_owned(),
        Err(reason) => format!("not here, so rules judge the text of commands alone: {reason}"),
    };
    checks.push(Check { name: "gate", ok: true, detail });
    for profile in [Profile::Landlock, Profile::Namespaces, Profile::Gvisor] {
        let wanted = Wanted { profile: Some(profile), ..Wanted::default() };
        let result = match &spawner {
            Ok(spawner) => choose(&wanted, spawner, &env, &workspace, &dir).await,
            Err(error) => Err(error.to_string()),
        };
        let detail = match result {
            Ok(walled) if walled.notes.is_empty() => "can be had (tried)".to_owned(),
            Ok(walled) => format!("can be had (tried); {}", walled.notes.join("; ")),
            Err(reason) => format!("not here: {reason}"),
        };
        checks.push(Check { name: profile.name(), ok: true, detail });
    }
    let _ = std::fs::remove_dir_all(&dir);
    let groups = probe(&path).groups.controllers;
    let detail = if groups.is_empty() {
        "none can be made: memory and processors can't be bounded (a service has Delegate=yes)".to_owned()
    } else {
        format!("bound {}", groups.join(", "))
    };
    checks.push(Check { name: "cgroups", ok: true, detail });
    checks
}

fn hub() -> Check {
    let detail = match context::load() {
        Some(context) => format!("commands talk to {}", context.hub_url),
        None => "none chosen yet: `legwork up` starts one".into(),
    };
    Check { name: "hub", ok: true, detail }
}
