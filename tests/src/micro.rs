//! Micro-runners: the static binary of `make micro`, spoken to line by line; and hosts for
//! them, made of namespaces, where they may change `/etc`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::DEADLINE;

/// What `make micro` built for this machine: LEGWORK_MICRO_BIN, else the one in `dist`.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LEGWORK_MICRO_BIN") {
        return path.into();
    }
    let path = dist().join("legwork-micro");
    assert!(path.is_file(), "the micro-runner is not built: run `make micro` first");
    path
}

/// Where `make micro` puts the binaries.
pub fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("dist")
}

/// A host of its own: mounts, network and processes. `/etc/ssh`, `/etc/sudoers.d`, `/tmp` and
/// `/run` are copies or empty; its processes end with it. `doubles` comes first in PATH.
pub fn host(doubles: &Path, prepare: &str) -> Command {
    host_with(&binary(), doubles, prepare)
}

/// The same for another runner.
pub fn host_with(program: &Path, doubles: &Path, prepare: &str) -> Command {
    let script = format!(
        "set -e\n\
         mount -t tmpfs tmpfs /run\n\
         mkdir -p /run/sshd /run/h\n\
         cp '{binary}' /run/h/binary; cp -a '{doubles}' /run/h/doubles; cp -a /etc/ssh /run/h/ssh 2>/dev/null || :\n\
         mkdir -m 755 /run/h/sudoers.d\n\
         mount --bind /run/h/ssh /etc/ssh; mount --bind /run/h/sudoers.d /etc/sudoers.d\n\
         mount -t tmpfs -o mode=1777 tmpfs /tmp\n\
         install -m 755 /run/h/binary /tmp/micro-runner\n\
         ip link set lo up\n\
         export PATH=/run/h/doubles:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         cd /\n\
         {prepare}\n\
         exec \"$@\"",
        binary = program.display(),
        doubles = doubles.display(),
    );
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    ]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-c", &script, "sh"]).kill_on_drop(true);
    command
}

/// A micro-runner that is running.
pub struct Micro {
    pub child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    next: u64,
}

impl Micro {
    /// Copies the binary to a folder, under a name that it deletes, and starts it there.
    pub async fn start(dir: &Path, args: &[&str]) -> Self {
        let program = dir.join("micro-runner");
        std::fs::copy(binary(), &program).unwrap();
        let mut command = Command::new(&program);
        command.args(args).current_dir(dir).kill_on_drop(true);
        Self::from_command(command).await
    }

    /// Starts it by a command of another kind.
    pub async fn from_command(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Self { child, stdin, stdout, next: 0 }
    }

    /// Starts it, and reads its greeting.
    pub async fn ready(dir: &Path, args: &[&str]) -> Self {
        let mut micro = Self::start(dir, args).await;
        assert_eq!(micro.message().await["type"], "READY");
        micro
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).await.unwrap();
        stdin.flush().await.unwrap();
    }

    /// The next line, as it came; `None` at the end.
    pub async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = self.stdout.as_mut().unwrap().read_until(b'\n', &mut line);
        tokio::time::timeout(DEADLINE, read).await.expect("the runner says nothing").unwrap();
        assert!(line.len() < 10 * 1024 * 1024, "a line of {} bytes", line.len());
        (!line.is_empty()).then(|| String::from_utf8(line).expect("a line is UTF-8"))
    }

    /// The next message.
    pub async fn message(&mut self) -> Value {
        let line = self.line().await.expect("the runner has ended");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Sends a command without waiting; its id.
    pub async fn send(&mut self, kind: &str, timeout: u64, params: Value) -> String {
        self.next += 1;
        let id = format!("t{}", self.next);
        let data = json!({ "id": id, "type": kind, "timeout": timeout, "params": params });
        self.write(format!("{}\n", json!({ "type": "CMD", "data": data })).as_bytes()).await;
        id
    }

    /// Sends a command and reads to its answer: the events, and the answer.
    pub async fn call(&mut self, kind: &str, timeout: u64, params: Value) -> (Vec<Value>, Value) {
        let id = self.send(kind, timeout, params).await;
        let mut events = Vec::new();
        loop {
            let message = self.message().await;
            assert_eq!(message["data"]["command_id"], id.as_str(), "{message}");
            match message["type"].as_str().unwrap() {
                "EVENT" => events.push(message),
                _ => return (events, message),
            }
        }
    }

    /// The result of a command that must be DONE.
    pub async fn done(&mut self, kind: &str, params: Value) -> Value {
        let (_, answer) = self.call(kind, 30, params).await;
        assert_eq!(answer["type"], "DONE", "{answer}");
        answer["data"]["result"].clone()
    }

    /// The error of a command that must fail.
    pub async fn error(&mut self, kind: &str, params: Value) -> Value {
        let (_, answer) = self.call(kind, 30, params).await;
        assert_eq!(answer["type"], "ERROR", "{answer}");
        answer["data"].clone()
    }

    /// Both streams, for who wants to write and read at once.
    pub fn streams(&mut self) -> (ChildStdin, BufReader<ChildStdout>) {
        (self.stdin.take().unwrap(), self.stdout.take().unwrap())
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Closes its input: its EXIT and its status.
    pub async fn exit(mut self) -> (Value, i32) {
        self.close_stdin();
        self.ended().await
    }

    /// Its EXIT and its status, once it ends.
    pub async fn ended(&mut self) -> (Value, i32) {
        let mut last = Value::Null;
        while let Some(line) = self.line().await {
            last = serde_json::from_str(&line).unwrap();
        }
        (last["data"].clone(), self.status().await)
    }

    pub async fn status(&mut self) -> i32 {
        let status =
            tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("it does not end").unwrap();
        status.code().unwrap_or(-1)
    }
}

/// Whether a process is there and is no zombie.
pub fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// Waits until a process is gone.
pub async fn until_gone(pid: &str) {
    let start = std::time::Instant::now();
    while is_alive(pid) {
        assert!(start.elapsed() < DEADLINE, "{pid} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A host on which systemd has booted, in namespaces and on an overlay of this machine's files.
pub struct Booted {
    _host: Child,
    init: String,
}

impl Booted {
    /// Boots it, to its basic target; `None`, said aloud, where that can't be done. Everything
    /// that `prepare` changes below its folder is in the host only.
    pub async fn boot(dir: &Path, prepare: &str) -> Option<Self> {
        let script = format!(
            "set -e\n\
             mount -t tmpfs tmpfs /run; mkdir -p /run/upper /run/work /run/root\n\
             mount -t overlay overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work /run/root\n\
             cp '{binary}' /run/root/micro-runner; ip link set lo up; cd /run/root\n\
             mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev\n\
             mount -t tmpfs tmpfs run; mount -t tmpfs -o mode=1777 tmpfs tmp\n\
             {prepare}\n\
             exec env -i container=legwork PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . \
             /lib/systemd/systemd --system --unit=basic.target --log-target=console",
            binary = binary().display(),
        );
        let log = std::fs::File::create(dir.join("boot.log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child"]);
        command.args(["--propagation", "private", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
        let mut host = command.spawn().unwrap();
        let outer = host.id().unwrap();
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if host.try_wait().unwrap().is_some() {
                break;
            }
            let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
            let init = children.unwrap_or_default().trim().to_owned();
            let comm = std::fs::read_to_string(format!("/proc/{init}/comm")).unwrap_or_default();
            if comm.trim() != "systemd" {
                continue;
            }
            let booted = Self { _host: host, init };
            let state = booted.command(&["systemctl", "is-active", "basic.target"]).output().await.unwrap();
            if state.stdout.starts_with(b"active") {
                return Some(booted);
            }
            host = booted._host;
        }
        let log = std::fs::read_to_string(dir.join("boot.log")).unwrap_or_default();
        eprintln!("NOT CHECKED HERE: systemd does not boot in namespaces of this machine: {log}");
        None
    }

    /// A command on the host.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init, "-m", "-p", "-n", "-i", "-u", "-r", "-w"]).args(words);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").kill_on_drop(true);
        command
    }
}
