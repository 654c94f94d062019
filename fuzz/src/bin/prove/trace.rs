//! Running a line and seeing what it did.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use legwork_policy::{RunText, Verdict};

use crate::{NAMED, UNNAMED, WRAPPERS};

/// A folder with programs that do nothing under many names, and those that run others.
pub(crate) struct Yard {
    dir: tempfile::TempDir,
}

impl Yard {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("prove-").tempdir_in("/var/tmp").unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        for name in NAMED.iter().chain(UNNAMED) {
            // A program that prints nothing and ends well, under a name of its own.
            std::fs::copy("/bin/true", bin.join(name)).unwrap();
        }
        for name in WRAPPERS {
            if let Some(real) =
                ["/usr/bin", "/bin"].iter().map(|d| PathBuf::from(d).join(name)).find(|p| p.exists())
            {
                std::os::unix::fs::symlink(real, bin.join(name)).unwrap();
            }
        }
        let yard = Self { dir };
        yard.clean();
        yard
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn clean(&self) {
        let work = self.work();
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(work.join("out")).unwrap();
        std::fs::create_dir_all(work.join("d")).unwrap();
        for (name, text) in [("a", "evil\nid\n"), ("b", "one two\n"), ("d/c", "x\n"), ("script", "ls\n")] {
            std::fs::write(work.join(name), text).unwrap();
        }
        // What a line could run if it got hold of a file.
        std::fs::copy("/bin/true", work.join("payload")).unwrap();
        std::fs::set_permissions(work.join("payload"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Whether bash accepts what is to be run, as the runner asks.
    pub(crate) fn accepts(&self, run: &RunText) -> bool {
        let own = run.check_syntax.then_some(&run.text);
        own.into_iter().chain(&run.scripts).all(|text| {
            Command::new("/bin/bash")
                .args(["--noprofile", "--norc", "-n", "-c", text])
                .env_clear()
                .stdin(Stdio::null())
                .output()
                .is_ok_and(|o| o.status.success() && o.stderr.is_empty())
        })
    }

    /// Runs a text; what it did that no verdict covered.
    pub(crate) fn run(&self, text: &str, verdict: &Verdict) -> Vec<String> {
        let root = self.dir.path();
        let trace = root.join("trace");
        let _ = std::fs::remove_file(&trace);
        let root_text = root.to_string_lossy().into_owned();
        let work = self.work().to_string_lossy().into_owned();
        let bin = root.join("bin").to_string_lossy().into_owned();
        let status = Command::new("bwrap")
            .args(["--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"])
            .args(["--tmpfs", "/tmp", "--bind", &root_text, &root_text, "--chdir", &work, "--clearenv"])
            .args(["--setenv", "PATH", &bin, "--setenv", "HOME", "/nonexistent"])
            .args(["/usr/bin/timeout", "-s", "KILL", "3"])
            .args(["/usr/bin/strace", "-f", "-qq", "-s", "256", "-o", &trace.to_string_lossy()])
            .args(["-e", "trace=execve,execveat,open,openat,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,link,linkat,symlink,symlinkat,truncate,connect"])
            .args(["/bin/bash", "--noprofile", "--norc", "-c", text])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if status.is_err() {
            return vec!["could not be run".into()];
        }
        let log = std::fs::read(&trace).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let problems = judge(&log, verdict, &root_text);
        if log.lines().any(|l| l.contains("O_CREAT") || l.contains("unlink") || l.contains("rename")) {
            self.clean();
        }
        problems
    }
}

/// What a trace shows that was not in the verdict.
fn judge(log: &str, verdict: &Verdict, root: &str) -> Vec<String> {
    // Names that were judged, wrappers' commands included.
    let mut predicted: BTreeSet<&str> = BTreeSet::new();
    for part in &verdict.parts {
        for word in part.command.split_whitespace() {
            let word = word.trim_matches(['\'', '"']);
            predicted.insert(word.rsplit('/').next().unwrap_or(word));
            if !word.contains('=') {
                break;
            }
        }
    }
    let mut problems = Vec::new();
    let mut first = true;
    for line in log.lines() {
        let Some((_, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        // Calls that failed did nothing.
        if call.contains(" = -1 ")
            || call.contains("= ?")
            || call.starts_with("---")
            || call.starts_with("+++")
        {
            continue;
        }
        let quoted: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
        let Some(path) = quoted.first() else { continue };
        if call.starts_with("execve") {
            // The shell itself.
            if std::mem::take(&mut first) {
                continue;
            }
            let name = path.rsplit('/').next().unwrap_or(path);
            let of_ours = path.starts_with(&format!("{root}/bin/"));
            // What a program starts from where no PATH leads is its own affair.
            if !of_ours && (path.starts_with("/usr/lib/") || path.starts_with("/usr/libexec/")) {
                continue;
            }
            // The shell of those that take script text, which was judged.
            let shell_of = ["flock", "watch"].iter().any(|w| predicted.contains(w));
            if shell_of && *path == "/bin/sh" {
                continue;
            }
            // What no rule names may not run, whatever the verdict says of it.
            if !predicted.contains(name) || UNNAMED.contains(&name) {
                problems.push(format!("{path} was executed, and was not judged"));
            }
            continue;
        }
        if call.starts_with("connect") {
            continue;
        }
        let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| call.contains(flag))
            || ["creat(", "rename", "unlink", "mkdir", "link", "symlink", "truncate"]
                .iter()
                .any(|c| call.starts_with(c));
        if !writes {
            continue;
        }
        let target = quoted.last().unwrap_or(path);
        let harmless = target.starts_with("/dev/")
            || target.starts_with("/proc/")
            || target.starts_with("/tmp/")
            || target.starts_with("out/")
            || target.starts_with("./out/")
            // Programs that are there to make files, by a rule that names them.
            || verdict.parts.iter().any(|p| {
                let program = p.command.split(' ').next().unwrap_or_default();
                matches!(program, "split" | "tar" | "flock") && !target.starts_with('/') && !target.contains("..")
            })
            || (predicted.contains("nohup") && target.ends_with("nohup.out"));
        if !harmless {
            problems.push(format!("{target} was written to, and no verdict covers that: {call}"));
        }
    }
    problems
}
