//! The micro-runner: reads commands as JSON lines from standard input, answers each on
//! standard output, and deletes itself at the end (docs/protocols/micro.md).
//!
//! One thread and one `poll` serve the controller, the running command, signals and the
//! clock: see `port` and `process`. Commands run one after the other.

mod clock;
mod commands;
mod elevate;
pub mod fields;
mod idempotency;
mod ids;
pub mod input;
mod options;
mod os;
mod output;
mod port;
mod process;
mod request;
mod session;
mod signature;

use std::process::ExitCode;

/// The whole program.
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
