//! What shells open for writing. The file is found, judged by its real path, and opened here: the
//! caller gets the descriptor, so that what was judged is what is written, however links turn
//! meanwhile.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::denied::Denial;
use super::judge::Refusal;
use super::process::Rights;
use super::read;
use super::target::{self, Asked, Base, Found, Root, Written};
use crate::sys::Notice;

/// How often a file is looked for anew because a link was put where it was found.
const TRIES: usize = 16;

/// What becomes of an opening.
#[derive(Debug)]
pub(super) enum Opened {
    /// The kernel goes on with it.
    Continue,
    /// It was opened here.
    Here(OwnedFd),
    /// A pipe with a name that nobody reads yet: it is opened when somebody does.
    Later(Later),
}

/// An opening that is tried again.
#[derive(Debug)]
pub(super) struct Later {
    path: PathBuf,
    flags: OFlags,
    mode: Mode,
}

/// An opening for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening {
    thread: u32,
    base: Base,
    path: u64,
    flags: OFlags,
    mode: Mode,
}

/// Whether a call opens a file, and so is none that executes.
pub(super) fn opens(notice: &Notice) -> bool {
    if !legwork_sandbox::is_own_arch(notice.arch) {
        return false;
    }
    #[cfg(target_arch = "x86_64")]
    if [libc::SYS_open, libc::SYS_creat].contains(&notice.number) {
        return true;
    }
    [libc::SYS_openat, libc::SYS_openat2].contains(&notice.number)
}

impl Opening {
    /// `None` for a call that no shell makes.
    pub(super) fn of(notice: &Notice) -> Option<Self> {
        let thread = notice.thread;
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default();
        let flags = |value: u64| OFlags::from_bits_retain(half(value));
        let mode = |value: u64| Mode::from_bits_truncate(half(value));
        let [a, b, c, d, ..] = notice.args;
        if notice.number == libc::SYS_openat {
            let from = half(a).cast_signed();
            let base = if from == libc::AT_FDCWD { Base::Cwd } else { Base::Fd(from) };
            return Some(Self { thread, base, path: b, flags: flags(c), mode: mode(d) });
        }
        #[cfg(target_arch = "x86_64")]
        if notice.number == libc::SYS_open {
            return Some(Self { thread, base: Base::Cwd, path: a, flags: flags(b), mode: mode(c) });
        }
        #[cfg(target_arch = "x86_64")]
        if notice.number == libc::SYS_creat {
            let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
            return Some(Self { thread, base: Base::Cwd, path: a, flags, mode: mode(b) });
        }
        None
    }

    pub(super) fn closes_on_exec(&self) -> bool {
        self.flags.contains(OFlags::CLOEXEC)
    }

    /// Where the shell keeps a here-document: a file that is not there yet, and that nobody
    /// is told of.
    fn is_here_document(&self, path: &Path) -> bool {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        self.flags.contains(OFlags::CREATE | OFlags::EXCL) && name.starts_with("sh-thd")
    }

    /// Finds the file, has it judged and opens it. `rights`: those of this process, if the
    /// caller's may be the same; who has others opens by itself what was judged.
    pub(super) fn open(
        &self,
        own: Option<Root>,
        rights: Option<&Rights>,
        judge: impl Fn(&Path) -> Result<(), Refusal>,
    ) -> Result<Opened, Refusal> {
        let text = read::path(self.thread, self.path).map_err(|e| refused("?", e.reason()))?;
        let called = String::from_utf8_lossy(&text).into_owned();
        if self.flags.contains(OFlags::TMPFILE) {
            return Err(refused(&called, "a file without a name"));
        }
        let umask = || rights.and_then(|rights| rights.umask_of(self.thread));
        if let Some(fd) = descriptor(&called) {
            return self.open_again(fd, &called, umask().is_some(), judge);
        }
        let itself =
            self.flags.contains(OFlags::NOFOLLOW) || self.flags.contains(OFlags::CREATE | OFlags::EXCL);
        let asked = Asked { creates: self.flags.contains(OFlags::CREATE), itself };
        for _ in 0..TRIES {
            let found = target::file_to_write(self.thread, self.base, &text, own, asked);
            let Written { path, there } = found.map_err(|errno| match errno {
                Some(errno) => silent(errno),
                None => refused(&called, "where its path leads can't be told"),
            })?;
            if self.is_here_document(&path) {
                return Ok(Opened::Continue);
            }
            // A link there leads through this process, not through the caller.
            if path.starts_with(format!("/proc/{}", std::process::id())) {
                return Err(refused(&called, "a link in /proc to the process itself"));
            }
            judge(&path)?;
            if there.is_some_and(|there| there.linked) {
                return Err(linked(&path));
            }
            let Some(umask) = umask().filter(|_| path != Path::new("/dev/tty")) else {
                return Ok(Opened::Continue);
            };
            let later = Later { path, flags: self.flags, mode: self.mode & !umask };
            match later.open() {
                // Somebody has put a link there.
                Err(Errno::LOOP) if there.is_none_or(|there| there.kind != FileType::Symlink) => {}
                Err(Errno::LOOP) if self.flags.contains(OFlags::EXCL) => return Err(silent(Errno::EXIST)),
                Err(Errno::MLINK) => return Err(linked(&later.path)),
                Err(errno) if later.waits(errno) => return Ok(Opened::Later(later)),
                Err(errno) => return Err(silent(errno)),
                Ok(fd) => return Ok(Opened::Here(fd)),
            }
        }
        Err(refused(&called, "its path leads elsewhere each time it is looked at"))
    }

    /// Opens anew what a descriptor of the caller stands for, where that has a path: what was
    /// open for reading would be open for writing.
    fn open_again(
        &self,
        fd: u32,
        called: &str,
        here: bool,
        judge: impl Fn(&Path) -> Result<(), Refusal>,
    ) -> Result<Opened, Refusal> {
        let place = format!("/proc/{}/fd/{fd}", self.thread);
        let opened =
            rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(silent)?;
        let path = target::path_of(&opened).ok_or_else(|| refused(called, "it has no path"))?;
        if !path.is_absolute() {
            return Ok(Opened::Continue);
        }
        judge(&path)?;
        let found = Found::of(&opened).map_err(silent)?;
        if found.linked {
            return Err(linked(&path));
        }
        if !here || !found.kind.is_file() {
            return Ok(Opened::Continue);
        }
        let flags = self.flags - OFlags::CREATE - OFlags::EXCL - OFlags::NOFOLLOW;
        let own = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let again = rustix::fs::open(own, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty());
        again.map(Opened::Here).map_err(silent)
    }
}

impl Later {
    /// Opens a file at a path in which no link may stand, without waiting for anybody. Fails
    /// with EMLINK for a file with several names, which is not touched.
    pub(super) fn open(&self) -> Result<OwnedFd, Errno> {
        let asked = self.flags & known_flags();
        let flags =
            (asked - OFlags::TRUNC) | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = if asked.contains(OFlags::CREATE) { self.mode } else { Mode::empty() };
        // The caller's mask was taken away; ours must not be.
        let before = rustix::process::umask(Mode::empty());
        let opened = rustix::fs::openat2(CWD, &self.path, flags, mode, ResolveFlags::NO_SYMLINKS);
        rustix::process::umask(before);
        let opened = opened?;
        let found = Found::of(&opened)?;
        if found.linked {
            return Err(Errno::MLINK);
        }
        if asked.contains(OFlags::TRUNC) && found.kind.is_file() {
            rustix::fs::ftruncate(&opened, 0)?;
        }
        if !asked.contains(OFlags::NONBLOCK) {
            let flags = rustix::fs::fcntl_getfl(&opened)? - OFlags::NONBLOCK;
            rustix::fs::fcntl_setfl(&opened, flags)?;
        }
        Ok(opened)
    }

    /// Whether an error says that the caller would have to wait.
    pub(super) fn waits(&self, errno: Errno) -> bool {
        let is_pipe = || {
            let stat = rustix::fs::lstat(&self.path);
            stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_fifo())
        };
        !self.flags.contains(OFlags::NONBLOCK) && (errno == Errno::AGAIN || errno == Errno::NXIO && is_pipe())
    }
}

/// The flags that open(2) knows: others it does not look at.
fn known_flags() -> OFlags {
    OFlags::RWMODE
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::DIRECTORY
        | OFlags::DSYNC
        | OFlags::EXCL
        | OFlags::NOATIME
        | OFlags::NONBLOCK
        | OFlags::SYNC
        | OFlags::TRUNC
        | OFlags::DIRECT
}

fn silent(errno: Errno) -> Refusal {
    Refusal::Silent(errno.raw_os_error())
}

fn refused(called: &str, reason: &str) -> Refusal {
    Refusal::Denied(Box::new(Denial::always(&format!("> {called}"), reason)))
}

fn linked(path: &Path) -> Refusal {
    let reason = "the file has several names (hard links), and no rule can tell what the others are";
    refused(&path.to_string_lossy(), reason)
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
            let asked = Asked { creates, itself: false };
            let found =
                target::file_to_write(std::process::id(), Base::Cwd, path.as_bytes(), Root::own(), asked);
            found.map(|written| written.path)
        };
        assert_eq!(find("new", true), Ok(real.join("new")));
        assert_eq!(find("there", false), Ok(real.join("there")));
        // Opening a link that leads nowhere makes what it leads to.
        assert_eq!(find("link", true), Ok(real.join("later")));
        assert_eq!(find("again", true), Ok(real.join("later")));
        assert_eq!(find("new", false), Err(Some(Errno::NOENT)));
        assert_eq!(find("no/new", true), Err(Some(Errno::NOENT)));
        std::os::unix::fs::symlink("loop", real.join("loop")).expect("link");
        assert_eq!(find("loop", true), Err(None));
        assert_eq!(find(".", true), Ok(real.clone()));
        assert_eq!(find("there/", true), Err(Some(Errno::NOTDIR)));
    }

    #[test]
    fn a_file_is_opened_as_it_was_asked_for_and_by_no_link() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("tempdir");
        let real = dir.path().canonicalize().expect("real");
        let open = |name: &str, flags: OFlags, mode: u32| {
            Later { path: real.join(name), flags, mode: Mode::from_bits_truncate(mode) }.open()
        };
        let written = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = open("new", written, 0o640).expect("opened");
        let made = std::fs::metadata(real.join("new")).expect("made");
        assert_eq!(made.permissions().mode() & 0o777, 0o640);
        assert!(!rustix::fs::fcntl_getfl(&file).expect("flags").contains(OFlags::NONBLOCK));
        std::fs::write(real.join("new"), "text").expect("written");
        drop(open("new", OFlags::WRONLY | OFlags::APPEND, 0).expect("opened"));
        assert_eq!(std::fs::read(real.join("new")).expect("read"), b"text");
        drop(open("new", written, 0).expect("opened"));
        assert_eq!(std::fs::read(real.join("new")).expect("read"), b"");
        assert_eq!(open("new", written | OFlags::EXCL, 0).expect_err("there"), Errno::EXIST);
        std::os::unix::fs::symlink("new", real.join("link")).expect("link");
        assert_eq!(open("link", written, 0).expect_err("a link"), Errno::LOOP);
        std::fs::write(real.join("new"), "text").expect("written");
        std::fs::hard_link(real.join("new"), real.join("other")).expect("link");
        assert_eq!(open("other", written, 0).expect_err("linked"), Errno::MLINK);
        assert_eq!(std::fs::read(real.join("new")).expect("read"), b"text");
    }
}
