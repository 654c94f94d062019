//! What files were like when they were last read: who is still like that has the same content.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Digest;

const FIRST: &str = "legwork-stat 1";
/// Most bytes of its file.
const MAX_FILE: u64 = 256 << 20;
/// A file that was changed so short a time before it was read may be changed again without any time
/// of it showing that: clocks of file systems are coarse.
const TOO_FRESH: Duration = Duration::from_secs(2);

/// What a file is known by. The time of its change of state can't be set by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified_ns: i128,
    pub(super) changed_ns: i128,
}

impl Print {
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        let ns = |seconds: i64, rest: u64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether it was changed just now.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let now = i128::try_from(now).unwrap_or(i128::MAX);
        let margin = i128::try_from(TOO_FRESH.as_nanos()).unwrap_or(0);
        self.changed_ns.max(self.modified_ns) + margin > now
    }
}

/// The content of files as it was when they were read, by name.
#[derive(Debug, Default)]
pub struct StatCache {
    known: HashMap<String, (Print, Vec<Digest>)>,
    trusts_all: bool,
}

impl StatCache {
    /// Reads one that was saved. What can't be read is empty: all files are then read again.
    pub fn load(path: &Path) -> Self {
        let fits = path.metadata().is_ok_and(|meta| meta.len() <= MAX_FILE);
        let text = if fits { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let mut lines = text.lines();
        let known = match lines.next() {
            Some(FIRST) => lines.filter_map(line).collect(),
            _ => HashMap::new(),
        };
        Self { known, trusts_all: false }
    }

    /// Saves it for the next time, as a whole or not at all.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut text = format!("{FIRST}\n");
        for (name, (print, digests)) in &self.known {
            if name.contains('\n') {
                continue;
            }
            let Print { inode, size, modified_ns, changed_ns } = print;
            let digests = digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            text.push_str(&format!("{inode} {size} {modified_ns} {changed_ns} {digests} {name}\n"));
        }
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(temporary, path)
    }

    /// One that believes times however fresh: only what is made for a test is like that.
    #[cfg(test)]
    pub(super) fn trusting_all(self) -> Self {
        Self { trusts_all: true, ..self }
    }

    pub(super) fn get(&self, name: &str, print: &Print) -> Option<&[Digest]> {
        let (known, digests) = self.known.get(name)?;
        (known == print).then_some(digests.as_slice())
    }

    /// Keeps what is known now, and nothing else. `begun`: when reading was begun.
    pub(super) fn replace(
        &mut self,
        known: impl IntoIterator<Item = (String, Print, Vec<Digest>)>,
        begun: SystemTime,
    ) {
        let trusted = known.into_iter().filter(|(_, print, _)| self.trusts_all || !print.is_fresh(begun));
        self.known = trusted.map(|(name, print, digests)| (name, (print, digests))).collect();
    }
}

fn line(line: &str) -> Option<(String, (Print, Vec<Digest>))> {
    let mut words = line.splitn(6, ' ');
    let print = Print {
        inode: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
        modified_ns: words.next()?.parse().ok()?,
        changed_ns: words.next()?.parse().ok()?,
    };
    let listed = words.next()?;
    let digests = match listed {
        "" => Vec::new(),
        listed => listed.split(',').map(Digest::parse).collect::<Option<_>>()?,
    };
    Some((words.next()?.to_owned(), (print, digests)))
}
