//! A command in gVisor: an OCI bundle for `runsc`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::plan::{Plan, World};

/// Where the command's root is put together.
pub(crate) fn root_of(plan: &Plan) -> std::path::PathBuf {
    plan.tmp.join("rootfs")
}

/// Writes the bundle of a command into the plan's temporary folder, or what another command's
/// is told of it; returns what to execute in its place.
pub fn bundle(plan: &Plan, argv: &[String], env: &BTreeMap<String, String>) -> io::Result<Vec<String>> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let bundle = match &plan.world {
        World::Of(inhabitant) => &inhabitant.tmp,
        _ => &plan.tmp,
    };
    let id = bundle.file_name().map_or_else(|| "legwork".into(), |name| name.to_string_lossy().into_owned());
    let mut command = vec![
        text(&plan.runsc),
        format!("--root={}", text(&bundle.join("state"))),
        "--network=host".into(),
        "--ignore-cgroups".into(),
    ];
    if !rustix::process::geteuid().is_root() {
        command.push("--rootless".into());
    }
    if plan.world.is_anothers() {
        std::fs::create_dir_all(&plan.tmp)?;
        let file = plan.tmp.join("process.json");
        std::fs::write(&file, serde_json::to_vec(&process(plan, argv, env))?)?;
        command.extend(["exec".into(), format!("--process={}", text(&file)), id]);
        return Ok(command);
    }
    let rootfs = root_of(plan);
    std::fs::create_dir_all(&rootfs)?;
    let config = config(plan, argv, env, &rootfs);
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
    command.extend(["run".into(), format!("--bundle={}", text(bundle)), id]);
    Ok(command)
}

/// What is to be executed, as whom and within which bounds.
fn process(plan: &Plan, argv: &[String], env: &BTreeMap<String, String>) -> Value {
    let env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let rlimits: Vec<Value> = [
        ("RLIMIT_NOFILE", plan.limits.open_files),
        ("RLIMIT_FSIZE", plan.limits.file_size),
        ("RLIMIT_NPROC", plan.limits.processes),
    ]
    .into_iter()
    .filter_map(|(name, most)| Some(json!({ "type": name, "hard": most?, "soft": most? })))
    .collect();
    let user = match &plan.run_as {
        // The user namespace around `runsc` maps that user to 0.
        Some(user) if rustix::process::geteuid().is_root() => json!({ "uid": user.uid, "gid": user.gid }),
        _ => json!({ "uid": 0, "gid": 0 }),
    };
    let nothing: [&str; 0] = [];
    json!({
        // A terminal is made by the supervisor, and passed on as stdin.
        "terminal": false,
        "user": user,
        "args": argv,
        "env": env,
        "cwd": plan.cwd,
        "capabilities": {
            "bounding": nothing, "effective": nothing, "inheritable": nothing, "permitted": nothing,
        },
        "rlimits": rlimits,
        "noNewPrivileges": true,
    })
}

fn config(plan: &Plan, argv: &[String], env: &BTreeMap<String, String>, rootfs: &Path) -> Value {
    // The files of the machine are one tree, put together before `runsc` starts: each
    // mount of its own would cost it milliseconds.
    let mounts = [
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] }),
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] }),
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": process(plan, argv, env),
        // Read-only by its mounts, but for the workspace.
        "root": { "path": rootfs, "readonly": false },
        "hostname": "sandbox",
        "mounts": mounts,
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }] },
    })
}
