//! What the line's own shell opens for writing, where the reading could not tell the file.

use std::path::{Path, PathBuf};

use super::denied::Denial;
use super::judge::Refusal;
use super::read;
use super::target::{self, Base, Root};
use crate::sys::Notice;

/// An opening for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening {
    thread: u32,
    base: Base,
    path: u64,
    flags: i32,
}

/// Whether a call opens a file, and so is none that executes.
pub(super) fn opens(notice: &Notice) -> bool {
    #[cfg(target_arch = "x86_64")]
    if [libc::SYS_open, libc::SYS_creat].contains(&notice.number) {
        return true;
    }
    [libc::SYS_openat, libc::SYS_openat2].contains(&notice.number)
}

impl Opening {
    /// `None` for a call that no shell makes.
    fn of(notice: &Notice) -> Option<Self> {
        let thread = notice.thread;
        let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default().cast_signed();
        let [a, b, c, ..] = notice.args;
        if notice.number == libc::SYS_openat {
            let base = if low(a) == libc::AT_FDCWD { Base::Cwd } else { Base::Fd(low(a)) };
            return Some(Self { thread, base, path: b, flags: low(c) });
        }
        #[cfg(target_arch = "x86_64")]
        if notice.number == libc::SYS_open {
            return Some(Self { thread, base: Base::Cwd, path: a, flags: low(b) });
        }
        #[cfg(target_arch = "x86_64")]
        if notice.number == libc::SYS_creat {
            let flags = libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY;
            return Some(Self { thread, base: Base::Cwd, path: a, flags });
        }
        None
    }

    /// Where the shell keeps a here-document: a file that is not there yet, and that nobody
    /// is told of.
    fn is_here_document(&self, path: &Path) -> bool {
        let exclusive = libc::O_CREAT | libc::O_EXCL;
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        self.flags & exclusive == exclusive && name.starts_with("sh-thd")
    }
}

/// The real path of what the shell would open for writing; `None` if it is no file with a
/// path: a pipe, a terminal.
pub(super) fn file(notice: &Notice, own: Option<Root>) -> Result<Option<PathBuf>, Refusal> {
    let refused = |reason: &str| Refusal::Denied(Box::new(Denial::always("> ?", reason)));
    let Some(opening) = Opening::of(notice) else {
        return Err(refused("the shell does not open files by this call"));
    };
    let text = read::path(opening.thread, opening.path).map_err(|e| refused(e.reason()))?;
    let called = String::from_utf8_lossy(&text).into_owned();
    if let Some(fd) = descriptor(&called) {
        // Opened anew by its descriptor: what was open for reading would be open for writing.
        let link = std::fs::read_link(format!("/proc/{}/fd/{fd}", opening.thread)).ok();
        return Ok(link.filter(|link| link.is_absolute()));
    }
    let creates = opening.flags & libc::O_CREAT != 0;
    let found = target::file_to_write(opening.thread, opening.base, &text, own, creates);
    match found {
        Ok(path) if opening.is_here_document(&path) => Ok(None),
        Ok(path) => Ok(Some(path)),
        Err(Some(errno)) => Err(Refusal::Silent(errno.raw_os_error())),
        Err(None) => {
            let reason = "where its path leads can't be told";
            Err(Refusal::Denied(Box::new(Denial::always(&format!("> {called}"), reason))))
        }
    }
}

/// The descriptor that a path stands for.
fn descriptor(path: &str) -> Option<u32> {
    let number = ["/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"];
    match path {
        "/dev/stdin" => Some(0),
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        _ => number.iter().find_map(|head| path.strip_prefix(head)?.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_known_by_their_paths() {
        assert_eq!(descriptor("/dev/stderr"), Some(2));
        assert_eq!(descriptor("/dev/fd/63"), Some(63));
        assert_eq!(descriptor("/proc/self/fd/7"), Some(7));
        assert_eq!(descriptor("/dev/fd/../sda"), None);
        assert_eq!(descriptor("/dev/null"), None);
    }

    #[test]
    fn what_does_not_exist_yet_has_the_path_that_it_would_get() {
        let dir = tempfile::tempdir().expect("tempdir");
        let real = dir.path().canonicalize().expect("real");
        std::os::unix::fs::symlink(real.join("later"), real.join("link")).expect("link");
        std::os::unix::fs::symlink("link", real.join("again")).expect("link");
        std::fs::write(real.join("there"), "").expect("file");
        let find = |name: &str, creates| {
            let path = real.join(name).display().to_string();
            target::file_to_write(std::process::id(), Base::Cwd, path.as_bytes(), Root::own(), creates)
        };
        assert_eq!(find("new", true), Ok(real.join("new")));
        assert_eq!(find("there", false), Ok(real.join("there")));
        // Opening a link that leads nowhere makes what it leads to.
        assert_eq!(find("link", true), Ok(real.join("later")));
        assert_eq!(find("again", true), Ok(real.join("later")));
        assert_eq!(find("new", false), Err(Some(rustix::io::Errno::NOENT)));
        assert_eq!(find("no/new", true), Err(Some(rustix::io::Errno::NOENT)));
        std::os::unix::fs::symlink("loop", real.join("loop")).expect("link");
        assert_eq!(find("loop", true), Err(None));
        assert_eq!(find(".", true), Ok(real.clone()));
        assert_eq!(find("there/", true), Err(Some(rustix::io::Errno::NOTDIR)));
    }
}
