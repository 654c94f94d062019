//! File rights by Landlock.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::{FileType, Mode, OFlags};

use crate::paths::{DEVICES, without};
use crate::plan::Plan;

/// The least that is asked of the kernel: it knows about truncation from here on.
pub(crate) const LEAST_ABI: u32 = 3;
/// From here on it keeps signals and abstract sockets within the walls.
pub(crate) const SCOPE_ABI: u32 = 6;

fn as_abi(version: u32) -> ABI {
    match version {
        0..=3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        _ => ABI::V7,
    }
}

/// Puts the plan's file rights in force. All of them, or it fails.
pub(crate) fn restrict(plan: &Plan, abi: u32) -> Result<(), String> {
    let abi = as_abi(abi);
    let all = AccessFs::from_all(abi);
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let ruleset = ruleset.handle_access(all).map_err(|e| e.to_string())?;
    let ruleset = match Scope::from_all(abi) {
        scopes if scopes.is_empty() => ruleset,
        scopes => ruleset.scope(scopes).map_err(|e| e.to_string())?,
    };
    let mut rules = Rules { created: ruleset.create().map_err(|e| e.to_string())?, all };
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut readable: Vec<(PathBuf, bool)> = Vec::new();
    for dir in &plan.read {
        without(dir, &plan.hide, &mut readable);
    }
    let run = if plan.exec.is_some() { BitFlags::EMPTY } else { AccessFs::Execute.into() };
    for (path, found) in &readable {
        // Programs that no rule names are not even to be read: the loader could run them.
        if plan.exec.is_some() && is_program_folder(path) {
            continue;
        }
        // Where only named programs may run, /usr is taken apart, or the rights to all
        // of it would come with it.
        if plan.exec.is_some() && path == Path::new("/usr") {
            for entry in std::fs::read_dir(path).map_err(|e| e.to_string())?.flatten() {
                if !is_program_folder(&entry.path()) {
                    rules.allow(&entry.path(), read)?;
                }
            }
            continue;
        }
        if *found {
            rules.allow_found(path, read | run)?;
        } else {
            rules.allow(path, read | run)?;
        }
    }
    for path in plan.exec.iter().flatten() {
        rules.allow(path, read | AccessFs::Execute)?;
    }
    // To run a file that a task wrote is to run what no rule names.
    let own = all & !(BitFlags::from(AccessFs::Execute) | AccessFs::MakeChar | AccessFs::MakeBlock) | run;
    for path in plan.write.iter().chain([&plan.workspace, &plan.tmp]) {
        rules.allow(path, own)?;
    }
    for device in DEVICES {
        let mut rights = read | AccessFs::WriteFile;
        if all.contains(AccessFs::IoctlDev) {
            rights |= AccessFs::IoctlDev;
        }
        rules.allow(Path::new(device), rights)?;
    }
    rules.allow(Path::new("/dev/fd"), read)?;
    let status = rules.created.restrict_self().map_err(|e| e.to_string())?;
    if status.ruleset != RulesetStatus::FullyEnforced || !status.no_new_privs {
        return Err("the kernel enforces only a part of what was asked for".into());
    }
    Ok(())
}

fn is_program_folder(path: &Path) -> bool {
    const FOLDERS: &[&str] = &[
        "/bin",
        "/sbin",
        "/usr/bin",
        "/usr/sbin",
        "/usr/local",
        "/usr/games",
        "/usr/libexec",
        "/opt",
        "/snap",
    ];
    FOLDERS.iter().any(|f| path == Path::new(f))
}

struct Rules {
    created: RulesetCreated,
    all: BitFlags<AccessFs>,
}

impl Rules {
    /// Grants rights beneath a path, if it is there.
    fn allow(&mut self, path: &Path, rights: BitFlags<AccessFs>) -> Result<(), String> {
        self.grant(path, OFlags::empty(), rights)
    }

    /// The same for what was found in a folder: a link is left to what grants its target.
    fn allow_found(&mut self, path: &Path, rights: BitFlags<AccessFs>) -> Result<(), String> {
        self.grant(path, OFlags::NOFOLLOW, rights)
    }

    fn grant(&mut self, path: &Path, flags: OFlags, rights: BitFlags<AccessFs>) -> Result<(), String> {
        let Ok(fd) = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty()) else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| e.to_string())?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind.is_symlink() {
            return Ok(());
        }
        let rights = if kind.is_dir() { rights } else { rights & AccessFs::from_file(ABI::V7) } & self.all;
        if rights.is_empty() {
            return Ok(());
        }
        (&mut self.created)
            .add_rule(PathBeneath::new(fd, rights))
            .map(|_| ())
            .map_err(|e| format!("{}: {e}", path.display()))
    }
}
