//! Flags and their equivalents in the environment (§10). All are optional; without any,
//! the runner behaves as the original.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use legwork_proto::micro::{CommandType, DEFAULT_TTL_S};

const USAGE: &str = "\
legwork-micro: carries out JSON commands from standard input, then deletes itself

Usage: legwork-micro [OPTIONS]

Options:
      --ttl DURATION     Life of the process [default: 10m] [env: LEGWORK_MICRO_TTL]
      --self-delete      Delete the program at the end [default: if its name starts
                         with `micro-runner`]
      --keep             Never delete it [env: LEGWORK_MICRO_KEEP=1]
      --verify-key FILE  Take only commands signed by this Ed25519 key (base64, hex,
                         PEM or OpenSSH) [env: LEGWORK_MICRO_VERIFY_KEY]
      --allow TYPE,...   Take only these command types [env: LEGWORK_MICRO_ALLOW]
      --stay PID         Leave the program until process PID is gone
      --hold PID         Take no commands: wait until process PID is gone, then
                         delete the program and its folder
  -V, --version          Print the version
  -h, --help             Print this help

It is started by a controller: `legwork ssh`, or the library legwork-remote.
";

/// What the runner was told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) ttl: Duration,
    /// None: by the name of the program.
    pub(crate) self_delete: Option<bool>,
    pub(crate) verify_key: Option<PathBuf>,
    pub(crate) allowed: Vec<CommandType>,
    /// Keep the program until this process is gone.
    pub(crate) stay: Option<u32>,
    /// Carries out one command for an unprivileged runner, and answers only it.
    pub(crate) elevated: bool,
}

/// Why there is nothing to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Say(String),
    Usage(String),
    Hold(u32),
}

impl Options {
    pub(crate) fn from_env() -> Result<Self, Stop> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        // sudo asks us for the password.
        #[cfg(unix)]
        if let Some(file) = variable(crate::elevate::ASKPASS) {
            return Err(Stop::Say(std::fs::read_to_string(file).unwrap_or_default()));
        }
        Self::parse(std::env::args_os().skip(1), &variable)
    }

    fn parse(
        mut args: impl Iterator<Item = OsString>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Stop> {
        let mut options = Self {
            ttl: Duration::from_secs(DEFAULT_TTL_S),
            self_delete: None,
            verify_key: variable("LEGWORK_MICRO_VERIFY_KEY").map(PathBuf::from),
            allowed: CommandType::ALL.to_vec(),
            stay: None,
            elevated: false,
        };
        if let Some(text) = variable("LEGWORK_MICRO_TTL") {
            options.ttl = ttl(&text)?;
        }
        if let Some(text) = variable("LEGWORK_MICRO_ALLOW") {
            options.allowed = types(&text)?;
        }
        if variable("LEGWORK_MICRO_KEEP").is_some_and(|value| value != "0" && value != "false") {
            options.self_delete = Some(false);
        }
        while let Some(arg) = args.next() {
            let text = arg.to_string_lossy().into_owned();
            let (name, inline) = match text.split_once('=') {
                Some((name, value)) if name.starts_with("--") => {
                    (name.to_owned(), Some(OsString::from(value)))
                }
                _ => (text, None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| args.next())
                    .ok_or_else(|| Stop::Usage(format!("{name} needs a value")))
            };
            match name.as_str() {
                "--ttl" => options.ttl = ttl(&value()?)?,
                "--self-delete" => options.self_delete = Some(true),
                "--keep" => options.self_delete = Some(false),
                "--verify-key" => options.verify_key = Some(value()?.into()),
                "--allow" => options.allowed = types(&value()?)?,
                "--elevated" => options.elevated = true,
                "--stay" => {
                    options.stay = Some(process("--stay", &value()?)?);
                    options.self_delete = Some(false);
                }
                "--hold" => return Err(process("--hold", &value()?).map_or_else(|stop| stop, Stop::Hold)),
                "-V" | "--version" => {
                    return Err(Stop::Say(format!("legwork-micro {}\n", env!("CARGO_PKG_VERSION"))));
                }
                "-h" | "--help" => return Err(Stop::Say(USAGE.to_owned())),
                // The original ignores its arguments, and so its controllers may give some.
                _ => {}
            }
        }
        Ok(options)
    }
}

fn bad(name: &str, value: &OsString, expected: &str) -> Stop {
    Stop::Usage(format!("{name}: {value:?} is not {expected}; see --help"))
}

fn process(name: &str, text: &OsString) -> Result<u32, Stop> {
    let process = text.to_str().and_then(|text| text.parse().ok()).filter(|pid| *pid > 1);
    process.ok_or_else(|| bad(name, text, "a process id"))
}

fn ttl(text: &OsString) -> Result<Duration, Stop> {
    let parsed = text.to_str().and_then(go_seconds).filter(|seconds| (1..=86_400 * 365).contains(seconds));
    parsed.map(Duration::from_secs).ok_or_else(|| bad("--ttl", text, "a duration such as 10m, 1h30m or 90s"))
}

/// Seconds of a duration in Go's form, in whole hours, minutes and seconds.
fn go_seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest[digits..].bytes().next()? {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    Some(total)
}

fn types(text: &OsString) -> Result<Vec<CommandType>, Stop> {
    let expected = "a list of command types, such as exec,file.read";
    let names = text.to_str().ok_or_else(|| bad("--allow", text, expected))?;
    let parse = |name: &str| CommandType::parse(name.trim()).ok_or_else(|| bad("--allow", text, expected));
    names.split(',').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str], variables: &[(&str, &str)]) -> Result<Options, Stop> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        Options::parse(args.iter().map(OsString::from), &variable)
    }

    #[test]
    fn defaults_are_the_originals() {
        let options = parse(&["whatever", "-x"], &[]).unwrap();
        assert_eq!(options.ttl, Duration::from_secs(600));
        assert_eq!(options.allowed.len(), 7);
        assert_eq!(options.self_delete, None);
    }

    #[test]
    fn flags_win_over_the_environment() {
        let variables =
            [("LEGWORK_MICRO_TTL", "2s"), ("LEGWORK_MICRO_ALLOW", "exec"), ("LEGWORK_MICRO_KEEP", "1")];
        let options = parse(&[], &variables).unwrap();
        assert_eq!((options.ttl, options.self_delete), (Duration::from_secs(2), Some(false)));
        assert_eq!(options.allowed, [CommandType::Exec]);
        let options =
            parse(&["--ttl=1h1m1s", "--allow", "file.read, exec", "--self-delete"], &variables).unwrap();
        assert_eq!((options.ttl, options.self_delete), (Duration::from_secs(3661), Some(true)));
        assert_eq!(options.allowed, [CommandType::FileRead, CommandType::Exec]);
    }

    #[test]
    fn mistakes_are_said() {
        for args in [
            &["--ttl"][..],
            &["--ttl", "soon"],
            &["--ttl", "0s"],
            &["--ttl", "99999999999999999999h"],
            &["--ttl", "5"],
            &["--allow", "exec,fly"],
            &["--hold", "1"],
            &["--hold", "x"],
            &["--stay", "0"],
        ] {
            assert!(matches!(parse(args, &[]), Err(Stop::Usage(_))), "{args:?}");
        }
        assert_eq!(parse(&["--hold", "77"], &[]), Err(Stop::Hold(77)));
    }
}
