//! `legwork ssh` beside OpenSSH by itself, and beside pyinfra, whose program
//! LEGWORK_BENCH_PYINFRA gives.

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
