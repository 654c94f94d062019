//! Exit statuses, as the table of docs/hub.md has them. A remote command's own status passes
//! through.

/// Something went wrong; the message says what.
pub(crate) const ERROR: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// `policy check`: denied.
pub(crate) const DENY: u8 = 1;
/// `policy check`: the config can't be used.
pub(crate) const CONFIG: u8 = 2;
/// `policy check`: a person would be asked.
pub(crate) const ASK: u8 = 3;
/// `serve`: a setting can't be used.
pub(crate) const SETTING: u8 = 2;
/// `exec`: a command timed out.
pub(crate) const TIMED_OUT: u8 = 124;
/// `exec`: a command could not be run, or its end is unknown.
pub(crate) const NOT_RUN: u8 = 125;
/// `exec`: the runner's policy denied the command.
pub(crate) const DENIED: u8 = 126;
/// `exec`: it failed itself (the hub, the token, the command line), as ssh says it.
pub(crate) const OWN: u8 = 255;
/// `ssh`: the host was not reached, as ssh itself says it.
pub(crate) const UNREACHABLE: u8 = 255;
/// Interrupted by Ctrl-C, as a shell says it: 128 and the signal's number.
pub(crate) const INTERRUPTED: u8 = 130;
/// Nobody reads what is printed: as if SIGPIPE had ended us.
pub(crate) const PIPE: u8 = 141;
