//! What judging execs and openings for writing costs. Each figure is of pairs: the same line
//! without and with the gate, in turn, so that other load meets both alike.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use legwork_policy::{Named, Policy};
use legwork_process::sandbox::{Context, Plan, Profile, ProgramCache, Settings, can_list, probe};
use legwork_process::{Gate, Progress, Spawner, Spec, State, status};

use crate::{median, report};

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const ROUNDS: usize = 15;
const FILES: u32 = 2000;

struct Yard {
    spawner: Spawner,
    dir: tempfile::TempDir,
    count: u32,
}

/// The same line without and with the gate.
struct Pairs(Vec<(Duration, Duration)>);

impl Pairs {
    fn medians(&self) -> (Duration, Duration) {
        let of = |pick: fn(&(Duration, Duration)) -> Duration| median(self.0.iter().map(pick).collect());
        (of(|pair| pair.0), of(|pair| pair.1))
    }

    /// The median of each pair's ratio.
    fn ratio(&self) -> f64 {
        let mut ratios: Vec<f64> = self.0.iter().map(|(a, b)| b.as_secs_f64() / a.as_secs_f64()).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }

    /// The median of what each pair's second takes longer.
    fn over(&self) -> Duration {
        let over = self.0.iter().map(|(plain, judged)| judged.saturating_sub(*plain));
        median(over.collect())
    }
}

impl Yard {
    async fn time(&mut self, line: &str, gate: Option<Gate>, sandbox: Option<Plan>) -> Duration {
        self.count += 1;
        let path = self.dir.path().join(format!("task{}", self.count));
        let cwd = std::fs::File::open(self.dir.path().join("work")).unwrap();
        let spec = Spec {
            argv: ["/bin/bash", "--noprofile", "--norc", "-c", line].map(String::from).to_vec(),
            env: BTreeMap::from([("PATH".into(), PATH.into()), ("HOME".into(), "/root".into())]),
            gate,
            sandbox,
            ..Spec::default()
        };
        let start = Instant::now();
        let running = self.spawner.spawn(&path, cwd.as_fd(), &spec).unwrap();
        while !matches!(running.progress().await, Progress::Ended) {}
        let took = start.elapsed();
        let status = status(&path).unwrap();
        assert!(status.state == State::Ended && status.exit_code == Some(0), "{line}: {status:?}");
        std::fs::remove_file(path).unwrap();
        took
    }

    async fn pairs(&mut self, line: &str, rounds: usize, gate: &Gate) -> Pairs {
        let mut pairs = Vec::new();
        for _ in 0..rounds {
            pairs.push((self.time(line, None, None).await, self.time(line, Some(gate.clone()), None).await));
        }
        Pairs(pairs)
    }

    /// The wall that `legwork init` writes.
    fn plan(&self, programs: &[String]) -> Option<Plan> {
        let (work, tmp) = (self.dir.path().join("work"), self.dir.path().join(format!("tmp{}", self.count)));
        let settings = Settings {
            profile: Profile::Landlock,
            landlock_abi: probe(PATH).landlock_abi,
            ..Settings::default()
        };
        settings.plan(&Context {
            workspace: &work,
            tmp: &tmp,
            cwd: &work,
            programs: Some(programs),
            shell: Path::new("/bin/bash"),
            path: PATH,
        })
    }
}

pub(crate) async fn gate() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::create_dir(dir.path().join("work")).unwrap();
    let work = dir.path().join("work").canonicalize().unwrap();
    let mut yard = Yard { spawner: Spawner::start(&legwork_e2e::binary()).unwrap(), dir, count: 0 };
    let preset = legwork_policy::preset("read-only").unwrap().rules;
    let own = [("/bin/true", "allow"), ("/bin/echo *", "allow"), ("cp *", "allow"), ("> out/*", "allow")];
    let rules = preset.iter().copied().chain(own);
    let rules = Policy::from_pairs(rules).unwrap().with_exec_gate(true);
    let Named::These(names) = rules.programs() else { panic!("the preset names its programs") };
    let alone = Gate { rules, shell: true, no_memfd: true, workspace: work.clone(), ..Gate::default() };
    for (what, line) in [
        ("1,000 times /bin/true", "for ((i = 0; i < 1000; i++)); do /bin/true; done"),
        ("1,000 times /bin/echo, other words each", "for ((i = 0; i < 1000; i++)); do /bin/echo $i; done"),
    ] {
        let pairs = yard.pairs(line, ROUNDS, &alone).await;
        let ((plain, judged), ratio) = (pairs.medians(), pairs.ratio());
        report(what, &format!("{ratio:.2} x ({judged:?}, {plain:?})"), "1.2 x", ratio / 1.2);
    }
    openings(&mut yard, &work, &alone).await;
    let mut gates = vec![("a line that executes nothing", alone.clone())];
    if can_list(probe(PATH).landlock_abi) {
        gates.push(("the same with the list of programs", listed(&alone, &names)));
    }
    for (what, gate) in gates {
        let pairs = yard.pairs("true", 151, &gate).await;
        let ((_, judged), over) = (pairs.medians(), pairs.over());
        report(what, &format!("{judged:?}, + {over:?}"), "+ 1 ms", over.as_secs_f64() * 1000.0);
    }
    behind_a_wall(&mut yard, &alone, &names).await;
}

/// Files opened for writing, where that is asked for: by a program, and by the shell.
async fn openings(yard: &mut Yard, work: &Path, alone: &Gate) {
    let gate = Gate { writes: true, ..alone.clone() };
    for folder in ["out", "many"] {
        std::fs::create_dir(work.join(folder)).unwrap();
    }
    for i in 0..FILES {
        std::fs::write(work.join(format!("many/{i}")), "x").unwrap();
    }
    let copied = "/bin/cp -r many out/copy";
    let written = format!("for ((i = 0; i < {FILES}; i++)); do : > out/$i; done");
    for (what, line) in
        [("an opening for writing, by a program", copied), ("the same, by the shell", written.as_str())]
    {
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let mut both = [Duration::ZERO; 2];
            for (took, gate) in both.iter_mut().zip([None, Some(gate.clone())]) {
                *took = yard.time(line, gate, None).await;
                std::fs::remove_dir_all(work.join("out")).unwrap();
                std::fs::create_dir(work.join("out")).unwrap();
            }
            pairs.push((both[0], both[1]));
        }
        let over = Pairs(pairs).over() / FILES;
        report(what, &format!("+ {over:?}"), "+ 20 µs", over.as_secs_f64() * 1e6 / 20.0);
    }
}

fn listed(alone: &Gate, names: &[String]) -> Gate {
    let mut files: Vec<PathBuf> =
        ProgramCache::default().executables(names, &[], Path::new("/bin/bash"), PATH);
    // As the runner makes it: libraries are mapped, not executed.
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        !name.contains(".so") || name.starts_with("ld-")
    });
    Gate { programs: Some(files), ..alone.clone() }
}

/// What the gate adds where a wall stands already, as `legwork init` writes it.
async fn behind_a_wall(yard: &mut Yard, alone: &Gate, names: &[String]) {
    if probe(PATH).landlock_abi < 3 {
        println!("skip: no Landlock for a wall");
        return;
    }
    let mut pairs = Vec::new();
    for _ in 0..151 {
        let plan = yard.plan(names);
        let plain = yard.time("true", None, plan).await;
        let plan = yard.plan(names);
        pairs.push((plain, yard.time("true", Some(alone.clone()), plan).await));
    }
    let pairs = Pairs(pairs);
    let ((plain, judged), ratio) = (pairs.medians(), pairs.ratio());
    let what = "a line that executes nothing behind landlock, gate and wall against the wall";
    report(what, &format!("{ratio:.2} x ({judged:?}, {plain:?})"), "1.1 x", ratio / 1.1);
}
