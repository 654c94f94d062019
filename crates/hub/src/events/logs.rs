//! Where the events of tasks are: of small tasks in files that many share, of others in files of
//! their own.
//!
//! A task's log is bytes from its beginning; the place of an event in it is the event's id, and
//! stays so wherever the log is moved. It begins in a journal ([`super::journal`]). When a journal is full, the
//! logs of tasks that are over go to a pack ([`super::pack`]), the others get files of their own; one that
//! grows beyond [`SMALL`] gets its file at once. A log in a file of its own that is still small when its task
//! is over goes back to a journal. So each small task costs what its events take when compressed, and no inode.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use legwork_store::Lane;

use super::journal::{Entries, Journal};
use super::pack::Pack;
use super::{Frame, Kind, ends};

/// A log that is larger has a file of its own.
const SMALL: u64 = 16 * 1024;
/// A journal that is larger is packed.
const FULL: u64 = 4 << 20;

/// All of them.
#[derive(Debug)]
pub(crate) struct Logs {
    folder: PathBuf,
    /// In the caller's lane nothing is packed unless it is asked for.
    lane: Lane,
    full: u64,
    state: Mutex<State>,
    /// Packing, one at a time.
    packing: Mutex<()>,
    /// For simulations: nothing can be written.
    #[cfg(test)]
    pub(crate) full_disk: std::sync::atomic::AtomicBool,
}

#[derive(Debug)]
struct State {
    /// What journals have.
    entries: Entries,
    /// Full ones, oldest first, and the one that is written.
    journals: Vec<Journal>,
    /// Oldest first.
    packs: Vec<Arc<Pack>>,
    next: u64,
}

impl State {
    fn take_away(&mut self, id: &str) -> io::Result<()> {
        let Some(journal) = self.journals.last_mut() else { return Err(io::Error::other("no journal")) };
        journal.take_away(&mut self.entries, id)
    }
}

/// A log as it is found.
enum Found {
    Whole(Vec<u8>),
    Own(File),
}

impl Logs {
    /// Opens what is there; what a crash left half done is put right.
    pub(crate) fn open(data: &Path, lane: Lane) -> io::Result<Arc<Self>> {
        Self::with(data, lane, FULL)
    }

    fn with(data: &Path, lane: Lane, full: u64) -> io::Result<Arc<Self>> {
        let folder = data.join("events");
        let shared = folder.join(SHARED);
        std::fs::create_dir_all(&shared)?;
        let mut state = State { entries: Entries::new(), journals: Vec::new(), packs: Vec::new(), next: 1 };
        let (mut journals, mut packs) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&shared)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = |rest: &str| rest.parse::<u64>().ok();
            if let Some(number) = name.strip_prefix("journal-").and_then(number) {
                journals.push(number);
            } else if let Some(number) = name.strip_prefix("pack-").and_then(number) {
                packs.push(number);
            } else if name.ends_with(".new") {
                std::fs::remove_file(entry.path())?;
            }
        }
        journals.sort_unstable();
        packs.sort_unstable();
        for number in packs {
            state.next = state.next.max(number + 1);
            let path = file_of(&shared, "pack", number);
            match Pack::open(&path, number) {
                Ok(pack) => state.packs.push(Arc::new(pack)),
                // Its tasks have no events any more; all others have theirs.
                Err(error) => tracing::error!("{} can't be read: {error}", path.display()),
            }
        }
        for number in journals {
            state.next = state.next.max(number + 1);
            let path = file_of(&shared, "journal", number);
            if state.packs.iter().any(|pack| pack.number == number) {
                // It was packed, and not yet removed.
                std::fs::remove_file(path)?;
                continue;
            }
            state.journals.push(Journal::open(&path, number, &mut state.entries, ends)?);
        }
        let logs = Arc::new(Self {
            folder,
            lane,
            full,
            state: Mutex::new(state),
            packing: Mutex::default(),
            #[cfg(test)]
            full_disk: std::sync::atomic::AtomicBool::new(false),
        });
        if logs.lock().journals.is_empty() {
            logs.begin(&mut logs.lock())?;
        }
        if logs.lock().journals.len() > 1 {
            logs.pack_later();
        }
        Ok(logs)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> PathBuf {
        self.folder.join(SHARED)
    }

    /// The file of a task's own; folders keep directories small.
    fn own(&self, id: &str) -> PathBuf {
        // Ids sort by time, so their beginnings are alike: the end spreads.
        let spread = id.get(id.len().saturating_sub(2)..).unwrap_or("xx");
        self.folder.join(spread).join(id)
    }

    fn begin(&self, state: &mut State) -> io::Result<()> {
        let number = state.next;
        let path = file_of(&self.shared(), "journal", number);
        let journal = Journal::open(&path, number, &mut state.entries, ends)?;
        state.next += 1;
        state.journals.push(journal);
        Ok(())
    }

    /// Adds to a log which is so long; `over` if its task is over with that.
    pub(super) fn append(self: &Arc<Self>, id: &str, at: u64, bytes: &[u8], over: bool) -> io::Result<()> {
        #[cfg(test)]
        if self.full_disk.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let own = {
            let mut guard = self.lock();
            let state = &mut *guard;
            let is_here = at == 0 || state.entries.contains_key(id);
            if at > 0 && state.entries.get(id).is_some_and(|entry| entry.len != at) {
                return Err(io::Error::other("it does not follow what is written"));
            }
            if is_here && at + bytes.len() as u64 <= SMALL {
                let Some(journal) = state.journals.last_mut() else {
                    return Err(io::Error::other("no journal"));
                };
                journal.append(&mut state.entries, id, at, bytes, over)?;
                if journal.len >= self.full {
                    // If there is no room for a new one, this one grows.
                    match self.begin(state) {
                        Ok(()) => self.pack_later(),
                        Err(error) => tracing::error!("events can't be packed: {error}"),
                    }
                }
                return Ok(());
            }
            if is_here && at > 0 {
                self.move_out(state, id)?;
            }
            self.own(id)
        };
        append_own(&own, at, bytes)?;
        if over
            && at + (bytes.len() as u64) <= SMALL
            && let Err(error) = self.take_back(id, &own)
        {
            tracing::warn!("{} keeps a file of its own: {error}", own.display());
        }
        Ok(())
    }

    /// Packs what is full: without holding up who found it so, where others wait for them.
    fn pack_later(self: &Arc<Self>) {
        let logs = self.clone();
        let work = move || {
            if let Err(error) = logs.pack() {
                tracing::error!("events can't be packed, and stay as they are: {error}");
            }
        };
        if self.lane == Lane::Threads
            && let Err(error) = std::thread::Builder::new().name("pack".into()).spawn(work)
        {
            tracing::error!("events can't be packed: {error}");
        }
    }

    /// Gives a log a file of its own.
    fn move_out(&self, state: &mut State, id: &str) -> io::Result<()> {
        let Some(entry) = state.entries.get(id) else { return Ok(()) };
        let bytes = entry.read()?;
        let own = self.own(id);
        create_own(&own, &bytes)?;
        state.take_away(id)
    }

    /// A small log whose task is over shares a file again.
    fn take_back(&self, id: &str, own: &Path) -> io::Result<()> {
        let bytes = std::fs::read(own)?;
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(journal) = state.journals.last_mut() else { return Ok(()) };
        journal.append(&mut state.entries, id, 0, &bytes, true)?;
        std::fs::remove_file(own)
    }

    fn find(&self, id: &str) -> io::Result<Option<Found>> {
        // It may be moved while it is looked for: then it is where it was not before.
        for _ in 0..3 {
            let packs: Vec<Arc<Pack>> = {
                let state = self.lock();
                if let Some(entry) = state.entries.get(id) {
                    return entry.read().map(|bytes| Some(Found::Whole(bytes)));
                }
                state.packs.iter().rev().filter(|pack| pack.spans(id)).cloned().collect()
            };
            match File::open(self.own(id)) {
                Ok(file) => return Ok(Some(Found::Own(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            for pack in packs {
                if let Some(bytes) = pack.read(id)? {
                    return Ok(Some(Found::Whole(bytes)));
                }
            }
        }
        Ok(None)
    }

    /// The frames of a log from a place on, so many of them.
    pub(crate) fn read(&self, id: &str, at: u64, most: usize) -> io::Result<Vec<Frame>> {
        let (mut frames, mut at) = (Vec::new(), at);
        match self.find(id)? {
            None => {}
            Some(Found::Whole(bytes)) => {
                while frames.len() < most
                    && let Some(frame) = super::read_in(&bytes, at)
                {
                    at = frame.end;
                    frames.push(frame);
                }
            }
            Some(Found::Own(file)) => {
                while frames.len() < most
                    && let Some(frame) = super::read(&file, at)?
                {
                    at = frame.end;
                    frames.push(frame);
                }
            }
        }
        Ok(frames)
    }

    /// Goes over a log, its output without the bytes; returns how long it is. What a crash left of a
    /// last frame is cut off.
    pub(super) fn scan(&self, id: &str, mut each: impl FnMut(&Frame, u64)) -> io::Result<u64> {
        let mut at = 0;
        match self.find(id)? {
            None => {}
            Some(Found::Whole(bytes)) => {
                while let Some(frame) = super::read_in(&bytes, at) {
                    at = frame.end;
                    each(&frame, frame.payload.len() as u64);
                }
            }
            Some(Found::Own(file)) => {
                while let Some((frame, len)) = super::scan(&file, at)? {
                    at = frame.end;
                    each(&frame, len);
                }
                if file.metadata()?.len() != at {
                    OpenOptions::new().write(true).open(self.own(id))?.set_len(at)?;
                }
            }
        }
        Ok(at)
    }

    /// Makes sure that a log can go on: one that is packed gets a file of its own. To be called
    /// when a task that was over goes on.
    pub(super) fn reopen(&self, id: &str, len: u64) -> io::Result<()> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let own = self.own(id);
        if state.entries.contains_key(id) {
            self.move_out(state, id)?;
        } else if !own.exists() {
            for pack in state.packs.iter().rev().filter(|pack| pack.spans(id)) {
                if let Some(bytes) = pack.read(id)? {
                    create_own(&own, &bytes)?;
                    break;
                }
            }
        }
        match OpenOptions::new().write(true).open(&own) {
            Ok(file) => file.set_len(len),
            Err(error) if error.kind() == io::ErrorKind::NotFound && len == 0 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a log ends with the word that its task is over; where that word is known, a large
    /// log is looked at at its end only.
    pub(crate) fn is_ended(&self, id: &str, end: Option<&[u8]>) -> io::Result<bool> {
        match self.find(id)? {
            None => Ok(false),
            Some(Found::Whole(bytes)) => Ok(ends(&bytes)),
            Some(Found::Own(file)) => match end {
                Some(end) => super::is_ended(&file, end),
                None => {
                    let (mut at, mut ended) = (0, false);
                    while let Some((frame, _)) = super::scan(&file, at)? {
                        (at, ended) = (frame.end, frame.kind == Kind::End);
                    }
                    Ok(ended)
                }
            },
        }
    }

    /// Packs all journals that are full. Takes as long as it takes; others go on meanwhile.
    pub(crate) fn pack(&self) -> io::Result<()> {
        let _one_at_a_time = self.packing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (number, path, tasks) = {
                let state = self.lock();
                if state.journals.len() < 2 {
                    return Ok(());
                }
                let oldest = &state.journals[0];
                oldest.sync()?;
                (oldest.number, oldest.path.clone(), oldest.tasks.clone())
            };
            let logs = self.settled(tasks)?;
            let pack = match logs.is_empty() {
                true => None,
                false => Some(Pack::write(&file_of(&self.shared(), "pack", number), number, &logs)?),
            };
            let mut state = self.lock();
            for (id, bytes) in &logs {
                // One that went on meanwhile is elsewhere.
                if state.entries.get(id).is_some_and(|entry| entry.len == bytes.len() as u64) {
                    state.entries.remove(id);
                }
            }
            state.packs.extend(pack.map(Arc::new));
            state.journals.remove(0);
            drop(state);
            std::fs::remove_file(path)?;
        }
    }

    /// Of the tasks of a journal the logs of those that are over, by ids; all others get files of
    /// their own.
    fn settled(&self, mut tasks: Vec<String>) -> io::Result<Vec<(String, Vec<u8>)>> {
        tasks.sort_unstable();
        tasks.dedup();
        let mut logs = Vec::new();
        for id in tasks {
            let mut state = self.lock();
            match state.entries.get(&id) {
                Some(entry) if entry.over => {
                    let entry = entry.clone();
                    drop(state);
                    logs.push((id, entry.read()?));
                }
                Some(_) => self.move_out(&mut state, &id)?,
                None => {}
            }
        }
        Ok(logs)
    }

    /// Takes logs away; returns how many bytes that frees, sooner or later, and the packs of which half is gone.
    pub(crate) fn forget(&self, ids: &[String]) -> io::Result<(u64, Vec<u64>)> {
        let mut freed = 0;
        let packs = {
            let mut state = self.lock();
            for id in ids {
                if let Some(entry) = state.entries.get(id) {
                    freed += entry.len;
                    state.take_away(id)?;
                }
            }
            state.packs.clone()
        };
        for id in ids {
            let own = self.own(id);
            if let Ok(metadata) = std::fs::metadata(&own) {
                freed += metadata.len();
                std::fs::remove_file(own)?;
            }
        }
        let mut thin = Vec::new();
        for pack in packs.iter().filter(|pack| ids.iter().any(|id| pack.spans(id))) {
            let gone: std::collections::HashSet<&str> = ids.iter().map(String::as_str).collect();
            let dead: u64 = pack
                .places()?
                .iter()
                .filter(|place| gone.contains(place.id.as_str()))
                .map(|place| u64::from(place.len))
                .sum();
            freed += pack.size * dead / pack.raw().max(1);
            let all = pack.dead.fetch_add(dead, Ordering::Relaxed) + dead;
            if all * 2 >= pack.raw() {
                thin.push(pack.number);
            }
        }
        Ok((freed, thin))
    }

    /// The tasks of a pack.
    pub(crate) fn packed(&self, number: u64) -> io::Result<Vec<String>> {
        let pack = self.lock().packs.iter().find(|pack| pack.number == number).cloned();
        let places = pack.map_or(Ok(Vec::new()), |pack| pack.places())?;
        Ok(places.into_iter().map(|place| place.id).collect())
    }

    /// Writes a pack anew with those of its tasks that are kept.
    pub(crate) fn repack(&self, number: u64, kept: &[String]) -> io::Result<()> {
        let _one_at_a_time = self.packing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.lock().packs.iter().find(|pack| pack.number == number).cloned();
        let Some(old) = old else { return Ok(()) };
        let kept: std::collections::HashSet<&str> = kept.iter().map(String::as_str).collect();
        let logs = old.logs(|id| kept.contains(id))?;
        if logs.is_empty() {
            self.lock().packs.retain(|pack| pack.number != number);
            return std::fs::remove_file(&old.path);
        }
        let new = Arc::new(Pack::write(&old.path, number, &logs)?);
        let mut state = self.lock();
        if let Some(place) = state.packs.iter_mut().find(|pack| pack.number == number) {
            *place = new;
        }
        Ok(())
    }

    /// Bytes of all files of events.
    pub(crate) fn size(&self) -> u64 {
        let Ok(folders) = std::fs::read_dir(&self.folder) else { return 0 };
        folders
            .flatten()
            .filter_map(|folder| std::fs::read_dir(folder.path()).ok())
            .flat_map(|files| files.flatten())
            .filter_map(|file| file.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }
}

/// The folder of what tasks share, beside the folders of what is their own.
const SHARED: &str = "shared";

fn file_of(folder: &Path, what: &str, number: u64) -> PathBuf {
    folder.join(format!("{what}-{number:010}"))
}

fn create_own(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, path)
}

fn append_own(path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    let open = || OpenOptions::new().append(true).create(true).open(path);
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            open()?
        }
        opened => opened?,
    };
    if file.metadata()?.len() != at {
        return Err(io::Error::other("it does not follow what is written"));
    }
    if let Err(error) = file.write_all(bytes) {
        file.set_len(at)?;
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Log;
    use super::*;

    const END: &[u8] = b"{\"task\":1}";

    fn open(data: &Path) -> Arc<Logs> {
        Logs::with(data, Lane::Caller, 32 * 1024).expect("open")
    }

    fn told(logs: &Logs, id: &str) -> Vec<(Kind, u64, Vec<u8>)> {
        let frames = logs.read(id, 0, usize::MAX).expect("read");
        frames.into_iter().map(|f| (f.kind, f.end, f.payload)).collect()
    }

    /// A small task from its beginning to its end.
    fn whole(logs: &Arc<Logs>, id: &str) {
        let mut log = Log::new(logs.clone(), id);
        log.add(Kind::State, 0, 0, b"{\"state\":\"queued\"}");
        log.flush().expect("flush");
        log.output(0, Kind::Stdout, 0, id.as_bytes()).expect("output");
        log.add(Kind::End, 0, 0, END);
        log.flush().expect("flush");
    }

    fn files(data: &Path) -> usize {
        let folders = std::fs::read_dir(data.join("events")).expect("read").flatten();
        folders.map(|f| std::fs::read_dir(f.path()).expect("read").count()).sum()
    }

    #[test]
    fn small_tasks_share_files_and_are_read_as_before() {
        let dir = tempfile::tempdir().expect("tempdir");
        let logs = open(dir.path());
        let mut slow = Log::new(logs.clone(), "tsk_slow");
        slow.add(Kind::State, 0, 0, b"{}");
        slow.flush().expect("flush");
        let id = |i: usize| format!("tsk_{i:022}");
        (0..2000).for_each(|i| whole(&logs, &id(i)));
        let before: Vec<_> = (0..2000).map(|i| told(&logs, &id(i))).collect();
        assert_eq!(before[7].len(), 3);
        logs.pack().expect("pack");
        assert!(logs.lock().packs.len() > 3);
        assert!(logs.own("tsk_slow").exists(), "what is not over gets a file of its own");
        slow.output(0, Kind::Stdout, 0, b"late").expect("output");
        slow.add(Kind::End, 0, 0, b"{}");
        slow.flush().expect("flush");
        assert!(!logs.own("tsk_slow").exists(), "and gives it back");
        for reopened in [logs, open(dir.path())] {
            for (i, want) in before.iter().enumerate() {
                assert_eq!(&told(&reopened, &id(i)), want);
                assert!(reopened.is_ended(&id(i), Some(END)).expect("ended"));
            }
            assert_eq!(told(&reopened, "tsk_slow").len(), 3);
            assert_eq!(reopened.read(&id(3), before[3][0].1, 1).expect("read")[0].payload, id(3).as_bytes());
            assert!(told(&reopened, "tsk_none").is_empty());
        }
        assert!(files(dir.path()) < 30);
        let bytes = open(dir.path()).size() / 2000;
        assert!(bytes < 100, "{bytes} bytes each");
    }

    #[test]
    fn a_log_that_grows_gets_a_file_of_its_own() {
        let dir = tempfile::tempdir().expect("tempdir");
        let logs = open(dir.path());
        let mut log = Log::new(logs.clone(), "tsk_1");
        let line = b"0123456789abcdef".repeat(64);
        for i in 0..100 {
            log.output(0, Kind::Stdout, i * line.len() as u64, &line).expect("output");
        }
        let len = log.len();
        assert_eq!(std::fs::metadata(logs.own("tsk_1")).expect("own").len(), len);
        let reopened = Log::reopen(open(dir.path()), "tsk_1", |_| {}).expect("reopen");
        assert_eq!((reopened.len(), reopened.stored(0, Kind::Stdout)), (len, 100 * line.len() as u64));
    }

    #[test]
    fn a_task_that_goes_on_is_taken_out_of_its_pack() {
        let dir = tempfile::tempdir().expect("tempdir");
        let logs = open(dir.path());
        (0..2000).for_each(|i| whole(&logs, &format!("tsk_{i:022}")));
        logs.pack().expect("pack");
        let id = format!("tsk_{:022}", 5);
        let mut log = Log::reopen(logs.clone(), &id, |_| {}).expect("reopen");
        log.take_end_back().expect("take back");
        assert!(!logs.is_ended(&id, None).expect("ended"));
        log.output(0, Kind::Stdout, id.len() as u64, b"more").expect("output");
        log.add(Kind::End, 0, 0, b"{}");
        log.flush().expect("flush");
        for logs in [logs, open(dir.path())] {
            let kinds: Vec<Kind> = told(&logs, &id).iter().map(|f| f.0).collect();
            assert_eq!(kinds, [Kind::State, Kind::Stdout, Kind::Stdout, Kind::End]);
        }
    }

    #[test]
    fn what_is_forgotten_is_gone_and_its_room_is_given_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let logs = open(dir.path());
        let ids: Vec<String> = (0..2000).map(|i| format!("tsk_{i:022}")).collect();
        ids.iter().for_each(|id| whole(&logs, id));
        logs.pack().expect("pack");
        let before = logs.size();
        let (old, new) = ids.split_at(1500);
        let (freed, thin) = logs.forget(old).expect("forget");
        assert!(freed > before / 2 && thin.len() > 2, "{freed} of {before}");
        for number in thin {
            let kept: Vec<String> =
                logs.packed(number).expect("packed").into_iter().filter(|id| new.contains(id)).collect();
            logs.repack(number, &kept).expect("repack");
        }
        assert!(logs.size() < before / 2);
        for logs in [logs, open(dir.path())] {
            assert!(told(&logs, &old[3]).is_empty());
            assert!(new.iter().all(|id| told(&logs, id).len() == 3));
        }
    }

    #[test]
    fn a_crash_between_any_two_files_loses_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ids: Vec<String> = (0..600).map(|i| format!("tsk_{i:022}")).collect();
        let logs = open(dir.path());
        ids.iter().for_each(|id| whole(&logs, id));
        let shared = logs.shared();
        let journals: Vec<_> =
            logs.lock().journals.iter().map(|j| (j.path.clone(), std::fs::read(&j.path))).collect();
        logs.pack().expect("pack");
        // As if nothing had been removed, and a pack been half written.
        for (path, bytes) in journals {
            std::fs::write(path, bytes.expect("read")).expect("write");
        }
        std::fs::write(shared.join("pack-0000000099.new"), b"half").expect("write");
        let logs = open(dir.path());
        logs.pack().expect("pack");
        assert!(ids.iter().all(|id| told(&logs, id).len() == 3));
        assert!(!shared.join("pack-0000000099.new").exists());
    }
}
