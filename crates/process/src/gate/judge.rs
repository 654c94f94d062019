//! The answer to one call.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::rc::Rc;

use legwork_policy::{Exec, ExecVerdict};
use legwork_sandbox::is_own_arch;

use super::Gate;
use super::denied::Denial;
use super::lineage::{Image, Instance, Lineage};
use super::names::{Identity, Names, base_name};
use super::process::{Rights, Stat};
use super::read::{self, Texts};
use super::script;
use super::target::{self, Base, FileId, Kind, NotFound, Root, Target};
use super::watch::Expected;
use super::write::{Opened, Opening};
use crate::spec::Spec;
use crate::sys::{self, Notice};

/// Verdicts that are kept for calls which are the same.
const MOST_CACHED: usize = 128;
/// Longest call whose verdict is kept.
const MOST_CACHED_BYTES: usize = 8 * 1024;

/// Why a call fails.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It was judged, and may not be.
    Denied(Box<Denial>),
    /// It would fail anyway: with this error.
    Silent(i32),
}

impl Refusal {
    fn always(program: &str, reason: &str) -> Self {
        Self::Denied(Box::new(Denial::always(program, reason)))
    }
}

/// A call that goes on: what is to be noted of it.
#[derive(Debug)]
pub(super) struct Passed {
    caller: Stat,
    instance: Rc<Instance>,
    /// What the kernel loads.
    program: FileId,
    first: bool,
    /// It is no exec: there is nothing to note.
    nothing: bool,
    /// Its path could lead elsewhere by the time the kernel follows it: what it was called by,
    /// and what it must come out as.
    watched: Option<Box<(String, Expected)>>,
}

impl Passed {
    fn nothing(caller: Stat) -> Self {
        Self { nothing: true, ..Self::exec(caller, Rc::default(), FileId::NONE) }
    }

    fn exec(caller: Stat, instance: Rc<Instance>, program: FileId) -> Self {
        Self { caller, instance, program, first: false, nothing: false, watched: None }
    }

    pub(super) fn pid(&self) -> u32 {
        self.caller.pid
    }

    pub(super) fn expected(&self) -> Option<&Expected> {
        self.watched.as_ref().map(|watched| &watched.1)
    }

    pub(super) fn called(&self) -> &str {
        self.watched.as_ref().map(|watched| watched.0.as_str()).unwrap_or_default()
    }
}

/// A call that was read.
#[derive(Debug)]
struct Call {
    thread: u32,
    base: Base,
    path: u64,
    argv: u64,
    env: u64,
}

impl Call {
    fn of(notice: &Notice) -> Option<Self> {
        let [a, b, c, d, e, _] = notice.args;
        let thread = notice.thread;
        if thread == 0 {
            return None;
        }
        if notice.number == libc::SYS_execve {
            return Some(Self { thread, base: Base::Cwd, path: a, argv: b, env: c });
        }
        // Arguments of this type are the lower half of a register.
        let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default().cast_signed();
        let known_flags = low(e) & !libc::AT_SYMLINK_NOFOLLOW == 0;
        let base = if low(a) == libc::AT_FDCWD { Base::Cwd } else { Base::Fd(low(a)) };
        (notice.number == libc::SYS_execveat && known_flags).then_some(Self {
            thread,
            base,
            path: b,
            argv: c,
            env: d,
        })
    }
}

/// What was found out of a call.
struct Found<'a> {
    called: &'a str,
    target: &'a Target,
    kind: Kind,
    argv: Vec<String>,
    env: Vec<String>,
}

/// Finds out what each call would do, and asks the rules.
#[derive(Debug)]
pub(super) struct Judge {
    gate: Gate,
    /// `NAME=value` of the command's own environment.
    env: HashSet<String>,
    /// What the first call must be.
    begins: Option<Vec<String>>,
    root: Option<Root>,
    /// What this process may do to files; `None` where the command stands behind a wall, which
    /// this process does not.
    rights: Option<Rights>,
    names: Names,
    lineage: Lineage,
    serial: u64,
    cache: HashMap<Vec<u8>, (Rc<Instance>, FileId)>,
}

impl Judge {
    pub(super) fn new(gate: &Gate, spec: &Spec) -> io::Result<Self> {
        let path = spec.env.get("PATH").map(String::as_str).unwrap_or_default();
        if spec.argv.is_empty() {
            return Err(io::Error::other("no program"));
        }
        Ok(Self {
            gate: gate.clone(),
            env: spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            begins: Some(spec.argv.clone()),
            root: Root::own(),
            rights: Rights::own().filter(|_| gate.writes && spec.sandbox.is_none()),
            names: Names::new(path, &gate.workspace),
            lineage: Lineage::default(),
            serial: 0,
            cache: HashMap::new(),
        })
    }

    pub(super) fn look_at_root(&mut self) -> bool {
        self.lineage.look_at_root()
    }

    pub(super) fn root_ended(&mut self) {
        self.lineage.root_ended();
    }

    pub(super) fn is_root(&self, pid: u32) -> bool {
        self.lineage.is_root(pid)
    }

    /// Notes a call that goes on.
    pub(super) fn passed(&mut self, passed: Passed) {
        let Passed { caller, instance, program, first, nothing, watched: _ } = passed;
        if nothing {
            return;
        }
        if first {
            self.begins = None;
            self.lineage.begin(&caller, instance, program);
        } else {
            self.lineage.note(&caller, instance, program);
        }
    }

    /// Judges a call.
    pub(super) fn call(&mut self, notice: &Notice) -> Result<Passed, Refusal> {
        let closed = || Refusal::always("?", read::Unreadable::Closed.reason());
        let caller = Stat::of_thread(notice.thread).map_err(|_| closed())?;
        if !caller.print.is_known() {
            return Err(closed());
        }
        // The command's own first exec is the runner's.
        let by = if self.begins.is_some() { Rc::default() } else { self.by(&caller) };
        let call = Call::of(notice);
        if makes_memory_file(notice) {
            // Programs try it for other ends as well, and do without: nobody is told.
            return if by.free { Ok(Passed::nothing(caller)) } else { Err(Refusal::Silent(libc::EACCES)) };
        }
        let Some(call) = call.filter(|_| is_own_arch(notice.arch)) else {
            return if by.free {
                Ok(Passed::exec(caller, self.free("?"), FileId::NONE))
            } else {
                Err(Refusal::always("?", "an exec of a kind that is not known, or of another architecture"))
            };
        };
        let unreadable = |e: read::Unreadable| Refusal::always("?", e.reason());
        let path = read::path(call.thread, call.path).map_err(unreadable)?;
        let called = String::from_utf8_lossy(&path).into_owned();
        if self.gate.strict && shares_memory(&caller) {
            let reason = "gate: strict: the calling process shares its memory with another one, which could change \
                          what is executed";
            return Err(Refusal::always(&called, reason));
        }
        if by.free {
            let program = match self.find(&call, &path, &called) {
                Ok(target) => target.id,
                Err(silent @ Refusal::Silent(_)) => return Err(silent),
                Err(Refusal::Denied(_)) => FileId::NONE,
            };
            return Ok(Passed::exec(caller, self.free(&called), program));
        }
        let target = self.find(&call, &path, &called)?;
        if self.names.is_loader(&target, &called) {
            let reason =
                "the loader runs any program, whatever it is called with: it is never executed itself";
            return Err(Refusal::always(&called, reason));
        }
        self.known_or_judged(&call, caller, &by, (&target, &path, &called))
    }

    /// Judges a call whose file was found, unless the same was judged before.
    fn known_or_judged(
        &mut self,
        call: &Call,
        caller: Stat,
        by: &Rc<Instance>,
        (target, path, called): (&Target, &[u8], &str),
    ) -> Result<Passed, Refusal> {
        let unreadable = |e: read::Unreadable| Refusal::always(called, e.reason());
        let (argv, env) = read::texts(call.thread, call.argv, call.env).map_err(unreadable)?;
        if let Some(begins) = &self.begins
            && (begins.first().is_none_or(|first| first != called) || argv.to_strings() != *begins)
        {
            return Err(Refusal::always(called, "it is not what was to be started"));
        }
        let key = cache_key(by, target, path, &argv, &env);
        let first = self.begins.is_some();
        // An exec of another thread than the first changes that one's number.
        let turns = !self.names.counts_from(called) && call.thread == caller.pid;
        let watched = |file, argv: Option<Vec<u8>>| {
            let expected = argv.map_or(Expected::Handler, |argv| Expected::Program { file, argv });
            turns.then(|| Box::new((called.to_owned(), expected)))
        };
        if let Some((instance, program)) = self.cache.get(&key).filter(|_| !first) {
            let watched = watched(*program, Some(argv.bytes));
            return Ok(Passed { watched, ..Passed::exec(caller, instance.clone(), *program) });
        }
        let Some(kind) = self.names.kind(target) else {
            return Err(Refusal::always(called, "its file can't be read"));
        };
        let comes_out = script::comes_out(&kind, call.base, path, &argv);
        let argv = argv.to_strings();
        let env = env.to_strings().into_iter().filter(|entry| !self.env.contains(entry)).collect();
        let found = Found { called, target, kind, argv, env };
        let (instance, program) = self.judge(call, &found, by)?;
        // Names of links that others could turn are looked at each time.
        let kept = called.starts_with('/') && matches!(found.kind, Kind::Program);
        if kept && key.len() <= MOST_CACHED_BYTES {
            if self.cache.len() >= MOST_CACHED {
                self.cache.clear();
            }
            self.cache.insert(key, (instance.clone(), program));
        }
        let watched = watched(program, comes_out);
        Ok(Passed { first, watched, ..Passed::exec(caller, instance, program) })
    }

    /// Judges what is opened for writing: by the line's own shell, and by shells that run text
    /// which the line or a program gave them. Programs open what they like.
    pub(super) fn opening(&mut self, notice: &Notice) -> Result<Opened, Refusal> {
        let closed = || Refusal::always("> ?", read::Unreadable::Closed.reason());
        let caller = Stat::of_thread(notice.thread).map_err(|_| closed())?;
        self.lineage.look_at_root();
        let held = self.gate.shell && self.lineage.is_the_shells(&caller)
            || self.lineage.find(&caller).is_some_and(|by| by.held_writes);
        if !held {
            return Ok(Opened::Continue);
        }
        let Some(opening) = Opening::of(notice) else {
            return Err(Refusal::always("> ?", "a shell does not open files by this call"));
        };
        opening.open(self.root, self.rights.as_ref(), |file| self.judge_write(file))
    }

    fn judge_write(&self, file: &Path) -> Result<(), Refusal> {
        let folders: Vec<_> = self.gate.folders().map(Path::to_string_lossy).collect();
        let folders: Vec<&str> = folders.iter().map(AsRef::as_ref).collect();
        let file = file.to_string_lossy();
        self.gate.rules.judge_write(&file, &folders).map_err(|denial| {
            let shown = format!("> {file}");
            Refusal::Denied(Box::new(Denial::new(&shown, denial)))
        })
    }

    fn find(&self, call: &Call, path: &[u8], called: &str) -> Result<Target, Refusal> {
        target::find(call.thread, call.base, path, self.root).map_err(|not_found| match not_found {
            NotFound::Kernel(errno) => Refusal::Silent(errno.raw_os_error()),
            NotFound::NoPath => Refusal::always(
                called,
                "it has no path of its own (a file in memory, /proc/*/fd, a removed file): what it is can't be judged",
            ),
            NotFound::Base => Refusal::always(called, "the folder that its path starts from can't be told"),
        })
    }

    /// The execution that a process stems from. An orphan is judged by what it executes; it is
    /// free only if all executions of that were.
    fn by(&mut self, caller: &Stat) -> Rc<Instance> {
        if let Some(found) = self.lineage.find(caller) {
            return found;
        }
        let Some((program, path)) = target::of_process(caller.pid) else { return Rc::default() };
        let path = path.to_string_lossy().into_owned();
        let argv = std::fs::read(format!("/proc/{}/cmdline", caller.pid)).unwrap_or_default();
        let argv = Texts { bytes: argv.into_iter().take(64 * 1024).collect() }.to_strings();
        let name = base_name(&path);
        let names = if self.names.leads_to(name, program) { vec![name.to_owned()] } else { Vec::new() };
        let image = Image { names, paths: vec![path], argv };
        let free = self.lineage.is_always_free(program);
        Rc::new(Instance { serial: self.next(), image: Some(image), free, ..Instance::default() })
    }

    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn free(&mut self, called: &str) -> Rc<Instance> {
        let image = Image { paths: vec![called.to_owned()], ..Image::default() };
        Rc::new(Instance { serial: self.next(), image: Some(image), free: true, ..Instance::default() })
    }

    fn judge(
        &mut self,
        call: &Call,
        found: &Found<'_>,
        by: &Instance,
    ) -> Result<(Rc<Instance>, FileId), Refusal> {
        let called = found.called;
        if found.kind == Kind::Foreign {
            return Err(Refusal::always(called, "a program of another architecture"));
        }
        let first = found.argv.first().map(String::as_str).unwrap_or_default();
        let Some(identity) = self.names.identify(found.target, called, first) else {
            let reason = format!(
                "it would be called '{first}', which is not its name: many programs do what they are called"
            );
            return Err(Refusal::always(called, &reason));
        };
        let image = self.image(found.target, called, &identity, found.argv.clone());
        if self.begins.is_some() && self.gate.shell {
            let instance = Instance { serial: self.next(), ..Instance::default() };
            return Ok((Rc::new(instance), found.target.id));
        }
        if let Some(instance) = self.expected(found, &identity, by) {
            let program = match &found.kind {
                Kind::Script { interpreter, .. } => self.interpreter(call, called, interpreter)?.id,
                _ => found.target.id,
            };
            return Ok((instance, program));
        }
        let (mut free, held_writes) = self.ask(&image, &found.env, by)?;
        let (mut program, mut hop) = (found.target.id, None);
        let operators = self.names.is_the_operators(found.target, &identity);
        if let Kind::Script { interpreter, argument } = &found.kind {
            let target = self.interpreter(call, called, interpreter)?;
            program = target.id;
            let argv = script::interpreter_argv(interpreter, argument.as_deref(), called, &found.argv);
            if operators {
                hop = script::hop(interpreter, called, &found.argv);
            } else {
                free |= self.ask_interpreter(&target, interpreter, argv, &found.env, by)?;
            }
        }
        let operators_script = operators && program != found.target.id;
        let instance = Instance {
            serial: self.next(),
            image: Some(image),
            free,
            held_writes: held_writes && !free,
            operators_script,
            manager: false,
            hop,
        };
        Ok((Rc::new(instance), program))
    }

    /// What an operator's script executes as the script that it is: the interpreter that `env`
    /// finds for it, the program of its own name that it stands for, and the version manager
    /// that finds that one (pyenv, asdf, rbenv), with what this runs on its way.
    fn expected(&mut self, found: &Found<'_>, identity: &Identity, by: &Instance) -> Option<Rc<Instance>> {
        let image = by.image.as_ref().filter(|_| by.operators_script || by.manager)?;
        if !self.names.is_kept(found.target) {
            return None;
        }
        let ends_with = |tail: &[String]| found.argv.len() > tail.len() && found.argv.ends_with(tail);
        let named = [&[image.name().to_owned()], image.argv.get(1..).unwrap_or_default()].concat();
        let hop = by.hop.as_ref().is_some_and(|hop| *identity != Identity::Path && ends_with(hop));
        let stands_for = base_name(found.called) == image.name();
        let manager = !hop && !stands_for && (by.manager || ends_with(&named));
        (hop || stands_for || manager).then(|| {
            let next = match &found.kind {
                Kind::Script { interpreter, .. } => script::hop(interpreter, found.called, &found.argv),
                _ => None,
            };
            Rc::new(Instance {
                serial: self.next(),
                image: Some(image.clone()),
                free: by.free,
                held_writes: by.held_writes,
                operators_script: hop && by.operators_script || matches!(found.kind, Kind::Script { .. }),
                manager: manager || hop && by.manager,
                hop: next,
            })
        })
    }

    /// What is judged: a path is written in any of the ways that a rule may write it.
    fn image(&self, target: &Target, called: &str, identity: &Identity, argv: Vec<String>) -> Image {
        let real = target.path().unwrap_or_else(|| called.into());
        let mut paths = vec![real.to_string_lossy().into_owned()];
        paths.extend(as_written(called).filter(|path| *path != paths[0]));
        // In another root, or under mounts of its own, the same path is another file.
        paths.retain(|path| target::id_of(path) == Some(target.id));
        if paths.is_empty() {
            paths.push(format!("?{}", real.to_string_lossy()));
        }
        for folder in self.gate.folders().filter(|_| !paths[0].starts_with('?')).collect::<Vec<_>>() {
            let Ok(beneath) = real.strip_prefix(folder) else { continue };
            let beneath = beneath.to_string_lossy();
            paths.push(format!("./{beneath}"));
            // Without a folder in it, it would be a name.
            paths.extend(beneath.contains('/').then(|| beneath.into_owned()));
        }
        let names = match identity {
            Identity::Name(name) => vec![name.clone()],
            Identity::Path => {
                paths.extend(self.names.paths_of(target));
                Vec::new()
            }
        };
        Image { names, paths, argv }
    }

    /// Whether what it starts is free, and whether what it writes is held to the rules.
    fn ask(&self, image: &Image, env: &[String], by: &Instance) -> Result<(bool, bool), Refusal> {
        let exec = Exec { image: as_policy(image), env, by: by.image.as_ref().map(as_policy) };
        match self.gate.rules.judge_exec(&exec) {
            ExecVerdict::Allow { children_any, held_writes } => Ok((children_any, held_writes)),
            ExecVerdict::Deny(denial) => Err(Refusal::Denied(Box::new(Denial::new(image.name(), denial)))),
        }
    }

    fn interpreter(&mut self, call: &Call, called: &str, path: &str) -> Result<Target, Refusal> {
        let target = self.find(call, path.as_bytes(), path)?;
        if self.names.is_loader(&target, path) {
            return Err(Refusal::always(called, "its interpreter is the loader, which runs any program"));
        }
        match self.names.kind(&target) {
            Some(Kind::Program | Kind::Handled) => Ok(target),
            Some(Kind::Foreign) => Err(Refusal::always(called, "its interpreter is of another architecture")),
            Some(Kind::Script { .. }) => Err(Refusal::always(called, "its interpreter is a script itself")),
            None => Err(Refusal::always(called, "its interpreter can't be read")),
        }
    }

    /// A script that is not the operator's is two programs.
    fn ask_interpreter(
        &self,
        target: &Target,
        path: &str,
        argv: Vec<String>,
        env: &[String],
        by: &Instance,
    ) -> Result<bool, Refusal> {
        let identity = self.names.identify(target, path, path).unwrap_or(Identity::Path);
        let image = self.image(target, path, &identity, argv);
        let asked = self.ask(&image, env, by).map(|(free, _)| free);
        asked.map_err(|refusal| match refusal {
            Refusal::Denied(mut denial) => {
                denial.reason = format!("a script is its interpreter as well: {}", denial.reason);
                Refusal::Denied(denial)
            }
            silent @ Refusal::Silent(_) => silent,
        })
    }
}

/// The path that a program was called by, if a rule may be held against it: a link of the operator's
/// counts by its own name, but `..` leads elsewhere than the text says, so what stands before the
/// last name is then what it leads to. `None` for a path that starts from the current folder.
fn as_written(called: &str) -> Option<String> {
    let is_dots = |part: &str| part == "." || part == "..";
    let (folder, name) = called.rsplit_once('/').filter(|_| called.starts_with('/'))?;
    if name.is_empty() || is_dots(name) {
        return None;
    }
    let mut parts = folder.split('/').skip(1);
    if !parts.any(|part| part.is_empty() || is_dots(part)) {
        return Some(called.to_owned());
    }
    Some(Path::new(folder).canonicalize().ok()?.join(name).to_string_lossy().into_owned())
}

fn as_policy(image: &Image) -> legwork_policy::Image<'_> {
    legwork_policy::Image { names: &image.names, paths: &image.paths, argv: &image.argv }
}

/// Whether a call makes a file in memory, and so is none that executes.
fn makes_memory_file(notice: &Notice) -> bool {
    /// Its numbers among the calls of 32 bits.
    const OF_32_BITS: [libc::c_long; 2] = [356, 385];
    if is_own_arch(notice.arch) {
        notice.number == libc::SYS_memfd_create
    } else {
        OF_32_BITS.contains(&notice.number)
    }
}

/// All that a verdict depends on.
fn cache_key(by: &Instance, target: &Target, path: &[u8], argv: &Texts, env: &Texts) -> Vec<u8> {
    let mut key = Vec::with_capacity(64 + path.len() + argv.bytes.len() + env.bytes.len());
    key.extend_from_slice(&by.serial.to_ne_bytes());
    key.extend_from_slice(&target.id.dev.to_ne_bytes());
    key.extend_from_slice(&target.id.ino.to_ne_bytes());
    key.extend_from_slice(&target.changed.to_ne_bytes());
    for part in [path, &argv.bytes, &env.bytes] {
        key.extend_from_slice(&part.len().to_ne_bytes());
        key.extend_from_slice(part);
    }
    key
}

/// Whether somebody else could write to a process's memory while it calls: threads of its own,
/// or its parent, unless that waits for it (vfork(2)).
fn shares_memory(caller: &Stat) -> bool {
    if caller.threads > 1 {
        return true;
    }
    match sys::share_memory(caller.pid, caller.parent) {
        Ok(false) => false,
        Ok(true) => !Stat::of(caller.parent).is_ok_and(|parent| parent.threads == 1 && parent.blocked),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_dots_counts_as_what_it_leads_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let base = dir.path().canonicalize().expect("its path").display().to_string();
        for folder in ["tools", "evil/deep"] {
            std::fs::create_dir_all(dir.path().join(folder)).expect("a folder");
        }
        std::os::unix::fs::symlink(dir.path().join("evil/deep"), dir.path().join("tools/d")).expect("a link");
        for (called, wanted) in [
            ("/tools/t", Some("/tools/t")),
            // A link that stands there keeps its name.
            ("/tools/d/t", Some("/tools/d/t")),
            ("/tools/../evil/t", Some("/evil/t")),
            ("/tools/./t", Some("/tools/t")),
            ("/tools//t", Some("/tools/t")),
            ("//tools/t", Some("/tools/t")),
            // Where the kernel goes, and not where the text seems to.
            ("/tools/d/../t", Some("/evil/t")),
            ("/tools/..", None),
            ("/tools/.", None),
            ("/tools/", None),
            ("/missing/../tools/t", None),
        ] {
            let called = format!("{base}{called}");
            assert_eq!(as_written(&called), wanted.map(|path| format!("{base}{path}")), "{called}");
        }
        assert_eq!(as_written("/t").as_deref(), Some("/t"));
        assert_eq!(as_written("./t"), None);
        assert_eq!(as_written("tools/../t"), None);
    }
}
