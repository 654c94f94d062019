//! What /proc says of a process that calls.

use std::fs::File;
use std::io::{self, Read};

/// Tells one execution from another: where the kernel has put the program and its arguments.
/// A fork has its parent's, an exec gets new ones at random places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Print {
    code: u64,
    stack: u64,
    args: [u64; 3],
}

impl Print {
    /// Whether it was to be seen: not that of a process which is closed to us, has ended, or is
    /// in the middle of an exec (the kernel fills in the stack last).
    pub(super) fn is_known(&self) -> bool {
        self.stack != 0 && self.args[0] != 0
    }
}

/// A process (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) threads: u32,
    /// When it was started, in ticks since boot: tells it from a later one of the same number.
    pub(super) start: u64,
    pub(super) print: Print,
    /// It sleeps and can't be interrupted, as one does that waits for its vfork.
    pub(super) blocked: bool,
}

impl Stat {
    /// Looks at the process of a thread.
    pub(super) fn of_thread(thread: u32) -> io::Result<Self> {
        let stat = Self::of(thread)?;
        if stat.threads == 1 {
            return Ok(stat);
        }
        let status = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
        let process = status
            .lines()
            .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
            .ok_or_else(|| io::Error::other("no process"))?;
        Self::of(process)
    }

    /// Looks at a process.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let mut buffer = [0u8; 1024];
        let len = File::open(format!("/proc/{pid}/stat"))?.read(&mut buffer)?;
        let text = buffer.get(..len).unwrap_or_default();
        Self::parse(pid, text).ok_or_else(|| io::Error::other("a process that can't be read"))
    }

    fn parse(pid: u32, text: &[u8]) -> Option<Self> {
        // The name is in parentheses and may hold anything, parentheses included.
        let at = text.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(&text[at + 1..]).ok()?;
        let mut fields = [""; 50];
        for (field, text) in fields.iter_mut().zip(rest.split_ascii_whitespace()) {
            *field = text;
        }
        // The first is the third of the page.
        let number = |field: usize| fields[field - 3].parse::<u64>().ok();
        let print =
            Print { code: number(26)?, stack: number(28)?, args: [number(48)?, number(49)?, number(51)?] };
        Some(Self {
            pid,
            parent: u32::try_from(number(4)?).ok()?,
            threads: u32::try_from(number(20)?).ok()?,
            start: number(22)?,
            print,
            blocked: fields[0] == "D",
        })
    }
}

/// What the kernel lets a process do to files: who it is, and its mount and user namespaces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rights {
    /// Lines of `/proc/PID/status`.
    status: Vec<String>,
    namespaces: [Option<(u64, u64)>; 2],
}

impl Rights {
    /// Those of this process.
    pub(super) fn own() -> Option<Self> {
        Self::of(std::process::id()).map(|(rights, _)| rights)
    }

    /// The file mode mask of a process, if it has these very rights.
    pub(super) fn umask_of(&self, thread: u32) -> Option<rustix::fs::Mode> {
        let (rights, umask) = Self::of(thread)?;
        (rights == *self).then(|| rustix::fs::Mode::from_bits_truncate(umask))
    }

    fn of(thread: u32) -> Option<(Self, u32)> {
        const KEPT: &[&str] = &["Uid:", "Gid:", "Groups:", "CapEff:"];
        let text = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
        let umask = text.lines().find_map(|line| line.strip_prefix("Umask:"))?.trim();
        let kept = text.lines().filter(|line| KEPT.iter().any(|head| line.starts_with(head)));
        let namespace = |name: &str| {
            let stat = rustix::fs::stat(format!("/proc/{thread}/ns/{name}")).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        let namespaces = ["mnt", "user"].map(namespace);
        let rights = Self { status: kept.map(str::to_owned).collect(), namespaces };
        let whole = rights.status.len() == KEPT.len() && namespaces.iter().all(Option::is_some);
        whole.then_some((rights, u32::from_str_radix(umask, 8).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let own = Stat::of(std::process::id()).expect("a look");
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        assert_eq!(Stat::of(std::process::id()).expect("a look").print, own.print);
        assert!(own.start > 0 && own.print != Print::default());
        // A thread of it has the same print, and the process's number.
        let thread = std::thread::spawn(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            Stat::of_thread(thread).expect("a look")
        });
        let seen = thread.join().expect("joined");
        assert_eq!((seen.pid, seen.start, seen.print), (own.pid, own.start, own.print));
    }

    #[test]
    fn rights_are_compared_as_the_kernel_has_them() {
        let own = Rights::own().expect("a look");
        assert!(own.umask_of(std::process::id()).is_some());
        let other = Rights { status: vec!["Uid:\t1\t1\t1\t1".into()], ..Rights::own().expect("a look") };
        assert_eq!(other.umask_of(std::process::id()), None);
    }

    #[test]
    fn a_name_can_hold_anything() {
        let text = b"7 (a) R 1 2) 1 (x\n) S 42 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 99 0 0 0 11 12 13 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 21 22 23 24 0";
        let stat = Stat::parse(7, text).expect("parsed");
        assert_eq!((stat.parent, stat.threads, stat.start), (42, 3, 99));
        assert_eq!(Stat::parse(7, b"7 (x) S 42 1"), None);
    }
}
