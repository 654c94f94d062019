//! Trying a new version of a program before it takes the old one's place.
//!
//! The old program, started anew in its own process so that it holds nothing, runs
//! the new one as a child. The two share a socket, the child's stdin: the child says
//! over it that it works, and notices by it when its parent is gone.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Tells a program that it is being tried.
const VARIABLE: &str = "LEGWORK_TRIAL";
const WORKS: u8 = b'W';
/// What a tried program may take to end after it has been asked to.
const END: Duration = Duration::from_secs(10);

/// Runs `program` with `args` until it says that it works, ends, or `patience` is
/// over; then ends it in the way that spares what it runs. Fails with the reason why
/// it does not work.
pub fn try_out(program: &Path, args: &[OsString], patience: Duration) -> Result<(), String> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| e.to_string())?;
    let mut child = Command::new(program)
        .args(args)
        .env(VARIABLE, "1")
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .map_err(|e| format!("it can't be started: {e}"))?;
    let result = wait_for_word(ours, patience);
    end(&mut child);
    result
}

fn wait_for_word(mut ours: UnixStream, patience: Duration) -> Result<(), String> {
    ours.set_read_timeout(Some(patience)).map_err(|e| e.to_string())?;
    let mut word = [0u8; 1];
    match ours.read(&mut word) {
        Ok(1) if word[0] == WORKS => Ok(()),
        Ok(_) => Err("it ended before it was connected".into()),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(format!("it was not connected within {} s", patience.as_secs()))
        }
        Err(e) => Err(e.to_string()),
    }
}

fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // It detaches: the commands it has started or adopted go on.
    let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::USR2));
    let start = Instant::now();
    while start.elapsed() < END {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Replaces this very process by a program. Returns only if that fails.
pub fn replace_by(program: &Path, args: &[OsString]) -> io::Error {
    Command::new(program).args(args).env_remove(VARIABLE).exec()
}

/// What a program prints, within a few seconds.
pub fn output_of(program: &Path, args: &[&str]) -> io::Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let start = Instant::now();
    while start.elapsed() < END {
        if let Some(status) = child.try_wait()? {
            let mut text = String::new();
            if let Some(stdout) = child.stdout.take() {
                stdout.take(64 * 1024).read_to_string(&mut text)?;
            }
            return if status.success() {
                Ok(text)
            } else {
                Err(io::Error::other(format!("it ended with {status}")))
            };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(io::Error::other(format!("it did not end within {} s", END.as_secs())))
}

/// The one who tries this program.
#[derive(Debug)]
pub struct Trier(tokio::net::UnixStream);

impl Trier {
    /// If this program is being tried.
    pub fn find() -> Option<Self> {
        std::env::var_os(VARIABLE)?;
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
        socket.set_nonblocking(true).ok()?;
        tokio::net::UnixStream::from_std(socket).ok().map(Self)
    }

    /// Says that the program works.
    pub async fn works(&mut self) {
        let _ = self.0.write_all(&[WORKS]).await;
    }

    /// Waits until nobody tries it any more.
    pub async fn gone(&mut self) {
        let mut byte = [0u8; 1];
        while self.0.read(&mut byte).await.is_ok_and(|len| len > 0) {}
    }
}
