//! Keeps the program on the host for as long as the controller's connection lives.
//!
//! The connection's process (sshd's) is a sibling, not a parent: the kernel tells of its
//! end by a descriptor of the process, or, before Linux 5.3 and elsewhere, we ask.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::Signals;
use crate::port::wait;
use crate::session::is_disposable;

/// Pause between two looks, where the kernel doesn't tell.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until a process is gone or we are told to end; then deletes the program and its
/// folder, if nothing else is in that.
pub(crate) fn hold(process: u32) -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return ExitCode::FAILURE };
    if !is_disposable(&program) {
        return ExitCode::FAILURE;
    }
    // The folder must stay removable, and the terminal's signals are not for us.
    let _ = std::env::set_current_dir("/");
    let _ = rustix::process::setsid();
    let (Ok(mut signals), Some(pid)) =
        (Signals::install(), i32::try_from(process).ok().and_then(Pid::from_raw))
    else {
        return ExitCode::FAILURE;
    };
    #[cfg(target_os = "linux")]
    let descriptor = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
    #[cfg(not(target_os = "linux"))]
    let descriptor: Option<std::os::fd::OwnedFd> = None;
    let gone = || matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH));
    while signals.terminated().is_none() && !gone() {
        let until = descriptor.is_none().then(|| Instant::now() + LOOK);
        let ended = match &descriptor {
            Some(descriptor) => wait(&[&signals.fd(), descriptor], until),
            None => wait(&[&signals.fd()], until),
        };
        signals.drain();
        if ended.get(1).copied().unwrap_or(false) {
            break;
        }
    }
    let _ = std::fs::remove_file(&program);
    if let Some(folder) = program.parent() {
        let _ = std::fs::remove_dir(folder);
    }
    ExitCode::SUCCESS
}
