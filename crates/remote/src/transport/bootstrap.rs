//! Puts the runner on a host through nothing but a shell and two streams.
//!
//! One line of POSIX sh finds a folder where programs may run, tells what the host is, takes
//! the binary from its standard input and becomes it. The line has no single quote, no
//! backslash, no `!` and no newline, so that whatever login shell the host has (sh, csh,
//! fish) passes it on unchanged between single quotes.

use legwork_base::digest::hex;
use legwork_base::ids;
use legwork_proto::micro::{FILE_PREFIX, FOLDER_PREFIX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Link;
use crate::{Binaries, Error};

/// Begins the line in which the host tells what it is.
const NEED: &str = "LEGWORK-NEED ";
/// A host's greeting (a profile that prints) may be so long.
const MAX_GREETING: usize = 256 * 1024;

/// How the runner is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It deletes itself at its end.
    Once,
    /// It stays for as long as the connection's process on the host.
    Connection,
}

/// Where the runner is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) digest: String,
}

/// The line for the host's shell. Flags are checked to be plain words; `room` is how many
/// bytes the largest binary has.
///
/// What is started has the host's own umask, and none of the line's variables: names that a
/// host may use itself would be changed in its environment.
pub(crate) fn line(token: &str, flags: &[String], stay: Stay, room: usize) -> String {
    let flags = flags.join(" ");
    let start = match stay {
        Stay::Once => format!("exec \"$lw_f\" --self-delete {flags}"),
        Stay::Connection => format!("exec \"$lw_f\" --stay $PPID {flags}"),
    };
    // The trap holds until the binary has taken over; as bash forgets it when that fails, the
    // binary is tried before.
    format!(
        "exec sh -c 'lw_u=$(umask); umask 077; lw_o=; \
         for lw_t in \"${{TMPDIR:-/tmp}}\" /var/tmp /dev/shm \"$HOME\"; do \
         lw_d=$lw_t/{FOLDER_PREFIX}{token}; lw_f=$lw_d/{FILE_PREFIX}; mkdir -m 700 \"$lw_d\" 2>/dev/null || continue; \
         : >\"$lw_f\" && chmod 700 \"$lw_f\" && \"$lw_f\" 2>/dev/null && \
         {{ [ -c /dev/zero ] || lw_o=1; [ \"$lw_o\" ] || head -c {room} /dev/zero >\"$lw_f\"; }} 2>/dev/null && \
         : >\"$lw_f\" && lw_o=1 && break; rm -rf \"$lw_d\"; done; \
         [ \"$lw_o\" ] || {{ echo \"no folder where programs may run and that has room: tried TMPDIR, /var/tmp, \
         /dev/shm and the home: is the disk full?\" >&2; exit 1; }}; \
         c() {{ rm -rf \"$lw_d\"; }}; trap c 0; trap \"exit 1\" 1 2 13 15; \
         echo \"{NEED}$(uname -sm) $lw_d\"; read lw_n || exit 1; \
         head -c \"$lw_n\" >\"$lw_f\" || {{ echo \"the runner did not fit into $lw_d: is the disk full?\" >&2; exit 1; }}; \
         umask \"$lw_u\"; \"$lw_f\" --version >/dev/null || exit 1; {start}'"
    )
}

/// The line that starts a runner that is there already: by the same shell as the first time,
/// for the same environment.
pub(crate) fn again(place: &Place, flags: &[String]) -> String {
    format!("exec sh -c 'exec {} --keep {}'", place.file, flags.join(" "))
}

/// A flag that no shell reads as anything else.
pub(crate) fn check_flags(flags: &[String]) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,=/:@+".contains(c);
    match flags.iter().find(|flag| flag.is_empty() || !flag.chars().all(plain)) {
        Some(flag) => Err(Error::Start(format!("{flag:?} can't be a flag of the runner"))),
        None => Ok(()),
    }
}

/// A name that nobody can guess.
pub(crate) fn token() -> Result<String, Error> {
    let bytes = ids::bytes::<10>().map_err(|error| Error::Start(error.to_string()))?;
    Ok(hex(bytes))
}

/// Answers the line's question with the binary for the host.
pub(crate) async fn upload(link: &mut Link, binaries: &Binaries) -> Result<Place, Error> {
    let need = read_need(link).await?;
    let mut words = need.splitn(3, ' ');
    let (Some(system), Some(processor), Some(folder)) = (words.next(), words.next(), words.next()) else {
        return Err(Error::Upload(format!("the host said {need:?}")));
    };
    let binary = binaries.find(system, processor)?;
    let bytes = binary.bytes()?;
    let header = format!("{}\n", bytes.len());
    let sent = async {
        link.stdin.write_all(header.as_bytes()).await?;
        link.stdin.write_all(bytes).await?;
        link.stdin.flush().await
    };
    if let Err(error) = sent.await {
        // The host knows better why it stopped listening.
        let why = link.last_words().await.unwrap_or_else(|| error.to_string());
        return Err(Error::Upload(format!("the connection broke: {why}")));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    // A folder with other characters can't be named in a line again; it serves once.
    let file = if folder.chars().all(plain) { format!("{folder}/{FILE_PREFIX}") } else { String::new() };
    Ok(Place { file, digest: binary.digest().to_owned() })
}

/// Reads to the line that tells what the host is; profiles may have printed before it.
async fn read_need(link: &mut Link) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 1024];
    loop {
        let start = if bytes.starts_with(NEED.as_bytes()) {
            Some(0)
        } else {
            find(&bytes, format!("\n{NEED}").as_bytes()).map(|at| at + 1)
        };
        if let Some(start) = start
            && let Some(end) = bytes[start..].iter().position(|b| *b == b'\n')
        {
            let line = String::from_utf8_lossy(&bytes[start + NEED.len()..start + end]).into_owned();
            return Ok(line.trim_end_matches('\r').to_owned());
        }
        if bytes.len() > MAX_GREETING {
            return Err(Error::Upload("the host's shell prints without end before our line runs".into()));
        }
        match link.stdout.read(&mut chunk).await {
            Ok(n @ 1..) => bytes.extend_from_slice(&chunk[..n]),
            _ => {
                let printed = String::from_utf8_lossy(&bytes).trim().to_owned();
                let why = link.last_words().await.unwrap_or(printed);
                let why = if why.is_empty() { "the connection ended".to_owned() } else { why };
                return Err(Error::Upload(why));
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_passes_every_login_shell() {
        for stay in [Stay::Once, Stay::Connection] {
            let line = line("0123", &["--ttl".into(), "60s".into()], stay, 500_000);
            let inner = line.strip_prefix("exec sh -c '").unwrap().strip_suffix('\'').unwrap();
            assert!(!inner.contains(['\'', '\\', '!', '\n']), "{inner}");
        }
    }

    #[test]
    fn flags_are_plain_words() {
        assert!(check_flags(&["--ttl".into(), "10m".into()]).is_ok());
        for flag in ["", "a b", "$(id)", "x;y", "'", "a\n"] {
            assert!(check_flags(&[flag.into()]).is_err(), "{flag:?}");
        }
    }
}
