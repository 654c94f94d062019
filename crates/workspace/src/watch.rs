//! Watching a workspace for changes, cheaply.
//!
//! Folders are watched by inotify; what is excluded costs nothing. Where the system allows
//! no more watches, the rest is looked at now and then, and that is said. (`notify` watches
//! whole trees without exceptions, by path: not beneath a root.)

mod scan;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::tree::is_temporary;
use crate::{Error, Root};
use scan::Scanned;

/// Most folders watched; those beyond are looked at now and then.
const MAX_WATCHES: usize = 100_000;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// Its content is another.
    Changed,
    /// It is gone, with all below.
    Deleted,
}

/// What a watcher saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A path, relative to the root.
    Path(PathBuf, ChangeKind),
    /// Too much happened to tell it apart: everything may be different.
    Everything,
}

/// Watches all folders beneath a root, but for those that are excluded.
pub struct Watcher {
    root: Arc<Root>,
    exclude: Vec<String>,
    fd: OwnedFd,
    paths: HashMap<i32, PathBuf>,
    watches: HashMap<PathBuf, i32>,
    most: usize,
    scanned: Scanned,
    buffer: Box<[MaybeUninit<u8>]>,
}

impl Watcher {
    /// Starts to watch: what happens from now on is told by [`Watcher::wait`].
    pub fn new(root: Arc<Root>, exclude: Vec<String>) -> Result<Self, Error> {
        Self::with_limit(root, exclude, MAX_WATCHES)
    }

    /// The same with another bound on watches, for tests.
    #[doc(hidden)]
    pub fn with_limit(root: Arc<Root>, exclude: Vec<String>, most: usize) -> Result<Self, Error> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|e| Error::io("watch", "inotify_init", root.path(), e))?;
        let buffer = vec![MaybeUninit::uninit(); 64 * 1024].into_boxed_slice();
        let mut watcher = Self {
            root,
            exclude,
            fd,
            paths: HashMap::new(),
            watches: HashMap::new(),
            most,
            scanned: Scanned::default(),
            buffer,
        };
        watcher.add(PathBuf::new(), &mut None);
        Ok(watcher)
    }

    /// How many folders are not watched, but looked at now and then.
    pub fn blind_folders(&self) -> usize {
        self.scanned.len()
    }

    /// Waits for changes, at most that long.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Vec<Change>> {
        let until = Instant::now() + timeout;
        loop {
            let now = Instant::now();
            let mut changes = Vec::new();
            if let Some(due) = self.scanned.due(now) {
                if due <= now {
                    self.scanned.look(&self.root, &self.exclude, &mut changes);
                    if !changes.is_empty() {
                        return Ok(changes);
                    }
                    continue;
                }
                if due < until {
                    self.ready(due - now)?;
                } else {
                    self.ready(until.saturating_duration_since(now))?;
                }
            } else {
                self.ready(until.saturating_duration_since(now))?;
            }
            self.read(&mut changes)?;
            if !changes.is_empty() || Instant::now() >= until {
                return Ok(changes);
            }
        }
    }

    fn ready(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn read(&mut self, changes: &mut Vec<Change>) -> io::Result<()> {
        // Owned, as following up on one event needs the whole watcher.
        let mut seen: Vec<(i32, ReadFlags, Option<Vec<u8>>)> = Vec::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let result = loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|n| n.to_bytes().to_vec());
                    seen.push((event.wd(), event.events(), name));
                    if seen.len() > 10_000 {
                        break Ok(());
                    }
                }
                Err(Errno::AGAIN) => break Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => break Err(e.into()),
            }
        };
        self.buffer = buffer;
        for (wd, events, name) in seen {
            self.follow(wd, events, name.as_deref(), changes);
        }
        result
    }

    fn follow(&mut self, wd: i32, events: ReadFlags, name: Option<&[u8]>, changes: &mut Vec<Change>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            // New folders may have been missed.
            self.add(PathBuf::new(), &mut None);
            changes.push(Change::Everything);
            return;
        }
        let Some(folder) = self.paths.get(&wd).cloned() else { return };
        if events.contains(ReadFlags::IGNORED) {
            self.paths.remove(&wd);
            if self.watches.get(&folder) == Some(&wd) {
                self.watches.remove(&folder);
            }
            return;
        }
        let Some(name) = name else { return };
        if self.is_excluded(name) {
            return;
        }
        let path = folder.join(OsStr::from_bytes(name));
        let is_dir = events.contains(ReadFlags::ISDIR);
        if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            changes.push(Change::Path(path.clone(), ChangeKind::Created));
            if is_dir {
                self.forget(&path);
                self.add(path, &mut Some(changes));
            }
        } else if events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            if is_dir {
                self.forget(&path);
            }
            changes.push(Change::Path(path, ChangeKind::Deleted));
        } else if !is_dir && events.intersects(ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE) {
            changes.push(Change::Path(path, ChangeKind::Changed));
        }
    }

    fn is_excluded(&self, name: &[u8]) -> bool {
        is_temporary(name) || self.exclude.iter().any(|e| e.as_bytes() == name)
    }

    /// Stops to watch a folder that is elsewhere now, and all below.
    fn forget(&mut self, path: &Path) {
        let below: Vec<PathBuf> = self.watches.keys().filter(|p| p.starts_with(path)).cloned().collect();
        for path in below {
            if let Some(wd) = self.watches.remove(&path) {
                self.paths.remove(&wd);
                let _ = inotify::remove_watch(&self.fd, wd);
            }
        }
        self.scanned.forget(path);
    }

    /// Watches a folder and all below. `found`: tells what is in there already.
    fn add(&mut self, path: PathBuf, found: &mut Option<&mut Vec<Change>>) {
        let mut todo = vec![path];
        let mut names = Vec::with_capacity(16 * 1024);
        while let Some(path) = todo.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Ok(dir) = self.root.open_at(&path, flags, Mode::empty()) else { continue };
            let watched = self.watch(&dir, &path);
            // Read after the watch is set, so that nothing comes in between unseen.
            let mut entries = RawDir::new(&dir, names.spare_capacity_mut());
            while let Some(Ok(entry)) = entries.next() {
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." || self.is_excluded(name) {
                    continue;
                }
                let below = path.join(OsStr::from_bytes(name));
                if let Some(changes) = found {
                    changes.push(Change::Path(below.clone(), ChangeKind::Created));
                }
                if entry.file_type() == FileType::Directory {
                    todo.push(below);
                }
            }
            if !watched {
                self.scanned.add(&self.root, &self.exclude, path);
            }
        }
    }

    fn watch(&mut self, dir: &OwnedFd, path: &Path) -> bool {
        if self.watches.len() >= self.most && !self.watches.contains_key(path) {
            return false;
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        // By descriptor: a path could lead elsewhere by now.
        match inotify::add_watch(&self.fd, format!("/proc/self/fd/{}", dir.as_raw_fd()), flags) {
            Ok(wd) => {
                if let Some(old) = self.paths.insert(wd, path.to_owned())
                    && old != path
                {
                    self.watches.remove(&old);
                }
                self.watches.insert(path.to_owned(), wd);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        dir: tempfile::TempDir,
        watcher: Watcher,
    }

    impl World {
        fn new(most: usize) -> Self {
            let dir = tempfile::tempdir().expect("tempdir");
            for name in ["src/deep", "node_modules/x"] {
                std::fs::create_dir_all(dir.path().join(name)).expect("dir");
            }
            let root = Arc::new(Root::open(dir.path()).expect("root"));
            let watcher = Watcher::with_limit(root, vec!["node_modules".into()], most).expect("watcher");
            Self { dir, watcher }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Waits until all of these were told, in any order.
        fn expect(&mut self, want: &[(&str, ChangeKind)]) {
            let mut missing: Vec<_> =
                want.iter().map(|(path, kind)| Change::Path(PathBuf::from(path), *kind)).collect();
            let until = Instant::now() + Duration::from_secs(10);
            let mut seen = Vec::new();
            while !missing.is_empty() && Instant::now() < until {
                let changes = self.watcher.wait(Duration::from_millis(200)).expect("wait");
                missing.retain(|change| !changes.contains(change));
                seen.extend(changes);
            }
            assert!(missing.is_empty(), "missing {missing:?}, seen {seen:?}");
            assert!(!seen.iter().any(|c| matches!(c, Change::Path(p, _) if p.starts_with("node_modules"))));
        }
    }

    use ChangeKind::{Changed, Created, Deleted};

    #[test]
    fn changes_are_told_where_they_happen() {
        let mut world = World::new(100);
        std::fs::write(world.at("node_modules/x/y"), "not told").expect("file");
        std::fs::write(world.at("src/deep/a"), "1").expect("file");
        world.expect(&[("src/deep/a", Created), ("src/deep/a", Changed)]);
        std::fs::write(world.at("src/deep/a"), "2").expect("file");
        world.expect(&[("src/deep/a", Changed)]);
        // A folder that comes with content, and one that moves with its watches.
        std::fs::create_dir_all(world.at("new/er")).expect("dir");
        std::fs::write(world.at("new/er/f"), "x").expect("file");
        world.expect(&[("new", Created), ("new/er", Created), ("new/er/f", Created)]);
        std::fs::rename(world.at("new"), world.at("moved")).expect("rename");
        world.expect(&[("new", Deleted), ("moved", Created), ("moved/er/f", Created)]);
        std::fs::write(world.at("moved/er/g"), "x").expect("file");
        world.expect(&[("moved/er/g", Created)]);
        std::fs::remove_dir_all(world.at("moved")).expect("remove");
        world.expect(&[("moved", Deleted)]);
        assert_eq!(world.watcher.blind_folders(), 0);
    }

    #[test]
    fn where_there_are_no_more_watches_it_looks_now_and_then() {
        let mut world = World::new(1);
        assert_eq!(world.watcher.blind_folders(), 2);
        std::fs::write(world.at("src/deep/a"), "1").expect("file");
        world.expect(&[("src/deep/a", Created)]);
        std::fs::write(world.at("src/deep/a"), "22").expect("file");
        std::fs::create_dir(world.at("src/new")).expect("dir");
        std::fs::write(world.at("src/new/b"), "22").expect("file");
        world.expect(&[("src/deep/a", Changed), ("src/new", Created), ("src/new/b", Created)]);
        std::fs::remove_dir_all(world.at("src/deep")).expect("remove");
        world.expect(&[("src/deep", Deleted)]);
    }
}
