use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use legwork_policy::{Policy, RuleText};
use legwork_process::sandbox::{Abilities, Context, Plan, Profile, Settings, probe};
use legwork_process::{
    Cursor, Denial, Gate, Limits, Progress, Running, Spawner, Spec, State, Status, Stream, status,
};

pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// The helper's program; another user may have it elsewhere.
fn supervisors() -> PathBuf {
    std::env::var_os("GATE_SUPERVISORS")
        .map_or_else(|| env!("CARGO_BIN_EXE_supervisors").into(), PathBuf::from)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A workspace whose commands are judged.
pub(crate) struct Yard {
    spawner: Spawner,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) work: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) gate: Gate,
    wall: Option<Profile>,
    count: AtomicU32,
}

fn abilities() -> &'static Abilities {
    static ABILITIES: OnceLock<Abilities> = OnceLock::new();
    ABILITIES.get_or_init(|| probe(PATH))
}

pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: Status,
}

impl Outcome {
    pub(crate) fn ok(&self) -> bool {
        self.status.state == State::Ended && self.status.exit_code == Some(0)
    }

    pub(crate) fn denied(&self) -> Vec<&str> {
        self.status.denied.iter().map(|d| d.program.as_str()).collect()
    }

    pub(crate) fn denial(&self, program: &str) -> &Denial {
        self.status.denied.iter().find(|d| d.program == program).unwrap_or_else(|| panic!("{}", self.all()))
    }

    pub(crate) fn all(&self) -> String {
        format!("{:?} {:?} {:?}", self.stdout, self.stderr, self.status)
    }
}

/// Rules that allow; those that begin with `!` deny, with `+` free their children.
pub(crate) fn rules(patterns: &[&str]) -> Policy {
    let text = |p: &&str| {
        let (action, children, pattern) = match (p.strip_prefix('!'), p.strip_prefix('+')) {
            (Some(pattern), _) => ("deny", "", pattern),
            (_, Some(pattern)) => ("allow", "any", pattern),
            _ => ("allow", "", *p),
        };
        RuleText {
            pattern: pattern.into(),
            action: action.into(),
            children: children.into(),
            ..RuleText::default()
        }
    };
    Policy::from_rules(patterns.iter().map(text)).unwrap()
}

impl Yard {
    /// The rules as in [`rules`].
    pub(crate) fn new(patterns: &[&str]) -> Self {
        Self::beneath(&std::env::temp_dir(), patterns)
    }

    /// The same behind a wall, which knows no list of programs.
    pub(crate) fn walled(profile: Profile, patterns: &[&str]) -> Self {
        // Not beneath /tmp, which is the wall's own; and reachable by other users.
        let base = if is_root() { PathBuf::from("/var/lib") } else { std::env::temp_dir() };
        Self { wall: Some(profile), ..Self::beneath(&base, patterns) }
    }

    fn beneath(base: &Path, patterns: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("legwork-gate-").tempdir_in(base).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for sub in ["work", "state"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let work = dir.path().canonicalize().unwrap().join("work");
        Self {
            spawner: Spawner::start(&supervisors()).unwrap(),
            work: work.clone(),
            dir,
            env: BTreeMap::from([("PATH".into(), PATH.into())]),
            gate: Gate {
                rules: rules(patterns).with_exec_gate(true),
                shell: true,
                workspace: work,
                ..Gate::default()
            },
            wall: None,
            count: AtomicU32::new(0),
        }
    }

    fn plan(&self) -> Option<Plan> {
        let number = self.count.load(Ordering::Relaxed);
        let settings =
            Settings { profile: self.wall?, landlock_abi: abilities().landlock_abi, ..Settings::default() };
        settings.plan(&Context {
            workspace: &self.work,
            tmp: &self.dir.path().join(format!("state/tmp{number}")),
            cwd: &self.work,
            programs: None,
            shell: Path::new("/bin/bash"),
            path: PATH,
        })
    }

    pub(crate) fn spec(&self, line: &str, gated: bool) -> Spec {
        Spec {
            argv: ["/bin/bash", "--noprofile", "--norc", "-c", line].map(String::from).to_vec(),
            env: self.env.clone(),
            limits: Limits { timeout: Some(Duration::from_secs(60)), ..Limits::default() },
            gate: gated.then(|| self.gate.clone()),
            sandbox: self.plan(),
            ..Spec::default()
        }
    }

    pub(crate) fn start(&self, spec: &Spec) -> (Running, PathBuf) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let file = self.dir.path().join(format!("state/task{number}"));
        let cwd = File::open(&self.work).unwrap();
        (self.spawner.spawn(&file, cwd.as_fd(), spec).unwrap(), file)
    }

    pub(crate) async fn run_spec(&self, spec: &Spec) -> Outcome {
        let (running, file) = self.start(spec);
        outcome(&running, &file).await
    }

    /// Runs a line behind the gate.
    pub(crate) async fn run(&self, line: &str) -> Outcome {
        self.run_spec(&self.spec(line, true)).await
    }

    /// Runs a line without one.
    pub(crate) async fn run_free(&self, line: &str) -> Outcome {
        self.run_spec(&self.spec(line, false)).await
    }

    /// A file in the workspace that can be executed.
    pub(crate) fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.work.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

pub(crate) async fn outcome(running: &Running, file: &Path) -> Outcome {
    let ended = async { while !matches!(running.progress().await, Progress::Ended) {} };
    tokio::time::timeout(Duration::from_secs(90), ended).await.unwrap();
    let (stdout, stderr) = output(file);
    Outcome { stdout, stderr, status: status(file).unwrap() }
}

/// Output of both streams so far.
pub(crate) fn output(file: &Path) -> (String, String) {
    let mut cursor = Cursor::open(file, 0, 0).unwrap();
    let mut out = (Vec::new(), Vec::new());
    while let Some(chunk) = cursor.next(1 << 20).unwrap() {
        if chunk.stream == Stream::Stdout { &mut out.0 } else { &mut out.1 }.extend(chunk.data);
    }
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&out.0), text(&out.1))
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Puts a program and a library of an attacker's into the workspace; false where none can be
/// made.
pub(crate) fn attacker(yard: &Yard) -> bool {
    type Files = Option<[Vec<u8>; 2]>;
    static MADE: OnceLock<Files> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let compile = |text: &str, options: &[&str]| {
            let (source, out) = (dir.path().join("a.c"), dir.path().join("a"));
            std::fs::write(&source, text).unwrap();
            let mut cc = std::process::Command::new("cc");
            let done = cc.args(options).args(["-w", "-o"]).args([&out, &source]).output().ok()?;
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            Some(std::fs::read(out).unwrap())
        };
        let library = "#include <unistd.h>\n__attribute__((constructor)) static void x(void) { write(1, \"OWNED\\n\", 6); }\n\
                       unsigned la_version(unsigned v) { return v; }";
        Some([
            compile(include_str!("attacker.c"), &["-O1", "-pthread"])?,
            compile(library, &["-shared", "-fPIC"])?,
        ])
    });
    let Some(files) = made else { return false };
    for (name, bytes) in ["attacker", "x.so"].iter().zip(files) {
        let path = yard.work.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    true
}
