//! The micro-runner beside a floor that does nothing but spawn, and beside the original,
//! whose path OPENFROYO_MICRO_RUNNER gives.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use legwork_e2e::micro::{binary, dist};
use serde_json::{Value, json};

use crate::{median, report};

/// What the original takes, where the original itself is not at hand.
const ORIGINAL_BYTES: u64 = 2_502_840;
const ORIGINAL_RSS_KB: f64 = 14.5 * 1024.0;

fn original() -> Option<PathBuf> {
    std::env::var_os("OPENFROYO_MICRO_RUNNER").map(PathBuf::from)
}

struct Runner {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Runner {
    /// A copy in a folder, as it deletes itself; on one processor if asked.
    fn start(dir: &Path, program: &Path, pinned: bool) -> Self {
        let copy = dir.join(format!("micro-runner-{}", std::fs::read_dir(dir).unwrap().count()));
        std::fs::copy(program, &copy).unwrap();
        let mut command = if pinned {
            let mut command = Command::new("taskset");
            command.args(["-c", "1"]).arg(&copy);
            command
        } else {
            Command::new(&copy)
        };
        Self::run(command.current_dir(dir))
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) =
            (child.stdin.take().unwrap(), BufReader::with_capacity(1 << 20, child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it ended");
        line
    }

    fn send(&mut self, kind: &str, params: &Value) {
        let data = json!({ "id": "a", "type": kind, "timeout": 300, "params": params });
        let line = format!("{}\n", json!({ "type": "CMD", "data": data }));
        self.stdin.write_all(line.as_bytes()).unwrap();
    }

    /// A command to its answer: how long, how many bytes of lines.
    fn call(&mut self, kind: &str, params: &Value) -> (Duration, usize) {
        let begun = Instant::now();
        self.send(kind, params);
        let mut bytes = 0;
        loop {
            let line = self.line();
            bytes += line.len();
            if !line.starts_with("{\"type\":\"EVENT\"") {
                assert!(line.starts_with("{\"type\":\"DONE\""), "{line}");
                return (begun.elapsed(), bytes);
            }
        }
    }

    fn status(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The floor: for each line it spawns the same program with two pipes, drains them, waits,
/// and answers a line.
pub(crate) fn floor() {
    let (mut line, stdin) = (String::new(), std::io::stdin());
    while stdin.lock().read_line(&mut line).is_ok_and(|n| n > 0) {
        let mut child = Command::new("/bin/true")
            .arg("x")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut bytes = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
        child.stderr.take().unwrap().read_to_end(&mut bytes).unwrap();
        child.wait().unwrap();
        std::io::stdout().write_all(b"done\n").unwrap();
        line.clear();
    }
}

pub(crate) fn size() {
    for arch in ["x86_64", "aarch64"] {
        let size = std::fs::metadata(dist().join(format!("legwork-micro-{arch}-linux"))).unwrap().len();
        let peer = original().map_or(ORIGINAL_BYTES, |path| std::fs::metadata(path).unwrap().len());
        let times = size as f64 / peer as f64;
        report(
            &format!("micro: size, {arch}"),
            &format!("{size} bytes, {times:.2} of the original"),
            "500,000",
            size as f64 / 500_000.0,
        );
    }
}

pub(crate) fn start() {
    let dir = tempfile::tempdir().unwrap();
    let time = |program: &Path| {
        let begun = Instant::now();
        let mut runner = Runner::start(dir.path(), program, false);
        let copied = Instant::now();
        runner.line();
        (copied.elapsed(), begun.elapsed())
    };
    let ours: Vec<Duration> = (0..200).map(|_| time(&binary()).0).collect();
    let ours = median(ours);
    match original() {
        Some(program) => {
            let peer = median((0..200).map(|_| time(&program).0).collect());
            let ratio = ours.as_secs_f64() / peer.as_secs_f64();
            report("micro: start to READY", &format!("{ours:?} against {peer:?}"), "0.25 x", ratio / 0.25);
        }
        None => {
            println!("     micro: start to READY: {ours:?} (no original at hand: OPENFROYO_MICRO_RUNNER)")
        }
    }
}

pub(crate) fn exec() {
    let dir = tempfile::tempdir().unwrap();
    let mut ours = Runner::start(dir.path(), &binary(), true);
    ours.line();
    let mut peer = original().map(|program| {
        let mut peer = Runner::start(dir.path(), &program, true);
        peer.line();
        peer
    });
    let own = std::env::current_exe().unwrap();
    let mut floor = Runner::run(Command::new("taskset").args(["-c", "1"]).arg(own).arg("floor"));
    let params = json!({ "command": "/bin/true", "args": ["x"], "capture_out": true, "capture_err": true });
    let mut bare = || {
        let begun = Instant::now();
        floor.stdin.write_all(b"go\n").unwrap();
        floor.line();
        begun.elapsed()
    };
    let (mut times, mut floors, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..2000 {
        let (mine, least) = (ours.call("exec", &params).0, bare());
        let theirs = peer.as_mut().map(|peer| peer.call("exec", &params).0);
        if round >= 100 {
            times.push(mine);
            floors.push(least);
            peers.extend(theirs);
        }
    }
    let (mine, least) = (median(times), median(floors));
    let ratio = mine.as_secs_f64() / least.as_secs_f64();
    report(
        "micro: exec round trip",
        &format!("{mine:?}, floor {least:?}: {ratio:.3} x"),
        "1.10 x",
        ratio / 1.10,
    );
    if !peers.is_empty() {
        println!(
            "     micro: exec round trip of the original: {:.3} x",
            median(peers).as_secs_f64() / least.as_secs_f64()
        );
    }
    let rss = ours.status("VmRSS");
    let peer = peer.map_or(ORIGINAL_RSS_KB, |peer| peer.status("VmRSS"));
    report(
        "micro: RSS after 2,000 execs",
        &format!("{rss} kB against {peer:.0} kB"),
        "0.1 x",
        rss / peer / 0.1,
    );
}

pub(crate) fn output() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines");
    let line = [vec![b'x'; 1023], b"\n".to_vec()].concat();
    std::fs::write(&file, line.repeat(100_000_000 / 1024)).unwrap();
    let params = |more: Value| {
        let mut params = json!({ "command": "cat", "args": [file.to_str().unwrap()] });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let mut streamer = Runner::start(dir.path(), &binary(), false);
    streamer.line();
    let mut rates = Vec::new();
    for _ in 0..5 {
        let (took, _) = streamer.call("exec", &params(json!({ "stream_lines": true })));
        rates.push(100.0 / took.as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let (rate, rss) = (rates[rates.len() / 2], streamer.status("VmHWM"));
    report("micro: 100 MB streamed, 1 KiB lines", &format!("{rate:.0} MB/s"), "150 MB/s", 150.0 / rate);
    report("micro: peak RSS of that", &format!("{rss} kB"), "4 MB", rss / 4000.0);
    let mut capturer = Runner::start(dir.path(), &binary(), false);
    capturer.line();
    let (took, bytes) = capturer.call("exec", &params(json!({ "capture_out": true })));
    let rss = capturer.status("VmHWM");
    let kept = format!("{rss} kB; {bytes} bytes kept, {took:.0?}");
    report("micro: peak RSS with 100 MB captured", &kept, "16 MB", rss / 16_000.0);
}

pub(crate) fn files() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..)
        .map(|n| format!("line {n} of a file, with \"quotes\"\n"))
        .scan(0, |length, line| {
            *length += line.len();
            (*length < 9_000_000).then_some(line)
        })
        .collect();
    std::fs::write(dir.path().join("read"), &text).unwrap();
    let time = |program: &Path| {
        let mut runner = Runner::start(dir.path(), program, false);
        runner.line();
        let write = json!({ "path": "written", "content": text, "create": true });
        let reads = (0..9).map(|_| runner.call("file.read", &json!({ "path": "read" })).0).collect();
        let writes = (0..9).map(|_| runner.call("file.write", &write).0).collect();
        (median(reads), median(writes))
    };
    let (read, write) = time(&binary());
    match original() {
        Some(program) => {
            let (their_read, their_write) = time(&program);
            for (what, ours, theirs, bound) in
                [("file.read", read, their_read, 0.25), ("file.write", write, their_write, 0.5)]
            {
                let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
                let text = format!("{ours:.1?} against {theirs:.1?}: {ratio:.2} x");
                report(&format!("micro: {what} of 9 MB"), &text, &format!("{bound} x"), ratio / bound);
            }
        }
        None => {
            println!("     micro: 9 MB: file.read {read:.1?}, file.write {write:.1?} (no original at hand)")
        }
    }
}
