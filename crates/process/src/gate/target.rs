//! The file that a call would execute: found as the kernel will find it, from the root and
//! the folder of the process that calls.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

/// Bytes of a file that say what it is. The kernel looks at as many.
const HEAD: usize = 256;

/// A file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl FileId {
    /// No file that is known.
    pub(super) const NONE: Self = Self { dev: 0, ino: 0 };
}

/// A file that was found.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: FileId,
    /// When it was last changed, in nanoseconds: another content is another file.
    pub(super) changed: i128,
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    /// It has several names on its file system.
    pub(super) linked: bool,
    fd: OwnedFd,
}

/// Why none was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFound {
    /// The kernel will not find one either, with this error.
    Kernel(Errno),
    /// It leads through `/proc/PID/fd` and the like, or to a file without a path.
    NoPath,
    /// The folder it starts in can't be told.
    Base,
}

/// From where a path that does not begin with `/` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// The folder of the process.
    Cwd,
    /// A descriptor of it.
    Fd(i32),
}

/// This process's own root, to know one that is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    mount: u64,
    ino: u64,
}

impl Root {
    fn of(path: &str) -> Option<Self> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let found = rustix::fs::statx(CWD, path, AtFlags::empty(), wanted).ok()?;
        let has = StatxFlags::from_bits_retain(found.stx_mask);
        has.contains(wanted).then_some(Self { mount: found.stx_mnt_id, ino: found.stx_ino })
    }

    pub(super) fn own() -> Option<Self> {
        Self::of("/")
    }
}

/// Finds what a path leads to for a thread.
pub(super) fn find(thread: u32, base: Base, path: &[u8], own: Option<Root>) -> Result<Target, NotFound> {
    if let Some(target) = own_program(thread, path) {
        return target;
    }
    match open_for(thread, base, Path::new(std::ffi::OsStr::from_bytes(path)), own, OFlags::empty())? {
        Ok(fd) => Target::of(fd),
        Err(Errno::LOOP) => Err(NotFound::NoPath),
        Err(errno) => Err(NotFound::Kernel(errno)),
    }
}

/// Opens a path, from where a thread would open it, as a mere place.
fn open_for(
    thread: u32,
    base: Base,
    path: &Path,
    own: Option<Root>,
    flags: OFlags,
) -> Result<Result<OwnedFd, Errno>, NotFound> {
    // What is followed by name in /proc is the reader's, not the caller's; nothing that
    // could be executed lies there but behind links that are not followed.
    let resolve = ResolveFlags::NO_MAGICLINKS;
    let root = format!("/proc/{thread}/root");
    let same = own.is_some() && Root::of(&root) == own;
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let open = place | flags;
    let from = match base {
        Base::Cwd => format!("/proc/{thread}/cwd"),
        Base::Fd(fd) => format!("/proc/{thread}/fd/{fd}"),
    };
    Ok(if same && path.is_absolute() {
        rustix::fs::openat2(CWD, path, open, Mode::empty(), resolve)
    } else if same {
        let folder = rustix::fs::open(&from, place, Mode::empty()).map_err(|_| NotFound::Base)?;
        rustix::fs::openat2(folder, path, open, Mode::empty(), resolve)
    } else {
        let root = rustix::fs::open(&root, place, Mode::empty()).map_err(|_| NotFound::Base)?;
        let path = if path.is_absolute() { path.to_owned() } else { base_within(&from, &root)?.join(path) };
        rustix::fs::openat2(&root, path, open, Mode::empty(), ResolveFlags::IN_ROOT | resolve)
    })
}

/// A file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Without links in it.
    pub(super) path: PathBuf,
    /// What it is, if it is there.
    pub(super) there: Option<Found>,
}

/// A file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: FileType,
    /// It has several names on its file system.
    pub(super) linked: bool,
    /// It has none any more.
    pub(super) removed: bool,
}

impl Found {
    pub(super) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        Ok(Self { kind, linked: kind.is_file() && stat.st_nlink > 1, removed: stat.st_nlink == 0 })
    }
}

/// How a file is asked for that is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// It is made if it is not there.
    pub(super) creates: bool,
    /// A link in the last place is not followed.
    pub(super) itself: bool,
}

/// The real path of a file that a thread opens for writing, which may not be there yet.
/// Fails with the error that the kernel would give, or with none where it can't be told.
pub(super) fn file_to_write(
    thread: u32,
    base: Base,
    path: &[u8],
    own: Option<Root>,
    asked: Asked,
) -> Result<Written, Option<Errno>> {
    /// Links that lead to what is not there.
    const MOST_LINKS: usize = 16;
    let open = |path: &Path, flags| open_for(thread, base, path, own, flags).map_err(|_| None);
    let mut path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
    for _ in 0..MOST_LINKS {
        match open(&path, if asked.itself { OFlags::NOFOLLOW } else { OFlags::empty() })? {
            Ok(fd) => {
                let there = Some(Found::of(&fd).map_err(Some)?);
                return Ok(Written { path: path_of(fd).ok_or(None)?, there });
            }
            Err(Errno::LOOP) => return Err(None),
            Err(Errno::NOENT) if asked.creates => {}
            Err(errno) => return Err(Some(errno)),
        }
        let (Some(name), Some(folder)) = (path.file_name(), path.parent()) else { return Err(None) };
        // A slash at its end asks for a folder, which is not made so.
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(Some(Errno::ISDIR));
        }
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let real = path_of(open(folder, OFlags::DIRECTORY)?.map_err(Some)?).ok_or(None)?;
        match open(&path, OFlags::NOFOLLOW)? {
            Err(Errno::NOENT) => return Ok(Written { path: real.join(name), there: None }),
            // A link to what is not there: that will be made.
            Ok(link) => {
                let to = rustix::fs::readlinkat(link, "", Vec::new()).map_err(|_| None)?;
                path = folder.join(std::ffi::OsStr::from_bytes(to.as_bytes()));
            }
            Err(errno) => return Err(Some(errno)),
        }
    }
    Err(None)
}

/// A program that executes itself by the one link in /proc that leads to it.
fn own_program(thread: u32, path: &[u8]) -> Option<Result<Target, NotFound>> {
    if path != b"/proc/self/exe" && path != format!("/proc/{thread}/exe").as_bytes() {
        return None;
    }
    let link = format!("/proc/{thread}/exe");
    let opened = rustix::fs::open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    Some(opened.map_err(|_| NotFound::NoPath).and_then(Target::of))
}

/// The path of a folder beneath the root of another process.
fn base_within(from: &str, root: &OwnedFd) -> Result<PathBuf, NotFound> {
    let link = rustix::fs::readlink(from, Vec::new()).map_err(|_| NotFound::Base)?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(link.as_bytes()));
    let real = rustix::fs::stat(from).map_err(|_| NotFound::Base)?;
    let open = OFlags::PATH | OFlags::CLOEXEC;
    let seen = rustix::fs::openat2(root, &path, open, Mode::empty(), ResolveFlags::IN_ROOT)
        .and_then(rustix::fs::fstat)
        .map_err(|_| NotFound::Base)?;
    if (real.st_dev, real.st_ino) == (seen.st_dev, seen.st_ino) { Ok(path) } else { Err(NotFound::Base) }
}

/// What a file is to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program of this machine's architecture.
    Program,
    /// What only a handler of the operator's would run (`binfmt_misc`).
    Handled,
    /// A program of another word size: its calls would be refused.
    Foreign,
    /// A script: its interpreter, and the one argument for that.
    Script {
        /// By its path.
        interpreter: String,
        /// All that follows, as one.
        argument: Option<String>,
    },
}

impl Target {
    fn of(fd: OwnedFd) -> Result<Self, NotFound> {
        let stat = rustix::fs::fstat(&fd).map_err(NotFound::Kernel)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() || stat.st_mode & 0o111 == 0 {
            return Err(NotFound::Kernel(Errno::ACCESS));
        }
        // A file in memory, or one that was removed.
        if stat.st_nlink == 0 {
            return Err(NotFound::NoPath);
        }
        Ok(Self {
            id: FileId { dev: stat.st_dev, ino: stat.st_ino },
            changed: i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec),
            mode: stat.st_mode,
            owner: stat.st_uid,
            group: stat.st_gid,
            linked: stat.st_nlink > 1,
            fd,
        })
    }

    /// Where it really is.
    pub(super) fn path(&self) -> Option<PathBuf> {
        path_of(&self.fd)
    }

    /// Reads what it is. `None` if it can't be read.
    pub(super) fn kind(&self) -> Option<Kind> {
        let mut head = [0u8; HEAD];
        let mut len = 0;
        let mut file = File::open(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).ok()?;
        while len < HEAD {
            match file.read(&mut head[len..]).ok()? {
                0 => break,
                read => len += read,
            }
        }
        Some(kind(&head[..len]))
    }
}

pub(super) fn path_of(fd: impl AsFd) -> Option<PathBuf> {
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()), Vec::new()).ok()?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(link.as_bytes())))
}

fn kind(head: &[u8]) -> Kind {
    const ELF_64: u8 = 2;
    /// `e_machine` of this machine's programs.
    const MACHINE: [u8; 2] = match () {
        () if cfg!(target_arch = "x86_64") => 62u16.to_ne_bytes(),
        () if cfg!(target_arch = "aarch64") => 183u16.to_ne_bytes(),
        () if cfg!(target_arch = "riscv64") => 243u16.to_ne_bytes(),
        () => [0, 0],
    };
    if let Some(line) = head.strip_prefix(b"#!") {
        // As the kernel divides it: blanks around, one argument at most.
        let line = line.split(|b| *b == b'\n' || *b == 0).next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let line = line.trim_matches([' ', '\t']);
        let (interpreter, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let argument = argument.trim_matches([' ', '\t']);
        return Kind::Script {
            interpreter: interpreter.to_owned(),
            argument: (!argument.is_empty()).then(|| argument.to_owned()),
        };
    }
    match head.strip_prefix(b"\x7fELF") {
        Some([class, ..]) if *class != ELF_64 => Kind::Foreign,
        Some(_) if head.get(18..20) == Some(&MACHINE) => Kind::Program,
        _ => Kind::Handled,
    }
}

/// The file that a path leads this process to.
pub(super) fn id_of(path: &str) -> Option<FileId> {
    let stat = rustix::fs::stat(path).ok()?;
    Some(FileId { dev: stat.st_dev, ino: stat.st_ino })
}

/// The file that a process executes now.
pub(super) fn of_process(pid: u32) -> Option<(FileId, PathBuf)> {
    let link = format!("/proc/{pid}/exe");
    let stat = rustix::fs::stat(&link).ok()?;
    let path = rustix::fs::readlink(&link, Vec::new()).ok()?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes()));
    Some((FileId { dev: stat.st_dev, ino: stat.st_ino }, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_its_interpreter_as_the_kernel_reads_it() {
        let script = |text: &str| match kind(text.as_bytes()) {
            Kind::Script { interpreter, argument } => (interpreter, argument.unwrap_or_default()),
            other => panic!("{other:?}"),
        };
        assert_eq!(script("#!/bin/sh\necho"), ("/bin/sh".into(), String::new()));
        assert_eq!(script("#! \t/usr/bin/env  -S a b \nx"), ("/usr/bin/env".into(), "-S a b".into()));
        assert_eq!(script("#!/bin/sh -e"), ("/bin/sh".into(), "-e".into()));
        assert_eq!(kind(b"\x7fELF\x01"), Kind::Foreign);
        assert_eq!(kind(b"\x7fELF\x02"), Kind::Handled);
        assert_eq!(kind(b"echo"), Kind::Handled);
        assert_eq!(kind(&std::fs::read("/proc/self/exe").expect("read")[..HEAD]), Kind::Program);
    }

    #[test]
    fn a_program_is_found_and_what_has_no_path_is_not() {
        let own = std::process::id();
        let find = |path: &str| find(own, Base::Cwd, path.as_bytes(), Root::own());
        let shell = find("/bin/../bin/sh").expect("found");
        assert!(shell.path().is_some_and(|p| p.is_absolute() && p.exists()));
        assert_eq!(shell.kind(), Some(Kind::Program));
        assert_eq!(find("/proc/self/exe").expect("found").id, of_process(own).expect("exe").0);
        assert_eq!(find("/nonexistent").expect_err("none"), NotFound::Kernel(Errno::NOENT));
        assert_eq!(find("/tmp").expect_err("none"), NotFound::Kernel(Errno::ACCESS));
        let file = File::open("/bin/sh").expect("open");
        for path in [format!("/proc/self/fd/{}", file.as_raw_fd()), "/proc/self/root/bin/sh".into()] {
            assert_eq!(find(&path).expect_err("none"), NotFound::NoPath, "{path}");
        }
    }

    #[test]
    fn a_path_leads_the_same_way_from_a_root_that_is_not_known_to_be_ours() {
        let own = std::process::id();
        let ours = find(own, Base::Cwd, b"/bin/sh", Root::own()).expect("found").id;
        assert_eq!(find(own, Base::Cwd, b"/bin/sh", None).expect("found").id, ours);
        let up = "../".repeat(40) + "bin/sh";
        assert_eq!(find(own, Base::Cwd, up.as_bytes(), None).expect("found").id, ours);
        assert_eq!(find(own, Base::Cwd, up.as_bytes(), Root::own()).expect("found").id, ours);
        let folder = File::open("/bin").expect("open");
        let base = Base::Fd(folder.as_raw_fd());
        assert_eq!(find(own, base, b"sh", Root::own()).expect("found").id, ours);
        assert_eq!(find(own, Base::Fd(9999), b"sh", Root::own()).expect_err("none"), NotFound::Base);
    }
}
