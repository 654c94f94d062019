//! What judging execs costs: a loop of programs, and a line that executes none.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use legwork_policy::{Named, Policy};
use legwork_process::sandbox::{ProgramCache, can_list, probe};
use legwork_process::{Gate, Progress, Spawner, Spec, State, status};

use crate::{median, report};

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const ROUNDS: usize = 21;

struct Yard {
    spawner: Spawner,
    dir: tempfile::TempDir,
    count: u32,
}

impl Yard {
    async fn time(&mut self, line: &str, gate: Option<Gate>) -> Duration {
        self.count += 1;
        let path = self.dir.path().join(format!("task{}", self.count));
        let cwd = std::fs::File::open(self.dir.path()).unwrap();
        let spec = Spec {
            argv: ["/bin/bash", "--noprofile", "--norc", "-c", line].map(String::from).to_vec(),
            env: BTreeMap::from([("PATH".into(), PATH.into()), ("HOME".into(), "/root".into())]),
            gate,
            ..Spec::default()
        };
        let start = Instant::now();
        let running = self.spawner.spawn(&path, cwd.as_fd(), &spec).unwrap();
        while !matches!(running.progress().await, Progress::Ended) {}
        let took = start.elapsed();
        let status = status(&path).unwrap();
        assert!(status.state == State::Ended && status.exit_code == Some(0), "{status:?}");
        std::fs::remove_file(path).unwrap();
        took
    }

    /// The same line without and with the gate, in turn.
    async fn both(&mut self, line: &str, rounds: usize, gate: &Gate) -> (Duration, Duration) {
        let (mut plain, mut judged) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            plain.push(self.time(line, None).await);
            judged.push(self.time(line, Some(gate.clone())).await);
        }
        (median(plain), median(judged))
    }
}

pub(crate) async fn gate() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut yard = Yard { spawner: Spawner::start(&legwork_e2e::binary()).unwrap(), dir, count: 0 };
    let preset = legwork_policy::preset("read-only").unwrap().rules;
    let rules = preset.iter().copied().chain([("/bin/true", "allow"), ("/bin/echo *", "allow")]);
    let rules = Policy::from_pairs(rules).unwrap().with_exec_gate(true);
    let Named::These(names) = rules.programs() else { panic!("the preset names its programs") };
    let alone = Gate { rules, shell: true, no_memfd: true, ..Gate::default() };
    let list = |alone: &Gate| -> Gate {
        let mut files: Vec<PathBuf> =
            ProgramCache::default().executables(&names, &[], Path::new("/bin/bash"), PATH);
        // As the runner makes it: libraries are mapped, not executed.
        files.retain(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            !name.contains(".so") || name.starts_with("ld-")
        });
        Gate { programs: Some(files), ..alone.clone() }
    };
    for (what, line) in [
        ("1,000 times /bin/true", "for ((i = 0; i < 1000; i++)); do /bin/true; done"),
        ("1,000 times /bin/echo, other words each", "for ((i = 0; i < 1000; i++)); do /bin/echo $i; done"),
    ] {
        let (plain, judged) = yard.both(line, ROUNDS, &alone).await;
        let ratio = judged.as_secs_f64() / plain.as_secs_f64();
        report(what, &format!("{ratio:.2} x ({judged:?}, {plain:?})"), "1.2 x", ratio / 1.2);
    }
    let mut gates = vec![("a line that executes nothing", alone.clone())];
    if can_list(probe(PATH).landlock_abi) {
        gates.push(("the same with the list of programs", list(&alone)));
    }
    for (what, gate) in gates {
        let (plain, judged) = yard.both("true", 151, &gate).await;
        let over = judged.saturating_sub(plain);
        report(what, &format!("{judged:?}, + {over:?}"), "+ 1 ms", over.as_secs_f64() * 1000.0);
    }
}
