//! Yards: throw-away machines, each with a runner in it, and what lines change in them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::plain::Rule;
use crate::trace::{self, Exec};
use crate::worker;

/// The user that stands for all who are not root.
const PLAIN: &str = "65534";
/// Folders of people, which are others in a yard; so that nothing of theirs is seen or lost.
const HIDDEN: &[&str] = &["proof", "w", "home", "root", "tmp", "var/tmp", "run", "srv", "work", "mnt", "opt"];
/// Folders that lines name, each with a copy of what is in `/w`.
const COPIES: &[&str] = &["repo", "app", "testbed", "current/directory", "home/me/repo"];

/// As whom lines are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Who {
    Root,
    Plain,
}

impl Who {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Plain => "a plain user",
        }
    }
}

/// What all yards of a run share.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Made by `scripts/prove`: `stand`, `gen`, `locale`, `template`. Yards are put there, too.
    pub(crate) home: PathBuf,
    /// The PATH of lines.
    pub(crate) path: String,
    /// A folder with a `bash` that stands before the machine's.
    pub(crate) bash: Option<PathBuf>,
}

/// What became of a line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Why nothing was run.
    pub(crate) denied: Option<String>,
    /// What was wrong with the runner itself.
    pub(crate) failed: Option<String>,
    pub(crate) stderr: String,
    pub(crate) execs: Vec<Exec>,
    /// Paths that are other than before.
    pub(crate) changes: Vec<String>,
}

type Snapshot = BTreeMap<String, String>;

pub(crate) struct Yard {
    base: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    before: Snapshot,
    setup: Setup,
    who: Who,
}

impl Yard {
    pub(crate) fn open(setup: &Setup, who: Who) -> Result<Self, String> {
        let base = tempfile::Builder::new()
            .prefix("yard-")
            .tempdir_in(&setup.home)
            .map_err(|e| e.to_string())?
            .keep();
        build(setup, &base, who)?;
        let user = if who == Who::Root { "root" } else { PLAIN };
        let mut path = setup.path.clone();
        if setup.bash.is_some() {
            path = format!("/bash:{path}");
        }
        let home = if who == Who::Root { "/root" } else { "/home/me" };
        let mut child = Command::new("sh")
            .arg(setup.home.join("yard.sh"))
            .arg(&base)
            .args([user, "/usr/bin/env", "-i"])
            .args([format!("PATH={path}"), format!("HOME={home}"), "LANG=C.UTF-8".into(), "TERM=dumb".into()])
            .arg(format!("{}/prove", worker::HOME))
            .arg("--worker")
            .env("HIDDEN", HIDDEN.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut yard =
            Self { base, child, stdin, stdout, before: Snapshot::new(), setup: setup.clone(), who };
        let ready = yard.hear()?;
        if ready["ready"] != true {
            return Err(format!("the runner said {ready}"));
        }
        yard.before = yard.snapshot();
        Ok(yard)
    }

    /// As whom its lines are run.
    pub(crate) fn who(&self) -> Who {
        self.who
    }

    /// Gives the runner a line under rules, and looks at what it did.
    pub(crate) fn run(&mut self, rules: &[Rule], line: &str, timeout_ms: u64) -> Result<Seen, String> {
        let log = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.base.join("hide/proof/trace"))
            .map_err(|e| e.to_string())?;
        drop(log);
        let request = json!({"config": config(rules), "line": line, "timeout_ms": timeout_ms});
        let stdin = self.stdin.as_mut().ok_or("closed")?;
        writeln!(stdin, "{request}").and_then(|()| stdin.flush()).map_err(|e| e.to_string())?;
        let answer = self.hear()?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let log = fs::read(self.base.join("hide/proof/trace")).unwrap_or_default();
        let now = self.snapshot();
        let changes = changes(&self.before, &now);
        let seen = Seen {
            denied: text("denied"),
            failed: text("failed"),
            stderr: text("stderr").unwrap_or_default(),
            execs: trace::read(&String::from_utf8_lossy(&log)),
            changes,
        };
        if !seen.changes.is_empty() {
            self.restore(&now)?;
        }
        Ok(seen)
    }

    /// Has the reading held against bash itself: how many lines ran, and what went wrong.
    pub(crate) fn quotes(&mut self, seed: u64, from: u64, count: u64) -> Result<(u64, Vec<String>), String> {
        let stdin = self.stdin.as_mut().ok_or("closed")?;
        let request = json!({"quotes": [seed, from, count]});
        writeln!(stdin, "{request}").and_then(|()| stdin.flush()).map_err(|e| e.to_string())?;
        let answer = self.hear()?;
        let failures = answer["failures"].as_array().ok_or("no answer")?;
        let failures = failures.iter().filter_map(Value::as_str).map(String::from).collect();
        Ok((answer["allowed"].as_u64().unwrap_or_default(), failures))
    }

    fn hear(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(|e| e.to_string())?;
        serde_json::from_str(&line).map_err(|_| format!("the yard's runner is gone: {line:?}"))
    }

    /// All that lines can have changed: what lies over the machine's own files, and the
    /// folders that stand for people's.
    fn snapshot(&self) -> Snapshot {
        let mut found = Snapshot::new();
        walk(&self.base.join("upper"), "", &mut found);
        for folder in HIDDEN.iter().filter(|f| **f != "proof") {
            walk(&self.base.join("hide").join(folder), &format!("/{folder}"), &mut found);
        }
        found
    }

    /// Makes the yard as it was: files that lines left are removed; where something of the
    /// machine's own was changed, the yard is made anew.
    fn restore(&mut self, now: &Snapshot) -> Result<(), String> {
        let over = |path: &str| !HIDDEN.iter().any(|h| path.starts_with(&format!("/{h}/")));
        if changes(&self.before, now).iter().any(|path| over(path)) {
            let (setup, who) = (self.setup.clone(), self.who);
            *self = Self::open(&setup, who)?;
            return Ok(());
        }
        for folder in ["w", "tmp", "var/tmp", "home", "root", "run", "srv", "work", "mnt", "opt"] {
            let top = format!("/{folder}/");
            if !changes(&self.before, now).iter().any(|path| path.starts_with(&top)) {
                continue;
            }
            let there = self.base.join("hide").join(folder);
            for entry in fs::read_dir(&there).map_err(|e| e.to_string())?.flatten() {
                let path = entry.path();
                let removed = if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                removed.map_err(|e| format!("{}: {e}", path.display()))?;
            }
            fill(&self.setup, &self.base, folder, self.who)?;
        }
        self.before = self.snapshot();
        Ok(())
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        // The yard ends with its first process.
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("umount").args(["-R", "-l"]).arg(&self.base).status();
        let _ = fs::remove_dir(&self.base);
    }
}

fn config(rules: &[Rule]) -> String {
    let mut text = String::from("permission:\n  bash:\n");
    for rule in rules {
        let action = match rule.any {
            true => format!("{{action: {}, children: any}}", rule.action),
            false => rule.action.clone(),
        };
        // A JSON string is a YAML string.
        text.push_str(&format!("    {}: {action}\n", Value::from(rule.pattern.as_str())));
    }
    text
}

fn sh(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// The machine's own files, with a layer over them that takes all changes.
fn overlay(base: &Path) -> Result<(), String> {
    let layer = |folder: &str| -> Result<(), String> {
        let at = |name: &str| base.join(name).join(folder).to_string_lossy().into_owned();
        for name in ["root", "upper", "work"] {
            fs::create_dir_all(at(name)).map_err(|e| e.to_string())?;
        }
        let layers = format!("lowerdir=/{folder},upperdir={},workdir={}", at("upper"), at("work"));
        sh("mount", &["-t", "overlay", "-o", &layers, "overlay", &at("root")])
    };
    if layer("").is_ok() {
        return Ok(());
    }
    // In a namespace of a user's own the whole can't be a layer, for the mounts in it; folder
    // by folder it can.
    let root = base.join("root").to_string_lossy().into_owned();
    sh("mount", &["--bind", &root, &root])?;
    for entry in fs::read_dir("/").map_err(|e| e.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let here = base.join("root").join(&name);
        let kind = entry.file_type().map_err(|e| e.to_string())?;
        if kind.is_symlink() {
            let to = fs::read_link(entry.path()).map_err(|e| e.to_string())?;
            std::os::unix::fs::symlink(to, here).map_err(|e| e.to_string())?;
        } else if ["proc", "sys", "dev"].contains(&name.as_str()) {
            fs::create_dir_all(here).map_err(|e| e.to_string())?;
        } else if kind.is_dir() && !HIDDEN.contains(&name.as_str()) && fs::read_dir(entry.path()).is_ok() {
            layer(&name)?;
        }
    }
    Ok(())
}

fn build(setup: &Setup, base: &Path, who: Who) -> Result<(), String> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let at = |name: &str| text(base.join(name));
    sh("mount", &["-t", "tmpfs", "-o", "size=512m,mode=755", "yard", &at("")])?;
    for folder in ["root", "upper", "work"] {
        fs::create_dir(base.join(folder)).map_err(|e| e.to_string())?;
    }
    overlay(base)?;
    for folder in HIDDEN {
        for place in [base.join("hide").join(folder), base.join("root").join(folder)] {
            fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
        }
        fill(setup, base, folder, who)?;
    }
    for copy in COPIES.iter().filter(|c| !c.starts_with("home/")) {
        copy_template(setup, &base.join("root").join(copy), who)?;
    }
    let bind = |from: &Path, to: &str| -> Result<(), String> {
        fs::create_dir_all(base.join(to)).map_err(|e| e.to_string())?;
        sh("mount", &["--bind", &text(from.to_owned()), &at(to)])?;
        sh("mount", &["-o", "remount,bind,ro", &at(to)])
    };
    bind(&setup.home.join("stand"), "root/stand")?;
    bind(&setup.home.join("gen"), "root/gen")?;
    if let Some(bash) = &setup.bash {
        bind(bash, "root/bash")?;
    }
    // Who is not root can't put these into folders of the machine's, and does without.
    for locale in fs::read_dir(setup.home.join("locale")).into_iter().flatten().flatten() {
        let name = locale.file_name().to_string_lossy().into_owned();
        let _ = bind(&locale.path(), &format!("root/usr/lib/locale/{name}"));
    }
    let awk = base.join("root/etc/alternatives/awk");
    if Path::new("/usr/bin/mawk").exists() && fs::remove_file(&awk).is_ok() {
        std::os::unix::fs::symlink("/usr/bin/mawk", &awk).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Puts into a folder what is there before any line has run.
fn fill(setup: &Setup, base: &Path, folder: &str, who: Who) -> Result<(), String> {
    let place = base.join("hide").join(folder);
    match folder {
        "w" => copy_template(setup, &place, who),
        "home" => {
            fs::create_dir_all(place.join("me")).map_err(|e| e.to_string())?;
            copy_template(setup, &place.join("me/repo"), who)?;
            own(&place.join("me"), who)
        }
        "tmp" | "var/tmp" => {
            fs::set_permissions(&place, fs::Permissions::from_mode(0o1777)).map_err(|e| e.to_string())
        }
        "proof" => fill_proof(&place, who),
        _ => Ok(()),
    }
}

/// The runner's own folder: this program, and the tracer around its supervisors.
fn fill_proof(place: &Path, who: Who) -> Result<(), String> {
    for folder in ["commands", "state"] {
        fs::create_dir_all(place.join(folder)).map_err(|e| e.to_string())?;
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let here = place.join("prove");
    File::create(&here).map_err(|e| e.to_string())?;
    sh("mount", &["--bind", &program.to_string_lossy(), &here.to_string_lossy()])?;
    let traced = place.join("traced");
    let calls = "execve,execveat,clone,clone3,fork,vfork";
    let text = format!(
        "#!/bin/sh\nexec /usr/bin/strace -A -f -qq -s 4096 -e signal=none -e trace={calls} -o {0}/trace {0}/prove \"$@\"\n",
        worker::HOME
    );
    fs::write(&traced, text).map_err(|e| e.to_string())?;
    fs::set_permissions(&traced, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    File::create(place.join("trace")).map_err(|e| e.to_string())?;
    own(place, who)
}

fn copy_template(setup: &Setup, to: &Path, who: Who) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|e| e.to_string())?;
    let from = setup.home.join("template/.");
    sh("cp", &["-a", "--no-preserve=ownership", &from.to_string_lossy(), &to.to_string_lossy()])?;
    own(to, who)
}

fn own(path: &Path, who: Who) -> Result<(), String> {
    match who {
        Who::Root => Ok(()),
        // What is mounted there belongs to the machine.
        Who::Plain => sh(
            "find",
            &[
                &path.to_string_lossy(),
                "-xdev",
                "!",
                "-name",
                "prove",
                "-exec",
                "chown",
                "-h",
                &format!("{PLAIN}:{PLAIN}"),
                "{}",
                "+",
            ],
        ),
    }
}

/// Every file beneath a folder, with what shows a change.
fn walk(folder: &Path, name: &str, found: &mut Snapshot) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        let kind = meta.file_type();
        if kind.is_dir() {
            found.insert(name.clone(), format!("folder {:o}", meta.mode()));
            walk(&entry.path(), &name, found);
            continue;
        }
        let content = if kind.is_file() && meta.len() < 1 << 20 {
            fs::read(entry.path()).unwrap_or_default()
        } else {
            Vec::new()
        };
        let link = fs::read_link(entry.path()).unwrap_or_default();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in content {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        found.insert(
            name,
            format!("{:o} {} {} {hash:x} {}", meta.mode(), meta.len(), meta.rdev(), link.display()),
        );
    }
}

fn changes(before: &Snapshot, now: &Snapshot) -> Vec<String> {
    let mut names: Vec<String> = now
        .iter()
        .filter(|(name, what)| before.get(*name) != Some(what))
        .map(|(name, _)| name.clone())
        .collect();
    names.extend(before.keys().filter(|name| !now.contains_key(*name)).cloned());
    // Where the runner itself puts long output.
    names.retain(|name| !name.starts_with("/w/.work"));
    names
}
