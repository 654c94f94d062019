//! Whether execs are judged: what the operator wants, what this machine can do, and what the
//! rules need.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use legwork_base::programs;
use legwork_policy::{Action, Named, Policy};
use legwork_process::Gate;
use legwork_process::sandbox::{Profile, ProgramCache};

/// What an operator wants of the exec gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gating {
    /// It stands wherever it can be had; else the reading alone judges, strictly.
    #[default]
    Auto,
    /// Without it nothing is started.
    Required,
    /// Required, and execs of processes that share their memory with others are refused.
    Strict,
}

/// The exec gate on this machine.
#[derive(Debug, Clone)]
pub struct Gates {
    /// What is wanted.
    pub wanted: Gating,
    /// Why it can't be had; `None` if it can.
    pub lacks: Option<String>,
    /// Whether Landlock can hold a list of programs beside it, and nothing else does.
    pub listable: bool,
    /// Lists that were made before.
    pub(crate) cache: Arc<ProgramCache>,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            wanted: Gating::Auto,
            lacks: Some("nobody has tried whether it can be had".into()),
            listable: false,
            cache: Arc::default(),
        }
    }
}

/// Whether execs are judged under some rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// Everything may run: there is nothing to judge.
    #[default]
    Needless,
    /// Each exec is judged.
    Exec,
    /// The reading alone judges, for this reason.
    Reading(String),
}

impl Standing {
    /// Whether execs are judged.
    pub fn is_exec(&self) -> bool {
        *self == Self::Exec
    }

    /// Its name in labels and audit records; empty where nothing is judged.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Needless => "",
            Self::Exec => "exec",
            Self::Reading(_) => "reading",
        }
    }
}

/// Programs that change what Landlock would have to know of: behind any of its rules nobody
/// can mount, and paths of another root are not those of the list.
const MOUNTING: &[&str] = &[
    "mount",
    "umount",
    "losetup",
    "unshare",
    "nsenter",
    "ip",
    "chroot",
    "pivot_root",
    "switch_root",
    "systemd-nspawn",
    "systemd-run",
    "machinectl",
    "bwrap",
    "firejail",
    "runc",
    "crun",
    "podman",
    "docker",
    "buildah",
    "fusermount",
    "fusermount3",
    "debootstrap",
    "snap",
    "flatpak",
    "gdb",
    "strace",
    "ltrace",
    "perf",
];

impl Gates {
    /// The gate as a trial has found it: `lacks` says why it can't be had.
    pub fn tried(lacks: Option<String>) -> Self {
        Self { lacks, ..Self::default() }
    }

    /// How execs are judged under these rules.
    pub fn standing(&self, rules: &Policy, path: &str) -> Standing {
        if !rules.needs_exec_gate() {
            return Standing::Needless;
        }
        if let Some(reason) = &self.lacks {
            return Standing::Reading(reason.clone());
        }
        let plain = !rustix::process::geteuid().is_root();
        match needs_privileges(rules, path).filter(|_| plain) {
            Some(program) => Standing::Reading(format!(
                "{program} gets rights of its own, which a plain user's programs can't get where execs are \
                 judged; lines that surely start no such program are judged at each exec all the same"
            )),
            None => Standing::Exec,
        }
    }

    /// How the execs of one line are judged: also where the rules let programs run that need
    /// rights of their own, if the line surely starts none of these.
    pub fn standing_of_line(&self, rules: &Policy, path: &str, line: &str) -> Standing {
        let standing = self.standing(rules, path);
        if !matches!(standing, Standing::Reading(_)) || self.lacks.is_some() {
            return standing;
        }
        match rules.programs_of_line(line) {
            Some(names) if !names.iter().any(|name| gets_more(name, path)) => Standing::Exec,
            _ => standing,
        }
    }

    /// Why the rules can't be put in force, if the operator insists on the gate.
    pub fn refusal(&self, standing: &Standing) -> Option<String> {
        match standing {
            Standing::Reading(reason) if self.wanted != Gating::Auto => {
                Some(format!("gate: {}: execs can't be judged: {reason}", self.wanted.word()))
            }
            _ => None,
        }
    }

    /// The gate of one command. `shell`: the program that is started is the shell of a line.
    pub(crate) fn gate(&self, command: &Judged<'_>) -> Gate {
        let listed = match command.named {
            Named::These(names) if self.listable && command.wall == Profile::Off => Some(names),
            _ => None,
        };
        let mounts = |name: &String| MOUNTING.contains(&name.rsplit('/').next().unwrap_or(name));
        let programs = listed.filter(|names| !names.iter().any(mounts)).map(|names| {
            let mut names = names.clone();
            let mut folders: Vec<PathBuf> = command.extra.to_vec();
            for helper in legwork_policy::helpers_of(&names) {
                match helper.strip_suffix("/*") {
                    Some(folder) => folders.push(folder.into()),
                    None => names.push(helper.to_owned()),
                }
            }
            let mut files = self.cache.executables(&names, &folders, command.program, command.path);
            // Libraries are mapped, which the list is not about: each costs the start its share.
            files.retain(|file| !is_library(file));
            files
        });
        Gate {
            rules: command.rules.clone(),
            shell: command.shell,
            workspace: command.workspace.to_owned(),
            folder: command.folder.to_owned(),
            strict: self.wanted == Gating::Strict,
            no_memfd: matches!(command.named, Named::These(_)),
            programs,
            writes: false,
        }
    }
}

impl Gating {
    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Required => "required",
            Self::Strict => "strict",
        }
    }
}

/// What a gate is made for.
pub(crate) struct Judged<'a> {
    pub(crate) rules: &'a Policy,
    pub(crate) named: &'a Named,
    pub(crate) program: &'a Path,
    pub(crate) shell: bool,
    pub(crate) workspace: &'a Path,
    /// Where it starts.
    pub(crate) folder: &'a Path,
    pub(crate) path: &'a str,
    /// Programs that may run beside those that rules name.
    pub(crate) extra: &'a [PathBuf],
    /// The wall that it is behind as well.
    pub(crate) wall: Profile,
}

/// Whether a file is a library, and not the loader, which the kernel opens as a program.
fn is_library(file: &Path) -> bool {
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    (name.ends_with(".so") || name.contains(".so.")) && !name.starts_with("ld-") && !name.starts_with("ld64")
}

/// A program that rules let run and that needs rights which its caller has not: one with the
/// setuid or setgid bit. A rule for all programs names those by which people change the user.
fn needs_privileges(rules: &Policy, path: &str) -> Option<String> {
    const CHANGERS: &[&str] = &["sudo", "doas", "pkexec"];
    let allowed = rules.rules().iter().filter(|rule| rule.action() != Action::Deny);
    let words = allowed.map(|rule| rule.pattern().split(' ').find(|word| !word.contains('=')));
    words
        .flatten()
        .filter(|word| *word != ">")
        .flat_map(|word| if word.contains(['*', '{']) { CHANGERS.to_vec() } else { vec![word] })
        .find(|name| gets_more(name, path))
        .map(str::to_owned)
}

/// Whether a program has the setuid or setgid bit.
fn gets_more(name: &str, path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let found = programs::find(name, path).and_then(|file| file.metadata().ok());
    found.is_some_and(|meta| meta.is_file() && meta.permissions().mode() & 0o6000 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(patterns: &[&str]) -> Policy {
        Policy::from_pairs(patterns.iter().map(|p| (*p, "allow"))).expect("rules")
    }

    #[test]
    fn the_gate_stands_where_there_is_something_to_judge_and_it_can_be_had() {
        let there = Gates { lacks: None, ..Gates::default() };
        assert_eq!(there.standing(&rules(&["*"]), "/usr/bin"), Standing::Needless);
        assert_eq!(there.standing(&rules(&["ls *"]), "/usr/bin"), Standing::Exec);
        assert_eq!(Gates::default().standing(&rules(&["ls *"]), "/usr/bin").name(), "reading");
        let required = Gates { wanted: Gating::Required, ..Gates::default() };
        let standing = required.standing(&rules(&["ls *"]), "/usr/bin");
        assert!(required.refusal(&standing).is_some_and(|text| text.contains("gate: required")));
        assert_eq!(Gates::default().refusal(&standing), None);
        assert_eq!(required.refusal(&required.standing(&rules(&["*"]), "/usr/bin")), None);
    }

    #[test]
    fn rules_that_name_a_program_with_rights_of_its_own_are_known() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        for (name, mode) in [("sudo", 0o4755), ("ls", 0o755)] {
            std::fs::write(dir.path().join(name), "").expect("a file");
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode))
                .expect("a mode");
        }
        let path = dir.path().display().to_string();
        let needs = |patterns: &[&str]| needs_privileges(&rules(patterns), &path);
        assert_eq!(needs(&["ls *", "sudo systemctl *"]).as_deref(), Some("sudo"));
        assert_eq!(needs(&["*"]).as_deref(), Some("sudo"));
        assert_eq!(needs(&["A=1 sudo"]).as_deref(), Some("sudo"));
        assert_eq!(needs(&["ls *", "> *"]), None);
        assert_eq!(needs_privileges(&rules(&["*"]), "/nonexistent"), None);
    }

    #[test]
    fn a_line_that_starts_nothing_with_rights_of_its_own_is_judged_at_its_execs() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let sudo = dir.path().join("sudo");
        std::fs::write(&sudo, "").expect("a file");
        std::fs::set_permissions(&sudo, std::fs::Permissions::from_mode(0o4755)).expect("a mode");
        let path = dir.path().display().to_string();
        let rules = Policy::from_pairs([("*", "allow"), ("rm -rf /", "deny")]).expect("rules");
        let there = Gates { lacks: None, ..Gates::default() };
        let standing = |line: &str| there.standing_of_line(&rules, &path, line);
        assert_eq!(standing("x=/; rm -rf $x"), Standing::Exec);
        if !rustix::process::geteuid().is_root() {
            for line in ["sudo rm -rf /", "env sudo id", "./deploy", "make", "$x"] {
                assert_eq!(standing(line).name(), "reading", "{line}");
            }
        }
        assert_eq!(Gates::default().standing_of_line(&rules, &path, "ls").name(), "reading");
    }

    #[test]
    fn programs_that_mount_have_no_list() {
        let gates = Gates { lacks: None, listable: true, ..Gates::default() };
        let list = |names: &[&str]| {
            let named = Named::These(names.iter().map(|n| (*n).to_owned()).collect());
            let command = Judged {
                rules: &rules(&["ls *"]),
                named: &named,
                program: Path::new("/bin/bash"),
                shell: true,
                workspace: Path::new("/tmp"),
                folder: Path::new("/tmp"),
                path: "/usr/bin:/bin",
                extra: &[],
                wall: Profile::Off,
            };
            gates.gate(&command).programs
        };
        let has = |list: &Option<Vec<PathBuf>>, name: &str| {
            list.iter().flatten().any(|f| f.file_name().is_some_and(|n| n == name))
        };
        let listed = list(&["ls", "tar"]);
        assert!(has(&listed, "ls") && has(&listed, "gzip") && !has(&listed, "id"), "{listed:?}");
        assert_eq!(list(&["ls", "/bin/mount"]), None);
    }
}
