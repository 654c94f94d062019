//! What walls cost: `bash -c true` behind each, beside bubblewrap and `runsc do`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use legwork_policy::Policy;
use legwork_process::sandbox::{Context, Profile, Settings, probe};
use legwork_process::{Progress, Spawner, Spec, State, status};

use crate::{median, report};

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

struct Yard {
    spawner: Spawner,
    dir: tempfile::TempDir,
    settings: Settings,
    count: u32,
}

impl Yard {
    fn spec(&self, profile: Profile, programs: Option<&[String]>) -> Spec {
        let argv = ["/bin/bash", "--noprofile", "--norc", "-c", "true"].map(String::from).to_vec();
        let env = BTreeMap::from([("PATH".into(), PATH.into())]);
        let work = self.dir.path().join("work");
        let tmp = self.dir.path().join(format!("tmp{}", self.count));
        let context = Context {
            workspace: &work,
            tmp: &tmp,
            cwd: &work,
            programs,
            shell: Path::new("/bin/bash"),
            path: PATH,
        };
        let settings = Settings { profile, ..self.settings.clone() };
        Spec { argv, env, sandbox: settings.plan(&context), ..Spec::default() }
    }

    /// How long a command takes, from the making of its plan on.
    async fn time(&mut self, make: impl Fn(&Self) -> Spec) -> Duration {
        use std::os::fd::AsFd;
        self.count += 1;
        let path = self.dir.path().join(format!("task{}", self.count));
        let cwd = std::fs::File::open(self.dir.path().join("work")).unwrap();
        let start = Instant::now();
        let spec = make(self);
        let running = self.spawner.spawn(&path, cwd.as_fd(), &spec).unwrap();
        while !matches!(running.progress().await, Progress::Ended) {}
        let took = start.elapsed();
        let status = status(&path).unwrap();
        assert!(status.state == State::Ended && status.exit_code == Some(0), "{:?} {status:?}", spec.argv);
        std::fs::remove_file(path).unwrap();
        took
    }
}

fn found(program: &str) -> bool {
    let there = PATH.split(':').any(|dir| Path::new(dir).join(program).exists());
    if !there {
        println!("skip: {program} is not installed");
    }
    there
}

/// bubblewrap with the binds of our own root.
fn bwrap(plan_of: &Spec) -> Vec<String> {
    let plan = plan_of.sandbox.as_ref().unwrap();
    let mut argv: Vec<String> =
        ["/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
            .map(String::from)
            .to_vec();
    let mut add = |words: &[&str]| argv.extend(words.iter().map(|w| (*w).to_owned()));
    for path in plan.read.iter().filter(|p| !p.starts_with("/proc")) {
        let text = path.to_string_lossy();
        match std::fs::read_link(path) {
            Ok(to) => add(&["--symlink", &to.to_string_lossy(), &text]),
            Err(_) => add(&["--ro-bind", &text, &text]),
        }
    }
    add(&["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp"]);
    let work = plan.workspace.to_string_lossy();
    add(&["--bind", &work, &work]);
    for path in &plan.hide {
        let text = path.to_string_lossy();
        if path.is_dir() { add(&["--tmpfs", &text]) } else { add(&["--ro-bind", "/dev/null", &text]) }
    }
    add(&["--chdir", &work]);
    argv.extend(plan_of.argv.iter().cloned());
    argv
}

pub(crate) async fn walls() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::create_dir(dir.path().join("work")).unwrap();
    let abilities = probe(PATH);
    let settings = Settings {
        landlock_abi: abilities.landlock_abi,
        runsc: abilities.runsc.clone().unwrap_or_default(),
        ..Settings::default()
    };
    let spawner = Spawner::start(&legwork_e2e::binary()).unwrap();
    let mut yard = Yard { spawner, dir, settings, count: 0 };
    let rules = legwork_policy::preset("read-only").unwrap().rules;
    let legwork_policy::Named::These(programs) =
        Policy::from_pairs(rules.iter().copied()).unwrap().programs()
    else {
        panic!("the preset names its programs")
    };
    let has_bwrap = found("bwrap");
    let mut times: [Vec<Duration>; 6] = Default::default();
    for _ in 0..150 {
        times[0].push(yard.time(|y| y.spec(Profile::Off, None)).await);
        times[1].push(yard.time(|y| y.spec(Profile::Landlock, None)).await);
        times[2].push(yard.time(|y| y.spec(Profile::Landlock, Some(&programs))).await);
        times[3].push(yard.time(|y| y.spec(Profile::Namespaces, None)).await);
        times[4].push(yard.time(|y| y.spec(Profile::Namespaces, Some(&programs))).await);
        if has_bwrap {
            let peer = |y: &Yard| {
                let spec = y.spec(Profile::Namespaces, None);
                Spec { argv: bwrap(&spec), sandbox: None, ..spec }
            };
            times[5].push(yard.time(peer).await);
        }
    }
    let [off, landlock, landlock_named, namespaces, named, peer] = times.map(median_or_zero);
    let over = |took: Duration| took.saturating_sub(off);
    println!("     `bash -c true` without a wall: {off:?}");
    for (what, took, bound) in [
        ("landlock", landlock, 1.0),
        ("landlock, named programs only", landlock_named, 1.0),
        ("namespaces", namespaces, 6.0),
        ("namespaces, named programs only", named, 6.0),
    ] {
        let over = over(took);
        report(
            what,
            &format!("{took:?}, + {over:?}"),
            &format!("+ {bound} ms"),
            over.as_secs_f64() * 1000.0 / bound,
        );
    }
    if has_bwrap {
        let ratio = namespaces.as_secs_f64() / peer.as_secs_f64();
        report("namespaces against bwrap", &format!("{ratio:.2} x ({peer:?})"), "1.1 x", ratio / 1.1);
    }
    if found("runsc") {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            ours.push(yard.time(|y| y.spec(Profile::Gvisor, None)).await);
            let plain = |y: &Yard| {
                let spec = y.spec(Profile::Off, None);
                let mut argv: Vec<String> =
                    ["/usr/bin/runsc", "--network=none", "--ignore-cgroups", "do"].map(String::from).to_vec();
                argv.extend(spec.argv.iter().cloned());
                Spec { argv, ..spec }
            };
            peer.push(yard.time(plain).await);
        }
        let (ours, peer) = (median(ours), median(peer));
        let ratio = ours.as_secs_f64() / peer.as_secs_f64();
        report(
            "gvisor against `runsc do`",
            &format!("{ratio:.2} x ({ours:?}, {peer:?})"),
            "1.2 x",
            ratio / 1.2,
        );
    }
}

fn median_or_zero(times: Vec<Duration>) -> Duration {
    if times.is_empty() { Duration::ZERO } else { median(times) }
}
