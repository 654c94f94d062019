//! The micro-runner: reads commands as JSON lines from standard input, answers each on
//! standard output, and deletes itself at the end (docs/protocols/micro.md).
//!
//! One thread and one `poll` serve the controller, the running command, signals and the
//! clock: see `port` and `process`. Commands run one after the other.

#![cfg_attr(not(unix), allow(dead_code, reason = "what knows no system is checked there, and not used yet"))]

mod clock;
pub mod fields;
pub mod input;
mod options;

#[cfg(unix)]
mod commands;
#[cfg(unix)]
mod elevate;
#[cfg(unix)]
mod idempotency;
#[cfg(unix)]
mod ids;
#[cfg(unix)]
mod os;
#[cfg(unix)]
mod output;
#[cfg(unix)]
mod port;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod request;
#[cfg(unix)]
mod session;
#[cfg(unix)]
mod signature;

use std::process::ExitCode;

/// The whole program.
#[cfg(unix)]
pub fn main() -> ExitCode {
    match options::Options::from_env() {
        Ok(options) => session::run(options),
        Err(options::Stop::Say(text)) => {
            output::say(&text);
            ExitCode::SUCCESS
        }
        Err(options::Stop::Hold(process)) => os::hold(process),
        Err(options::Stop::Usage(text)) => {
            output::complain(&text);
            ExitCode::from(2)
        }
    }
}

/// Where the border to the system is not done, a start fails as the protocol has it.
#[cfg(not(unix))]
#[expect(clippy::print_stdout, reason = "the one message")]
pub fn main() -> ExitCode {
    let system = std::env::consts::OS;
    println!(
        "{{\"type\":\"ERROR\",\"data\":{{\"code\":\"INIT_FAILED\",\"message\":\"the micro-runner does not \
         run on {system}\",\"retryable\":false}}}}"
    );
    ExitCode::FAILURE
}

/// For fuzzing: what a stranger's line does. It must return, and name a reason if it is bad.
#[cfg(unix)]
pub mod fuzzing {
    /// Reads a line as the runner does; the reason why it is no command.
    pub fn reason(line: &[u8]) -> Option<String> {
        crate::request::parse(line).err().map(|invalid| invalid.message)
    }
}
