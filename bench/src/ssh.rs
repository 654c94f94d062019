//! `legwork ssh` beside OpenSSH by itself, and beside pyinfra and Ansible, whose programs
//! LEGWORK_BENCH_PYINFRA and LEGWORK_BENCH_ANSIBLE (`ansible-playbook`) give.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use legwork_e2e::binary;
use legwork_e2e::sshd::Sshd;

use crate::{median, report};

fn time(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    begun.elapsed()
}

struct Bench {
    dir: tempfile::TempDir,
    sshd: Sshd,
}

impl Bench {
    fn ssh(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", &self.sshd.config()]).args(args);
        command
    }

    fn legwork(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.env("HOME", self.dir.path()).env_remove("XDG_RUNTIME_DIR");
        command.args(["ssh", "-F", &self.sshd.config()]).args(args);
        command
    }
}

/// All of them, on one sshd.
pub(crate) async fn ssh() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let bench = Bench { dir, sshd };
    tokio::task::block_in_place(|| {
        cold(&bench);
        warm(&bench);
        fan_out(&bench);
        steps(&bench);
        fleet(&bench);
    });
}

fn compare(what: &str, ours: Duration, peer: Duration, bound: f64) {
    let ratio = ours.as_secs_f64() / peer.as_secs_f64();
    let text = format!("{ours:.1?} against {peer:.1?}: {ratio:.3} x");
    report(&format!("ssh: {what}"), &text, &format!("{bound} x"), ratio / bound);
}

fn cold(bench: &Bench) {
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 0..31 {
        // A new name each time, so that nothing is there yet.
        ours.push(time(&mut bench.legwork(&["--persist", "1", &format!("cold{round}"), "--", "true"])));
        peer.push(time(&mut bench.ssh(&[&format!("cold{round}"), "true"])));
    }
    compare("cold, upload included, against ssh", median(ours), median(peer), 1.15);
}

fn warm(bench: &Bench) {
    let socket = bench.dir.path().join("control").display().to_string();
    let path = format!("-oControlPath={socket}");
    time(&mut bench.legwork(&["--persist", "60", "warm", "--", "true"]));
    let mut master = bench.ssh(&["-MNf", &path, "warm"]);
    assert!(
        master.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    );
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        ours.push(time(&mut bench.legwork(&["--persist", "60", "warm", "--", "true"])));
        peer.push(time(&mut bench.ssh(&[&path, "warm", "true"])));
    }
    compare("warm, against ssh with ControlMaster", median(ours), median(peer), 1.2);
    let _ = bench.ssh(&["-O", "exit", &path, "warm"]).stderr(Stdio::null()).status();
}

fn fan_out(bench: &Bench) {
    let names: Vec<String> = (1..=100).map(|n| format!("fan{n}")).collect();
    let list = bench.dir.path().join("list");
    std::fs::write(&list, names.join("\n")).unwrap();
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        ours.push(time(&mut bench.legwork(&["-P", "16", "fan[1-100]", "--", "true"])));
        let line = format!("xargs -P 16 -I H ssh -F {} H true < {}", bench.sshd.config(), list.display());
        peer.push(time(Command::new("sh").args(["-c", &line])));
    }
    compare("100 hosts, 16 at once, against xargs -P 16 ssh", median(ours), median(peer), 1.3);
}

fn steps(bench: &Bench) {
    let step = |n: usize| format!("echo {n} >> {}", bench.dir.path().join("steps").display());
    let begun = Instant::now();
    for n in 0..50 {
        time(&mut bench.legwork(&["--persist", "60", "steps", "--", &step(n)]));
    }
    let ours = begun.elapsed();
    let begun = Instant::now();
    for n in 0..50 {
        time(&mut bench.ssh(&["steps", &step(n)]));
    }
    let peer = begun.elapsed();
    compare("50 steps by 50 calls, against 50 cold ssh", ours, peer, 0.2);
    let Some(pyinfra) = std::env::var_os("LEGWORK_BENCH_PYINFRA") else {
        println!("     ssh: the same steps by pyinfra: not at hand (LEGWORK_BENCH_PYINFRA)");
        return;
    };
    let deploy = bench.dir.path().join("deploy.py");
    let lines: String = (0..50).map(|n| format!("server.shell(commands=[{:?}])\n", step(n))).collect();
    std::fs::write(&deploy, format!("from pyinfra.operations import server\n{lines}")).unwrap();
    let mut command = Command::new(pyinfra);
    command.args(["-y", "@ssh/steps", "--data"]).arg(format!("ssh_config_file={}", bench.sshd.config()));
    let theirs = time(command.arg(&deploy).current_dir(bench.dir.path()));
    let times = theirs.as_secs_f64() / ours.as_secs_f64();
    println!("     ssh: the same steps by pyinfra: {theirs:.1?}, {times:.1} x ours");
}

/// So many hosts, each by a name of its own.
const HOSTS: usize = 15;
/// Rounds, in each of which everybody has a turn.
const ROUNDS: usize = 3;

/// 50 steps on 15 hosts: ours in 50 calls, the others in one each.
fn fleet(bench: &Bench) {
    let step = |n: usize| format!("echo {n} >> {}", bench.dir.path().join("fleet").display());
    let (pyinfra, ansible) =
        (std::env::var_os("LEGWORK_BENCH_PYINFRA"), std::env::var_os("LEGWORK_BENCH_ANSIBLE"));
    let write = |name: &str, text: String| {
        let file = bench.dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let names: Vec<String> = (1..=HOSTS).map(|n| format!("fleet{n}")).collect();
    let lines: String = (0..50).map(|n| format!("server.shell(commands=[{:?}])\n", step(n))).collect();
    let deploy = write("fleet.py", format!("from pyinfra.operations import server\n{lines}"));
    let hosts: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let data = format!("{{\"ssh_config_file\": {:?}}}", bench.sshd.config());
    let inventory = write("fleet_hosts.py", format!("fleet = ([{}], {data})\n", hosts.join(", ")));
    let tasks: String = (0..50).map(|n| format!("    - ansible.builtin.shell: {}\n", step(n))).collect();
    let play = write("fleet.yml", format!("- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}"));
    let list = write("fleet_hosts", names.join("\n") + "\n");
    let settings = format!(
        "[defaults]\nforks = {HOSTS}\nhost_key_checking = false\n[ssh_connection]\npipelining = true\nssh_args = -F {} \
         -o ControlMaster=auto -o ControlPersist=60s\n",
        bench.sshd.config()
    );
    let settings = write("ansible.cfg", settings);
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for n in 0..50 {
            time(&mut bench.legwork(&["--persist", "60", "-P", "15", "fleet[1-15]", "--", &step(n)]));
        }
        times[0].push(begun.elapsed());
        if let Some(pyinfra) = &pyinfra {
            let mut command = Command::new(pyinfra);
            command.arg("-y").arg(&inventory).arg(&deploy).current_dir(bench.dir.path());
            times[1].push(time(&mut command));
        }
        if let Some(ansible) = &ansible {
            let mut command = Command::new(ansible);
            command.arg("-i").arg(&list).arg(&play).env("ANSIBLE_CONFIG", &settings);
            times[2].push(time(command.env("HOME", bench.dir.path())));
        }
    }
    let ours = median(times[0].clone());
    println!("     ssh: 50 steps on {HOSTS} hosts: {ours:.1?} {:?}", times[0]);
    for (name, theirs) in [("pyinfra", &times[1]), ("Ansible", &times[2])] {
        if theirs.is_empty() {
            println!("     ssh: the same by {name}: not at hand");
            continue;
        }
        let ratios: Vec<String> = theirs
            .iter()
            .zip(&times[0])
            .map(|(t, o)| format!("{:.1}", t.as_secs_f64() / o.as_secs_f64()))
            .collect();
        let theirs = median(theirs.clone());
        println!("     ssh: the same by {name}: {theirs:.1?}, by round {} x ours", ratios.join(", "));
    }
}
