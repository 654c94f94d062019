//! A command in gVisor: an OCI bundle for `runsc`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::plan::Plan;

/// Writes the bundle of a command into the plan's temporary folder; returns what to
/// execute in its place.
pub fn bundle(
    plan: &Plan,
    argv: &[String],
    env: &BTreeMap<String, String>,
) -> io::Result<Vec<String>> {
    let bundle = &plan.tmp;
    let rootfs = bundle.join("rootfs");
    std::fs::create_dir_all(&rootfs)?;
    std::fs::write(bundle.join("empty"), "")?;
    let config = config(plan, argv, env, &rootfs)?;
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
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
    command.extend(["run".into(), format!("--bundle={}", text(bundle)), id]);
    Ok(command)
}

fn config(
    plan: &Plan,
    argv: &[String],
    env: &BTreeMap<String, String>,
    rootfs: &Path,
) -> io::Result<Value> {
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] }),
    ];
    let mut bind = |path: &Path, option: &str| -> io::Result<()> {
        let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
        if meta.is_symlink() {
            let target = rootfs.join(path.strip_prefix("/").unwrap_or(path));
            if let Some(dir) = target.parent() {
                std::fs::create_dir_all(dir)?;
            }
            return std::os::unix::fs::symlink(std::fs::read_link(path)?, target);
        }
        mounts.push(json!({
            "destination": path, "type": "bind", "source": path, "options": ["rbind", option, "nosuid", "nodev"],
        }));
        Ok(())
    };
    // The sandbox's kernel has a /proc, /sys and /dev of its own.
    let own = ["/proc", "/sys", "/dev"];
    for path in plan.read.iter().filter(|p| !own.iter().any(|o| p.starts_with(o))) {
        bind(path, "ro")?;
    }
    for path in plan.write.iter().chain([&plan.workspace]) {
        bind(path, "rw")?;
    }
    for path in &plan.hide {
        let Ok(meta) = path.symlink_metadata() else { continue };
        if !plan.read.iter().any(|read| path.starts_with(read)) {
            continue;
        }
        mounts.push(if meta.is_dir() {
            json!({ "destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["ro", "mode=000"] })
        } else {
            json!({ "destination": path, "type": "bind", "source": plan.tmp.join("empty"), "options": ["rbind", "ro"] })
        });
    }
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
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
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
        },
        "root": { "path": rootfs, "readonly": true },
        "hostname": "sandbox",
        "mounts": mounts,
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }] },
    }))
}
