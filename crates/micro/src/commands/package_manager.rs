//! Package managers, run so that they never ask, wait for one another, and are never ended
//! midway.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use super::file::temporary;
use crate::os::cause;
use crate::output::entry;
use crate::process::{Job, Keep};
use crate::request::{Context, Trouble};

/// What a package manager says is kept up to this.
pub(super) const OUTPUT: usize = 256 * 1024;
/// Of that, so much goes into an error.
const MAX_DETAILS: u64 = 4096;
/// The longest wait for another package manager.
const LOCK: Duration = Duration::from_secs(300);
/// Between two attempts, where the manager itself does not wait.
const LOOK: Duration = Duration::from_secs(1);
/// Lists that are no older need no refresh.
const FRESH: Duration = Duration::from_secs(600);

/// Nothing that asks or shows what nobody sees.
const VARIABLES: &[(&str, &str)] = &[
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("APT_LISTBUGS_FRONTEND", "none"),
    ("NEEDRESTART_MODE", "l"),
    ("UCF_FORCE_CONFFOLD", "1"),
    ("ZYPP_LOCK_TIMEOUT", "300"),
    ("LC_ALL", "C.UTF-8"),
];
/// A file that the administrator changed stays as it is, as dpkg's own default would have it.
const KEEP_FILES: [&str; 2] = ["--force-confdef", "--force-confold"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    Apt,
    Dnf,
    Dnf5,
    Yum,
    Zypper,
    Apk,
    Pacman,
}

impl Manager {
    /// In the order in which they are looked for.
    pub(super) const ALL: [(Self, &'static str); 7] = [
        (Self::Apt, "apt"),
        (Self::Dnf, "dnf"),
        (Self::Yum, "yum"),
        (Self::Zypper, "zypper"),
        (Self::Dnf5, "dnf5"),
        (Self::Apk, "apk"),
        (Self::Pacman, "pacman"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(manager, _)| *manager == self).map_or("", |(_, name)| name)
    }

    pub(super) fn program(self) -> &'static str {
        if self == Self::Apt { "apt-get" } else { self.name() }
    }

    /// What makes it never ask, and wait for others.
    fn unattended(self) -> &'static [&'static str] {
        match self {
            Self::Zypper => &["--non-interactive"],
            Self::Apk => &["--wait", "300"],
            Self::Pacman => &["--noconfirm"],
            _ => &[],
        }
    }

    pub(super) fn install(self) -> &'static [&'static str] {
        match self {
            Self::Apk => &["add"],
            Self::Pacman => &["-S", "--needed"],
            _ => &["install", "-y"],
        }
    }

    pub(super) fn upgrade(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["install", "--only-upgrade", "-y"],
            Self::Dnf | Self::Dnf5 | Self::Yum => &["upgrade", "-y"],
            Self::Zypper => &["update", "-y"],
            Self::Apk => &["add", "--upgrade"],
            Self::Pacman => &["-S", "--needed"],
        }
    }

    pub(super) fn remove(self) -> &'static [&'static str] {
        match self {
            Self::Apk => &["del"],
            Self::Pacman => &["-R"],
            _ => &["remove", "-y"],
        }
    }

    /// With its configuration, where the package manager would leave that.
    pub(super) fn purge(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["purge", "-y"],
            Self::Apk => &["del", "--purge"],
            Self::Pacman => &["-Rn"],
            _ => self.remove(),
        }
    }

    pub(super) fn downgrade(self) -> &'static [&'static str] {
        match self {
            Self::Dnf | Self::Dnf5 | Self::Yum => &["downgrade", "-y"],
            Self::Zypper => &["install", "-y", "--oldpackage"],
            other => other.install(),
        }
    }

    /// Whether it installs a lower version because it was asked for it; apt refuses.
    pub(super) fn downgrades_unasked(self) -> bool {
        self != Self::Apt
    }

    /// A package in a version; `None` if it has one version of each only.
    pub(super) fn with_version(self, name: &str, version: &str) -> Option<String> {
        match self {
            Self::Dnf | Self::Dnf5 | Self::Yum => Some(format!("{name}-{version}")),
            Self::Pacman => None,
            _ => Some(format!("{name}={version}")),
        }
    }

    /// What holds a package in its version, or lets it go; `None` if it can't.
    pub(super) fn hold(self, hold: bool) -> Option<[&'static str; 3]> {
        let pick = |yes, no| if hold { yes } else { no };
        match self {
            Self::Apt => Some(["apt-mark", "-q", pick("hold", "unhold")]),
            Self::Zypper => Some(["zypper", "--non-interactive", pick("addlock", "removelock")]),
            Self::Apk | Self::Pacman => None,
            _ => Some([self.program(), "versionlock", pick("add", "delete")]),
        }
    }

    /// The words for a group, and how it is written.
    pub(super) fn group(self, verb: &str, name: &str) -> (Vec<&'static str>, String) {
        let mut words = if verb == "remove" { self.remove() } else { self.install() }.to_vec();
        match self {
            Self::Zypper => {
                words.extend(["-t", "pattern"]);
                (words, name.to_owned())
            }
            Self::Pacman => (words, name.to_owned()),
            _ => (words, format!("@{name}")),
        }
    }
}

/// Holds a package, or lets it go.
pub(super) fn hold(context: &mut Context<'_>, words: [&str; 3], name: &str) -> Result<(), Trouble> {
    let args = [&words[1..], &[name]].concat();
    unlocked(context, |context| succeed(context, words[0], &args))
}

/// What a package manager is to do.
pub(super) struct Run<'a> {
    pub(super) manager: Manager,
    pub(super) words: &'a [&'a str],
    pub(super) options: &'a [&'a str],
    pub(super) spec: &'a str,
}

impl Run<'_> {
    /// Does it: what can be broken off first, then what can't.
    pub(super) fn carry_out(&self, context: &mut Context<'_>) -> Result<(), Trouble> {
        if self.manager != Manager::Apt {
            return self.others(context);
        }
        if self.words.contains(&"--only-upgrade") && !is_fresh() {
            // Without them the newest is the newest that is known; that will do offline.
            let _ = self.refresh(context);
        }
        if self.removes() {
            return self.apt(context, &[]);
        }
        self.fetch_and_do(context)
    }

    fn removes(&self) -> bool {
        self.words.first().is_some_and(|word| matches!(*word, "remove" | "purge"))
    }

    fn fetch_and_do(&self, context: &mut Context<'_>) -> Result<(), Trouble> {
        let mut fetched = self.apt(context, &["--download-only"]);
        if fetched.as_ref().is_err_and(is_unknown) && self.refresh(context).is_ok() {
            fetched = self.apt(context, &["--download-only"]);
        }
        fetched?;
        self.apt(context, &[])
    }

    fn others(&self, context: &mut Context<'_>) -> Result<(), Trouble> {
        if self.manager == Manager::Apk && self.words.contains(&"--upgrade") {
            let _ = self.refresh(context);
        }
        let args = [self.words, self.manager.unattended(), self.options, &[self.spec]].concat();
        // zypper takes its own options first.
        let args = match self.manager {
            Manager::Zypper => [self.manager.unattended(), self.words, self.options, &[self.spec]].concat(),
            _ => args,
        };
        let program = self.manager.program();
        let mut done = unlocked(context, |context| finish(context, program, &args));
        if done.as_ref().is_err_and(is_unknown)
            && self.manager == Manager::Apk
            && self.refresh(context).is_ok()
        {
            done = unlocked(context, |context| finish(context, program, &args));
        }
        done
    }

    /// Lists of what there is.
    pub(super) fn refresh(&self, context: &mut Context<'_>) -> Result<(), Trouble> {
        let program = self.manager.program();
        let words: &[&str] = match self.manager {
            Manager::Apt => &["update"],
            Manager::Dnf | Manager::Dnf5 | Manager::Yum => &["makecache"],
            Manager::Zypper => &["--non-interactive", "refresh"],
            Manager::Apk => &["update", "--wait", "300"],
            Manager::Pacman => &["-Sy", "--noconfirm"],
        };
        let mut all = words.to_vec();
        // Only settings: other options are of the installation.
        let mut value = false;
        for option in self.options.iter().filter(|_| self.manager == Manager::Apt) {
            let is_setting =
                option.starts_with("-o") || option.starts_with("-c") || option.starts_with("--option");
            if is_setting || value {
                all.push(option);
            }
            value = !value && matches!(*option, "-o" | "-c" | "--option");
        }
        if self.manager == Manager::Pacman {
            all.extend(self.options);
        }
        unlocked(context, |context| succeed(context, program, &all))
    }

    /// What it would do, a line each, where the package manager can tell that beforehand.
    pub(super) fn plan(&self, context: &mut Context<'_>) -> Vec<String> {
        let before: &[&str] = match self.manager {
            Manager::Apt => &["-s", "-q"],
            Manager::Apk => &["--simulate"],
            // It prints what it would install.
            Manager::Pacman => &["--print", "--print-format", "Inst %n (%v)"],
            _ => return Vec::new(),
        };
        let args = [self.words, self.manager.unattended(), before, self.options, &[self.spec]].concat();
        let job =
            Job { set: VARIABLES, out: Keep::Capture(OUTPUT), ..Job::new(self.manager.program(), &args) };
        let Ok(ended) = context.run(&job) else { return Vec::new() };
        let text = String::from_utf8_lossy(&ended.stdout.bytes).into_owned();
        // apk counts: `(1/2) Installing curl (8.9.1-r1)`.
        let is_step =
            |line: &&str| ["Inst ", "Remv ", "Purg ", "("].iter().any(|start| line.starts_with(start));
        text.lines().map(str::trim).filter(is_step).map(str::to_owned).collect()
    }

    fn apt(&self, context: &mut Context<'_>, more: &[&str]) -> Result<(), Trouble> {
        let left = context.deadline.saturating_duration_since(Instant::now()).min(LOCK).as_secs();
        let wait = format!("DPkg::Lock::Timeout={left}");
        let mut args = vec!["-o", &wait];
        let keep = KEEP_FILES.map(|option| format!("Dpkg::Options::={option}"));
        keep.iter().for_each(|option| args.extend(["-o", option]));
        let args = [&args, self.words, more, self.options, &[self.spec]].concat();
        let go = |context: &mut Context<'_>| {
            if more.is_empty() {
                finish(context, "apt-get", &args)
            } else {
                succeed(context, "apt-get", &args)
            }
        };
        match unlocked(context, go) {
            Err(why) if says(&why, &["dpkg was interrupted"]) => {
                // Somebody else was ended midway.
                finish(context, "dpkg", &[&KEEP_FILES[..], &["--configure", "-a"]].concat())?;
                unlocked(context, go)
            }
            done => done,
        }
    }
}

/// Whether a failure is of a package that the lists may not know yet, or no longer.
fn is_unknown(why: &Trouble) -> bool {
    let words = [
        "Unable to locate package",
        "no installation candidate",
        "was not found",
        "404  Not Found",
        "unable to select packages",
    ];
    says(why, &words)
}

fn says(why: &Trouble, words: &[&str]) -> bool {
    let Trouble::Failed(_, Some(said)) = why else { return false };
    said.get("output").is_some_and(|said| words.iter().any(|words| said.contains(words)))
}

/// Tries again as long as another has what must be had alone: some locks apt does not wait
/// for, and before apt 1.9.11 it waits for none.
fn unlocked(
    context: &mut Context<'_>,
    mut act: impl FnMut(&mut Context<'_>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let until = Instant::now() + LOCK;
    loop {
        match act(context) {
            Err(why)
                if Instant::now() < until
                    && says(&why, &["Could not get lock", "Unable to lock", "unable to lock database"]) =>
            {
                if context.pause(LOOK).is_err() {
                    return Err(why);
                }
            }
            done => return done,
        }
    }
}

fn is_fresh() -> bool {
    let found = std::fs::metadata(Path::new("/var/lib/apt/lists/partial"));
    let changed = found.and_then(|found| found.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age < FRESH))
}

/// A run that may be ended when its time is over.
fn succeed(context: &mut Context<'_>, program: &str, args: &[&str]) -> Result<(), Trouble> {
    let keep = Keep::Capture(OUTPUT);
    context.succeed(&Job { set: VARIABLES, out: keep, err: keep, ..Job::new(program, args) }).map(drop)
}

/// A run that is never ended: it writes to a file, as it may outlive us.
fn finish(context: &mut Context<'_>, program: &str, args: &[&str]) -> Result<(), Trouble> {
    let failed = |error: std::io::Error| Trouble::from(cause(&error));
    let (name, mut file) = temporary(&std::env::temp_dir().join("legwork-pkg")).map_err(failed)?;
    let mut read = File::open(&name).map_err(failed)?;
    // Whoever has it open has it still.
    let _ = std::fs::remove_file(&name);
    let job = Job { set: VARIABLES, to: Some(&file), finish: true, ..Job::new(program, args) };
    let ended = context.run(&job)?;
    if ended.code == Some(0) {
        return Ok(());
    }
    let length = file.stream_position().unwrap_or(0);
    let mut said = Vec::new();
    let _ = read.seek(SeekFrom::Start(length.saturating_sub(MAX_DETAILS)));
    let _ = read.read_to_end(&mut said);
    let how = match (ended.code, ended.signal) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    };
    Err(Trouble::Failed(how, Some(entry("output", String::from_utf8_lossy(&said).trim()))))
}
