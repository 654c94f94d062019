//! What is printed. All of the program prints this way: a reader that goes away (`| head`) ends
//! every command quietly, with the status of a process that SIGPIPE ended.
//!
//! The macros stand before the standard library's everywhere in this crate.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::exit;

/// How often is looked whether anybody reads.
const LOOK: Duration = Duration::from_millis(100);

/// Nobody reads standard output any more.
static GONE: AtomicBool = AtomicBool::new(false);

/// Prints a line to standard output.
macro_rules! println {
    () => { $crate::output::print(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints to standard output.
macro_rules! print {
    ($($arg:tt)*) => { $crate::output::print(format_args!($($arg)*)) };
}

/// Prints a line to standard error.
macro_rules! eprintln {
    () => { $crate::output::say(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::output::say(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints to standard error.
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::output::say(format_args!($($arg)*)) };
}

/// Prints to standard output; ends the program if that can't be done.
pub(crate) fn print(text: Arguments<'_>) {
    if let Err(error) = io::stdout().lock().write_fmt(text) {
        fail(&error);
    }
}

/// Prints to standard error. There is nobody to tell if that can't be done.
pub(crate) fn say(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Ends the program, as standard output takes nothing more.
fn fail(error: &io::Error) -> ! {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(i32::from(exit::PIPE));
    }
    say(format_args!("Error: failed to write to standard output: {error}\n"));
    std::process::exit(i32::from(exit::ERROR));
}

/// Passes bytes of a remote command on as they are, at once. False
/// when nobody reads any more: then [`reader_gone`] tells, too, and what goes on elsewhere can
/// be ended.
pub(crate) fn pass_on(is_stderr: bool, data: &[u8]) -> bool {
    if is_stderr {
        let _ = io::stderr().write_all(data);
        return true;
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(data).and_then(|()| out.flush());
    match written {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            GONE.store(true, Ordering::Relaxed);
            false
        }
        Err(error) => fail(&error),
    }
}

/// Waits until nobody reads standard output any more: also while nothing is written. For
/// commands that wait for something elsewhere, which is to be ended then; they exit with
/// [`exit::PIPE`].
pub(crate) async fn reader_gone() {
    while !is_gone() {
        tokio::time::sleep(LOOK).await;
    }
}

fn is_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    if GONE.load(Ordering::Relaxed) {
        return true;
    }
    let out = io::stdout();
    let mut fds = [PollFd::new(&out, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL)
}
