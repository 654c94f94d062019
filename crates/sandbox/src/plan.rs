//! From what an operator configures to what one command gets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::limits::Limits;
use crate::profile::Profile;
use crate::{paths, programs};

/// Lists of programs that were made before; shared by all that start commands.
#[derive(Debug, Default)]
pub struct ProgramCache(programs::Cache);

impl ProgramCache {
    /// The files and folders that must be executable for programs of these names, or of these
    /// paths, and those in `extra`, to run: interpreters, libraries and known helpers included.
    /// Made anew if any of them has changed.
    pub fn executables(&self, names: &[String], extra: &[PathBuf], shell: &Path, path: &str) -> Vec<PathBuf> {
        self.0.executables(names, extra, shell, path).to_vec()
    }
}

/// What an operator configures under `sandbox`.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The profile in force: `auto` has been resolved.
    pub profile: Profile,
    /// Paths that may be read beside the system's.
    pub read: Vec<PathBuf>,
    /// Paths that may be written beside the workspace.
    pub write: Vec<PathBuf>,
    /// Programs, or folders of them, that may run beside those that rules name.
    pub exec: Vec<PathBuf>,
    /// Whether path and abstract sockets may be used.
    pub unix_sockets: bool,
    /// Who commands run as.
    pub run_as: Option<Identity>,
    /// What a command may use of memory, processes and time.
    pub limits: Limits,
    /// Paths that stay hidden whatever else says: the runner's own state and config.
    pub hide: Vec<PathBuf>,
    /// Landlock's version on this machine.
    pub landlock_abi: u32,
    /// Where `runsc` is.
    pub runsc: PathBuf,
    /// Lists of programs that were made before.
    pub cache: Arc<ProgramCache>,
}

/// What a command brings.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The workspace's root.
    pub workspace: &'a Path,
    /// The command's own temporary folder, not made yet.
    pub tmp: &'a Path,
    /// The folder it starts in.
    pub cwd: &'a Path,
    /// The programs that its rules name; `None` where any may run.
    pub programs: Option<&'a [String]>,
    /// The shell, or the program that is started.
    pub shell: &'a Path,
    /// The `PATH` that programs are looked up by.
    pub path: &'a str,
}

/// What one command may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How strong the wall is.
    pub profile: Profile,
    /// Who the command runs as.
    pub run_as: Option<Identity>,
    /// Its own folders, readable and writable.
    pub workspace: PathBuf,
    /// Its own temporary folder; `landlock` has it made and removed.
    pub tmp: PathBuf,
    /// Where it starts.
    pub cwd: PathBuf,
    /// Paths that may be read beside what every command may read.
    pub read: Vec<PathBuf>,
    /// Paths that may be written as well.
    pub write: Vec<PathBuf>,
    /// Paths that may not even be read.
    pub hide: Vec<PathBuf>,
    /// All that may be executed; `None` for anything readable.
    pub exec: Option<Vec<PathBuf>>,
    /// Whether path and abstract sockets may be used.
    pub unix_sockets: bool,
    /// What a command may use of memory, processes and time.
    pub limits: Limits,
    /// Landlock's version.
    pub landlock_abi: u32,
    /// Where `runsc` is.
    pub runsc: PathBuf,
    /// Whose wall it is.
    #[serde(default, skip_serializing_if = "World::is_own")]
    pub world: World,
}

/// Whose wall a command has, where a wall is a world of its own: `namespaces` and `gvisor`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// One of its own, which ends with it.
    #[default]
    Own,
    /// One of its own, into which others are let.
    Open,
    /// That of another command.
    Of(Inhabitant),
}

impl World {
    fn is_own(&self) -> bool {
        *self == Self::Own
    }

    /// Whether it is another command's.
    pub fn is_anothers(&self) -> bool {
        matches!(self, Self::Of(_))
    }
}

/// A process within a wall, by which others find the way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inhabitant {
    /// Its id, seen from outside.
    pub pid: i32,
    /// When it was started, in the kernel's ticks: another process of the same id is another.
    pub started: u64,
    /// The temporary folder of the command whose wall it is.
    pub tmp: PathBuf,
}

impl Inhabitant {
    /// The process of that id.
    pub fn of(pid: i32, tmp: &Path) -> Option<Self> {
        Some(Self { pid, started: Self::started(pid)?, tmp: tmp.to_owned() })
    }

    /// Whether it is still there.
    pub fn is_there(&self) -> bool {
        Self::started(self.pid) == Some(self.started)
    }

    /// When a process was started that has not ended (proc(5), `/proc/PID/stat`).
    fn started(pid: i32) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything, parentheses included.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let has_ended = matches!(fields.next()?, "Z" | "X");
        fields.nth(18)?.parse().ok().filter(|_| !has_ended)
    }
}

impl Settings {
    /// The plan of one command; `None` if there is no wall. Programs are looked up anew
    /// each time, as upgrades replace their files.
    pub fn plan(&self, context: &Context<'_>) -> Option<Plan> {
        if self.profile == Profile::Off {
            return None;
        }
        let mut read = paths::system();
        read.extend(self.read.iter().cloned());
        let mut hide = paths::hidden();
        hide.extend(self.hide.iter().cloned());
        // What this user can't read anyway needs no leaving out, which costs Landlock a rule
        // for each neighbour.
        if self.profile == Profile::Landlock && self.run_as.is_none() {
            hide.retain(|path| paths::is_readable(path));
        }
        // What an operator grants by name is granted.
        hide.retain(|h| !self.read.iter().chain(&self.write).any(|granted| granted.starts_with(h)));
        // The command starts where the folder really is; it may also ask for it by the name
        // it was configured by, and for the others by theirs.
        let real = |path: &PathBuf| path.canonicalize().ok().filter(|real| real != path);
        let workspace = context.workspace.to_owned();
        let mut write = self.write.clone();
        write.extend(write.iter().filter_map(real).collect::<Vec<_>>());
        read.extend(self.read.iter().filter_map(real));
        let workspace = match real(&workspace) {
            Some(real) => {
                write.push(workspace);
                real
            }
            None => workspace,
        };
        let exec = context
            .programs
            .map(|names| self.cache.0.executables(names, &self.exec, context.shell, context.path).to_vec());
        Some(Plan {
            profile: self.profile,
            run_as: self.run_as.clone(),
            workspace,
            tmp: context.tmp.to_owned(),
            cwd: context.cwd.to_owned(),
            read,
            write,
            hide,
            exec,
            unix_sockets: self.unix_sockets,
            limits: self.limits.clone(),
            landlock_abi: self.landlock_abi,
            runsc: self.runsc.clone(),
            world: World::Own,
        })
    }
}

impl Plan {
    /// Where the command finds its temporary folder.
    pub fn tmp_seen(&self) -> &Path {
        if self.profile == Profile::Landlock { &self.tmp } else { Path::new("/tmp") }
    }
}
