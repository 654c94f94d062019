use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use legwork_process::sandbox::{Abilities, Context, Identity, Profile, Settings, probe};
use legwork_process::{Cursor, Limits, Progress, Running, Spawner, Spec, State, Status, Stream, status};

pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

pub(crate) fn abilities() -> &'static Abilities {
    static ABILITIES: OnceLock<Abilities> = OnceLock::new();
    ABILITIES.get_or_init(|| probe(PATH))
}

/// The helper's program; another user may have it elsewhere.
fn supervisors() -> PathBuf {
    std::env::var_os("WALLS_SUPERVISORS")
        .map_or_else(|| env!("CARGO_BIN_EXE_supervisors").into(), PathBuf::from)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A workspace with a wall of some kind.
pub(crate) struct Yard {
    spawner: Spawner,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) settings: Settings,
    pub(crate) work: PathBuf,
    pub(crate) programs: Option<Vec<String>>,
    pub(crate) env: BTreeMap<String, String>,
    count: std::cell::Cell<u32>,
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

    pub(crate) fn all(&self) -> String {
        format!("{:?} {:?} {:?} {:?}", self.stdout, self.stderr, self.status.exit_code, self.status.error)
    }
}

impl Yard {
    pub(crate) fn new(profile: Profile) -> Self {
        // Not beneath /tmp, which is the sandbox's own; and reachable by other users.
        let base = if is_root() { PathBuf::from("/var/lib") } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("legwork-wall-").tempdir_in(base).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for sub in ["work", "secret", "state"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        std::fs::write(dir.path().join("secret/key"), "s3cret\n").unwrap();
        std::fs::write(dir.path().join("work/file"), "mine\n").unwrap();
        let settings = Settings {
            profile,
            landlock_abi: abilities().landlock_abi,
            runsc: abilities().runsc.clone().unwrap_or_default(),
            ..Settings::default()
        };
        Self {
            spawner: Spawner::start(&supervisors()).unwrap(),
            work: dir.path().join("work"),
            dir,
            settings,
            programs: None,
            env: BTreeMap::from([("PATH".into(), PATH.into())]),
            count: std::cell::Cell::new(0),
        }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn named(mut self, programs: &[&str]) -> Self {
        self.programs = Some(programs.iter().map(|p| (*p).to_owned()).collect());
        self
    }

    pub(crate) fn run_as(mut self, user: &str) -> Self {
        let identity = Identity::find(user).unwrap();
        let work = self.path("work");
        std::os::unix::fs::chown(&work, Some(identity.uid), Some(identity.gid)).unwrap();
        self.settings.run_as = Some(identity);
        self
    }

    pub(crate) fn start(&self, line: &str, limits: Limits) -> (Running, PathBuf) {
        static STARTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let unique = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let number = self.count.get();
        self.count.set(number + 1);
        let file = self.path(&format!("state/task{number}"));
        let work = self.work.clone();
        let shell = Path::new("/bin/bash");
        let tmp = self.path(&format!("state/tmp{number}"));
        let context = Context {
            workspace: &work,
            tmp: &tmp,
            cwd: &work.canonicalize().unwrap(),
            programs: self.programs.as_deref(),
            shell,
            path: PATH,
        };
        let plan = self.settings.plan(&context);
        let group =
            plan.as_ref().map(|_| abilities().groups.name(&format!("{}-{unique}", std::process::id())));
        let mut env = self.env.clone();
        if let Some(plan) = &plan {
            env.insert("TMPDIR".into(), plan.tmp_seen().to_string_lossy().into_owned());
        }
        let spec = Spec {
            argv: ["/bin/bash", "--noprofile", "--norc", "-c", line].map(String::from).to_vec(),
            env,
            limits,
            sandbox: plan,
            group: group.unwrap_or_default(),
            ..Spec::default()
        };
        let cwd = File::open(&work).unwrap();
        (self.spawner.spawn(&file, cwd.as_fd(), &spec).unwrap(), file)
    }

    pub(crate) async fn run(&self, line: &str) -> Outcome {
        self.run_for(line, 20).await
    }

    pub(crate) async fn run_for(&self, line: &str, seconds: u64) -> Outcome {
        let limits = Limits { timeout: Some(Duration::from_secs(seconds)), ..Limits::default() };
        let (running, file) = self.start(line, limits);
        let ended = async { while !matches!(running.progress().await, Progress::Ended) {} };
        tokio::time::timeout(Duration::from_secs(seconds + 20), ended).await.unwrap();
        let mut cursor = Cursor::open(&file, 0, 0).unwrap();
        let mut out = (Vec::new(), Vec::new());
        while let Some(chunk) = cursor.next(1 << 20).unwrap() {
            if chunk.stream == Stream::Stdout { &mut out.0 } else { &mut out.1 }.extend(chunk.data);
        }
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Outcome { stdout: text(&out.0), stderr: text(&out.1), status: status(&file).unwrap() }
    }
}

/// The walls that this machine can build, found by building them.
pub(crate) fn walls() -> &'static [Profile] {
    static WALLS: OnceLock<Vec<Profile>> = OnceLock::new();
    WALLS.get_or_init(|| {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut walls = Vec::new();
                for profile in [Profile::Landlock, Profile::Namespaces, Profile::Gvisor] {
                    if profile == Profile::Gvisor && abilities().runsc.is_none() {
                        eprintln!("NOT TESTED HERE: gvisor: runsc is not installed");
                        continue;
                    }
                    let outcome = Yard::new(profile).run("true").await;
                    if outcome.ok() {
                        walls.push(profile);
                    } else {
                        eprintln!("NOT TESTED HERE: {profile}: {}", outcome.all());
                    }
                }
                walls
            })
        })
        .join()
        .unwrap()
    })
}
