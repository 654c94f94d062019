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
    Yum,
    Zypper,
}

impl Manager {
    pub(super) const ALL: [(Self, &'static str); 4] =
        [(Self::Apt, "apt"), (Self::Dnf, "dnf"), (Self::Yum, "yum"), (Self::Zypper, "zypper")];

    fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Yum => "yum",
            Self::Zypper => "zypper",
        }
    }

    /// What makes it never ask.
    fn unattended(self) -> &'static [&'static str] {
        if self == Self::Zypper { &["--non-interactive"] } else { &[] }
    }

    pub(super) fn upgrade(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["install", "--only-upgrade", "-y"],
            Self::Dnf | Self::Yum => &["upgrade", "-y"],
            Self::Zypper => &["update", "-y"],
        }
    }

    pub(super) fn downgrade(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["install", "-y"],
            Self::Dnf | Self::Yum => &["downgrade", "-y"],
            Self::Zypper => &["install", "-y", "--oldpackage"],
        }
    }

    pub(super) fn with_version(self, name: &str, version: &str) -> String {
        let between = if matches!(self, Self::Dnf | Self::Yum) { "-" } else { "=" };
        format!("{name}{between}{version}")
    }
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
            let args = [self.manager.unattended(), self.words, self.options, &[self.spec]].concat();
            return finish(context, self.manager.program(), &args);
        }
        if self.words.contains(&"--only-upgrade") && !is_fresh() {
            // Without them the newest is the newest that is known; that will do offline.
            let _ = self.refresh(context);
        }
        if self.words.contains(&"remove") {
            return self.apt(context, &[]);
        }
        let mut fetched = self.apt(context, &["--download-only"]);
        if fetched.as_ref().is_err_and(is_unknown) && self.refresh(context).is_ok() {
            fetched = self.apt(context, &["--download-only"]);
        }
        fetched?;
        self.apt(context, &[])
    }

    /// Lists of what there is.
    fn refresh(&self, context: &mut Context<'_>) -> Result<(), Trouble> {
        // Only settings: other options are of the installation.
        let mut settings = vec!["update"];
        let mut value = false;
        for option in self.options {
            let is_setting =
                option.starts_with("-o") || option.starts_with("-c") || option.starts_with("--option");
            if is_setting || value {
                settings.push(option);
            }
            value = !value && matches!(*option, "-o" | "-c" | "--option");
        }
        unlocked(context, |context| succeed(context, "apt-get", &settings))
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
    let words = ["Unable to locate package", "no installation candidate", "was not found", "404  Not Found"];
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
            Err(why) if Instant::now() < until && says(&why, &["Could not get lock", "Unable to lock"]) => {
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
