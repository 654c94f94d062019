//! Real commands under real supervisors.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use legwork_process::{
    Adoption, Cursor, EndedBy, Io, Limits, Progress, Running, Size, Spawner, Spec, State, Status, Stream,
    adopt, status,
};

struct Bench {
    spawner: Spawner,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let spawner = Spawner::start(Path::new(env!("CARGO_BIN_EXE_supervisors"))).unwrap();
        Self { spawner, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("task")
    }

    fn start(&self, line: &str, limits: Limits) -> Running {
        self.start_spec(&spec(line, limits))
    }

    fn start_spec(&self, spec: &Spec) -> Running {
        let cwd = File::open(self.dir.path()).unwrap();
        self.spawner.spawn(&self.file(), cwd.as_fd(), spec).unwrap()
    }

    /// Output of both streams so far.
    fn output(&self) -> (String, String) {
        let mut cursor = Cursor::open(&self.file(), 0, 0).unwrap();
        let mut out = (Vec::new(), Vec::new());
        while let Some(chunk) = cursor.next(1 << 20).unwrap() {
            if chunk.stream == Stream::Stdout { &mut out.0 } else { &mut out.1 }.extend(chunk.data);
        }
        (String::from_utf8(out.0).unwrap(), String::from_utf8(out.1).unwrap())
    }
}

fn spec(line: &str, limits: Limits) -> Spec {
    Spec {
        argv: ["/bin/bash", "--noprofile", "--norc", "-c", line].map(String::from).to_vec(),
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        limits,
        ..Spec::default()
    }
}

async fn end(running: &Running) -> Status {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !matches!(running.progress().await, Progress::Ended) {}
    })
    .await
    .expect("the command ends");
    status(running.path()).unwrap()
}

/// Processes whose command line holds `mark`.
fn alive(mark: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|e| {
            std::fs::read(e.path().join("cmdline")).is_ok_and(|c| String::from_utf8_lossy(&c).contains(mark))
        })
        .count()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn output_and_exit_status_are_kept_apart_and_whole() {
    let bench = Bench::new();
    let running = bench.start("echo out; echo err >&2; pwd; exit 7", Limits::default());
    let status = end(&running).await;
    assert_eq!((status.state, status.exit_code, status.signal), (State::Ended, Some(7), None));
    let root = bench.dir.path().canonicalize().unwrap();
    assert_eq!(bench.output(), (format!("out\n{}\n", root.display()), "err\n".into()));
    assert_eq!(status.stderr_bytes, 4);
}

#[tokio::test]
async fn the_environment_is_exactly_what_was_given() {
    let bench = Bench::new();
    let mut spec = spec("", Limits::default());
    spec.argv = vec!["/usr/bin/env".into()];
    spec.env.insert("GIVEN".into(), "a b".into());
    end(&bench.start_spec(&spec)).await;
    let mut lines: Vec<String> = bench.output().0.lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["GIVEN=a b", "PATH=/usr/bin:/bin"]);
}

#[tokio::test]
async fn no_descriptor_leaks_into_a_command() {
    let bench = Bench::new();
    let mut spec = spec("", Limits::default());
    spec.argv = vec!["/bin/ls".into(), "/proc/self/fd".into()];
    end(&bench.start_spec(&spec)).await;
    // 3 is ls's own, of the folder it lists.
    assert_eq!(bench.output().0, "0\n1\n2\n3\n");
}

#[tokio::test]
async fn a_signal_death_is_told_as_such() {
    let bench = Bench::new();
    let status = end(&bench.start("kill -9 $$", Limits::default())).await;
    assert_eq!((status.exit_code, status.signal, status.ended_by), (None, Some(9), None));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_and_not_an_exit() {
    let bench = Bench::new();
    let mut spec = spec("", Limits::default());
    spec.argv = vec!["/nonexistent/program".into()];
    let status = end(&bench.start_spec(&spec)).await;
    assert_eq!(status.state, State::Failed);
    assert!(status.error.unwrap().contains("No such file"));
}

#[tokio::test]
async fn a_timeout_ends_the_whole_tree_with_what_left_the_session() {
    let bench = Bench::new();
    let line = "echo before; trap '' TERM; setsid bash -c 'trap \"\" TERM; sleep 3171 & sleep 3171' & \
                (setsid sleep 3171 &) ; sleep 3171";
    let limits = Limits {
        timeout: Some(Duration::from_millis(300)),
        grace: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = bench.start(line, limits);
    until("the tree is up", || alive("sleep\x003171") >= 4).await;
    let status = end(&running).await;
    assert_eq!(status.ended_by, Some(EndedBy::Timeout));
    assert_eq!(bench.output().0, "before\n");
    until("the tree is gone", || alive("sleep\x003171") == 0).await;
}

#[tokio::test]
async fn a_fork_bomb_is_ended() {
    let bench = Bench::new();
    let limits = Limits { grace: Duration::from_millis(100), ..Limits::default() };
    let line = "trap '' TERM; f() { sleep 3172 & sleep 0.02; [ $1 -gt 40 ] || { f $(($1+1)) & f $(($1+1)); }; }; f 38; wait";
    let running = bench.start(line, limits);
    until("it multiplies", || alive("3172") > 3).await;
    running.cancel();
    end(&running).await;
    until("all are gone", || alive("sleep\x003172") == 0).await;
}

#[tokio::test]
async fn a_cancel_gives_the_command_time_to_clean_up() {
    let bench = Bench::new();
    let running =
        bench.start("trap 'echo cleaned; exit 3' TERM; echo up; sleep 60 & wait", Limits::default());
    until("it is up", || bench.output().0 == "up\n").await;
    running.cancel();
    let status = end(&running).await;
    assert_eq!((status.ended_by, status.exit_code), (Some(EndedBy::Cancel), Some(3)));
    assert_eq!(bench.output().0, "up\ncleaned\n");
}

#[tokio::test]
async fn background_processes_live_on_and_their_pipes_are_abandoned() {
    let bench = Bench::new();
    let start = Instant::now();
    let limits = Limits { drain: Duration::from_millis(300), ..Limits::default() };
    let running = bench.start("sleep 3173 & echo done", limits);
    let status = end(&running).await;
    assert_eq!((status.exit_code, status.ended_by), (Some(0), None));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(bench.output().0, "done\n");
    assert_eq!(alive("sleep\x003173"), 1);
    let pid = std::process::Command::new("pkill").args(["-f", "^sleep 3173"]).status().unwrap();
    assert!(pid.success());
}

#[tokio::test]
async fn output_beyond_the_limit_is_counted_and_the_command_goes_on() {
    let bench = Bench::new();
    let limits = Limits { output_bytes: 100_000, ..Limits::default() };
    let running = bench.start("head -c 300000 /dev/zero | tr '\\0' x; echo end >&2", limits);
    let status = end(&running).await;
    assert_eq!((status.exit_code, status.stdout_bytes), (Some(0), 300_000));
    assert_eq!(status.dropped_bytes, 200_000);
    assert_eq!(bench.output(), ("x".repeat(100_000), "end\n".into()));
}

#[tokio::test]
async fn a_command_outlives_its_runner_and_is_adopted_again() {
    let bench = Bench::new();
    let running = bench.start("echo one; sleep 1; echo two; exit 5", Limits::default());
    until("it is up", || bench.output().0 == "one\n").await;
    let file = bench.file();
    drop(running);
    let Adoption::Running(again) = adopt(&file) else { panic!("it runs") };
    assert_eq!(end(&again).await.exit_code, Some(5));
    assert_eq!(bench.output().0, "one\ntwo\n");
    let Adoption::Ended(status) = adopt(&file) else { panic!("it ended") };
    assert_eq!(status.exit_code, Some(5));
}

#[tokio::test]
async fn the_death_of_the_helper_is_not_noticed() {
    let bench = Bench::new();
    let running = bench.start("sleep 0.5; echo alive", Limits::default());
    until("it is up", || status(running.path()).is_ok()).await;
    let helper = bench.spawner.helper_id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-9", &helper]).status().unwrap().success());
    assert_eq!(end(&running).await.exit_code, Some(0));
    assert_eq!(bench.output().0, "alive\n");
    // And the next command gets a new helper.
    let cwd = File::open(bench.dir.path()).unwrap();
    let second = bench.dir.path().join("second");
    let running = bench.spawner.spawn(&second, cwd.as_fd(), &spec("exit 4", Limits::default())).unwrap();
    assert_eq!(end(&running).await.exit_code, Some(4));
}

#[tokio::test]
async fn the_death_of_a_supervisor_makes_its_command_lost() {
    let bench = Bench::new();
    let running = bench.start("echo $PPID; sleep 3174", Limits::default());
    until("it is up", || bench.output().0.ends_with('\n')).await;
    let supervisor = bench.output().0.trim().to_owned();
    std::process::Command::new("kill").args(["-9", &supervisor]).status().unwrap();
    while !matches!(running.progress().await, Progress::Ended) {}
    let Adoption::Lost(reason) = adopt(&bench.file()) else { panic!("it is lost") };
    assert_eq!(reason, "its supervisor was killed");
    std::process::Command::new("pkill").args(["-f", "^sleep 3174"]).status().unwrap();
}

/// Changes the report in a command's file.
fn forge(path: &Path, report: &[u8]) {
    use std::os::unix::fs::FileExt;
    let mut bytes = report.to_vec();
    bytes.resize(4096, if report.is_empty() { 0 } else { b' ' });
    File::options().write(true).open(path).unwrap().write_all_at(&bytes, 0).unwrap();
}

#[tokio::test]
async fn a_command_that_never_started_is_taken_back_once() {
    let bench = Bench::new();
    end(&bench.start("true", Limits::default())).await;
    forge(&bench.file(), b"");
    assert!(matches!(adopt(&bench.file()), Adoption::NeverStarted));
    assert!(matches!(adopt(&bench.file()), Adoption::Ended(_)));
}

#[tokio::test]
async fn a_command_of_an_earlier_boot_is_lost() {
    let bench = Bench::new();
    let mut status = end(&bench.start("true", Limits::default())).await;
    status.state = State::Running;
    status.boot_id = "an-earlier-boot".into();
    forge(&bench.file(), &serde_json::to_vec(&status).unwrap());
    let Adoption::Lost(reason) = adopt(&bench.file()) else { panic!("it is lost") };
    assert_eq!(reason, "the machine was restarted while it ran");
}

#[tokio::test]
async fn a_terminal_has_a_size_takes_input_and_hears_ctrl_c() {
    let bench = Bench::new();
    let mut spec = spec("", Limits::default());
    spec.argv = vec!["/bin/bash".into(), "--noprofile".into(), "--norc".into(), "-i".into()];
    spec.io = Io::Terminal(Size { cols: 91, rows: 31 });
    let running = bench.start_spec(&spec);
    running.input(b"stty size; tty\n");
    until("it answers", || bench.output().0.contains("31 91") && bench.output().0.contains("/dev/pts/"))
        .await;
    running.resize(Size { cols: 50, rows: 20 });
    running.input(b"stty size\n");
    until("it is resized", || bench.output().0.contains("20 50")).await;
    running.input(b"sleep 3175\n");
    until("it sleeps", || alive("sleep\x003175") == 1).await;
    running.input(b"\x03");
    until("it is interrupted", || alive("sleep\x003175") == 0).await;
    running.input(b"exit 6\n");
    assert_eq!(end(&running).await.exit_code, Some(6));
}

#[tokio::test]
async fn a_piped_command_talks_to_us_and_ends_with_us_whole() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let bench = Bench::new();
    let cwd = File::open(bench.dir.path()).unwrap();
    let grace = Limits { grace: Duration::from_millis(300), ..Limits::default() };
    // It answers, ignores the end of its stdin, and leaves a process of its own session.
    let line = "(setsid sleep 4711.5 &) ; read x; echo got $x; trap '' TERM; sleep 4711.5";
    let piped = bench.spawner.spawn_piped(&bench.file(), cwd.as_fd(), spec(line, grace)).unwrap();
    let legwork_process::Piped { running, mut stdin, mut stdout } = piped;
    stdin.write_all(b"hello\n").await.unwrap();
    let mut answer = [0; 10];
    stdout.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"got hello\n");
    until("both sleeps run", || alive("sleep\x004711.5") >= 2).await;
    drop((running, stdin, stdout));
    until("all of it is gone", || alive("4711.5") == 0).await;
}
