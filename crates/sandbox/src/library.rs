//! What a program needs to be loaded: its interpreter and its libraries.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use elf::ElfStream;
use elf::abi::{DT_NEEDED, DT_RPATH, DT_RUNPATH, PT_INTERP};
use elf::endian::AnyEndian;

/// Where the loader looks when nothing else says where.
const DEFAULT_DIRS: &[&str] = &["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];
/// Libraries that are loaded by name while a program runs, by the C library itself.
const ON_DEMAND: &[&str] = &[
    "libgcc_s.so.1",
    "libnss_files.so.2",
    "libnss_dns.so.2",
    "libnss_systemd.so.2",
    "libnss_myhostname.so.2",
    "libresolv.so.2",
];
/// Most files followed for one list of programs.
const MOST_FILES: usize = 4096;

/// What a file needs of others.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// The program that the kernel starts for it: a loader, or a script's interpreter.
    interpreter: Option<PathBuf>,
    /// A script's interpreter that `env` finds.
    by_env: Option<String>,
    libraries: Vec<String>,
    search: Vec<PathBuf>,
}

/// Follows programs to all files they need, resolved to where they really are.
pub(crate) struct Closure<'a> {
    cache: HashMap<String, Vec<PathBuf>>,
    path: &'a str,
    pub(crate) files: BTreeSet<PathBuf>,
}

impl<'a> Closure<'a> {
    pub(crate) fn new(path: &'a str) -> Self {
        let cache =
            std::fs::read("/etc/ld.so.cache").ok().and_then(|data| read_cache(&data)).unwrap_or_default();
        Self { cache, path, files: BTreeSet::new() }
    }

    /// Adds a program with all it needs.
    pub(crate) fn add(&mut self, program: &Path) {
        let Ok(real) = program.canonicalize() else { return };
        if self.files.len() >= MOST_FILES || !self.files.insert(real.clone()) {
            return;
        }
        let needs = needs_of(&real).unwrap_or_default();
        if let Some(interpreter) = &needs.interpreter {
            self.add(interpreter);
        }
        if let Some(name) = &needs.by_env
            && let Some(found) = find(name, self.path)
        {
            self.add(&found);
        }
        if !needs.libraries.is_empty() {
            for name in ON_DEMAND {
                self.add_library(name, &[]);
            }
        }
        for name in &needs.libraries {
            self.add_library(name, &needs.search);
        }
    }

    fn add_library(&mut self, name: &str, search: &[PathBuf]) {
        if name.contains('/') {
            self.add(Path::new(name));
            return;
        }
        let mut found: Vec<PathBuf> = search.iter().map(|dir| dir.join(name)).collect();
        found.extend(self.cache.get(name).cloned().unwrap_or_default());
        found.extend(DEFAULT_DIRS.iter().map(|dir| Path::new(dir).join(name)));
        for path in found {
            if path.is_file() {
                self.add(&path);
            }
        }
    }
}

/// Where a program is on a search path.
pub(crate) fn find(name: &str, path: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    if name.contains('/') {
        return Path::new(name).is_file().then(|| PathBuf::from(name));
    }
    let is_program =
        |file: &PathBuf| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(name)).find(is_program)
}

fn needs_of(path: &Path) -> Option<Needs> {
    let mut head = [0u8; 256];
    let mut file = File::open(path).ok()?;
    let len = file.read(&mut head).ok()?;
    if head.starts_with(b"#!") {
        let line = head[2..len].split(|b| *b == b'\n').next()?;
        let line = String::from_utf8_lossy(line).into_owned();
        let mut words = line.split_whitespace();
        let interpreter = PathBuf::from(words.next()?);
        let by_env = (interpreter.file_name()? == "env")
            .then(|| words.find(|w| !w.starts_with('-') && !w.contains('=')).map(String::from))
            .flatten();
        return Some(Needs { interpreter: Some(interpreter), by_env, ..Needs::default() });
    }
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let file = File::open(path).ok()?;
    let mut elf = ElfStream::<AnyEndian, _>::open_stream(file).ok()?;
    let mut needs = Needs::default();
    let interpreter = elf.segments().iter().find(|s| s.p_type == PT_INTERP).copied();
    if let Some(segment) = interpreter {
        let data = elf.segment_data(&segment).ok()?;
        let text = data.split(|b| *b == 0).next()?;
        needs.interpreter = Some(PathBuf::from(String::from_utf8_lossy(text).into_owned()));
    }
    let entries: Vec<(i64, u64)> = match elf.dynamic() {
        Ok(Some(table)) => table.iter().map(|d| (d.d_tag, d.d_val())).collect(),
        _ => return Some(needs),
    };
    let Ok(Some((_, strings))) = elf.dynamic_symbol_table() else { return Some(needs) };
    let text = |at: u64| strings.get(usize::try_from(at).ok()?).ok().map(str::to_owned);
    let origin = path.parent().map(|dir| dir.display().to_string()).unwrap_or_default();
    for (tag, value) in entries {
        match tag {
            DT_NEEDED => needs.libraries.extend(text(value)),
            DT_RPATH | DT_RUNPATH => {
                let dirs =
                    text(value).unwrap_or_default().replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
                needs.search.extend(dirs.split(':').filter(|d| d.starts_with('/')).map(PathBuf::from));
            }
            _ => {}
        }
    }
    Some(needs)
}

/// The C library's cache of where libraries are (ld.so.cache, format 1.1): a header of
/// 48 bytes, then entries of 24, then the strings they point at.
fn read_cache(data: &[u8]) -> Option<HashMap<String, Vec<PathBuf>>> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    const HEADER: usize = 48;
    const ENTRY: usize = 24;
    // An older cache may stand before the newer one.
    let start =
        if data.starts_with(MAGIC) { 0 } else { data.windows(MAGIC.len()).position(|w| w == MAGIC)? };
    let data = &data[start..];
    let number =
        |at: usize| data.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let text = |at: usize| {
        let bytes = data.get(at..)?.split(|b| *b == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let mut found: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for index in 0..number(MAGIC.len())?.min(100_000) {
        let at = HEADER + index * ENTRY;
        let (name, path) = (text(number(at + 4)?)?, text(number(at + 8)?)?);
        found.entry(name).or_default().push(path.into());
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_followed_to_its_loader_and_libraries() {
        let mut closure = Closure::new("/usr/bin:/bin");
        closure.add(Path::new("/bin/bash"));
        let names: Vec<String> = closure
            .files
            .iter()
            .filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned()))
            .collect();
        assert!(names.iter().any(|n| n == "bash"), "{names:?}");
        assert!(names.iter().any(|n| n.starts_with("libc.so") || n.starts_with("libc-")), "{names:?}");
        assert!(names.iter().any(|n| n.starts_with("ld-linux") || n.starts_with("ld-")), "{names:?}");
        assert!(closure.files.len() < 40, "{:?}", closure.files);
    }

    #[test]
    fn a_script_is_followed_to_its_interpreter() {
        let dir = tempfile::tempdir().expect("a folder");
        let script = dir.path().join("s");
        std::fs::write(&script, "#!/usr/bin/env -S bash -e\necho\n").expect("written");
        let needs = needs_of(&script).expect("read");
        assert_eq!(needs.interpreter.as_deref(), Some(Path::new("/usr/bin/env")));
        assert_eq!(needs.by_env.as_deref(), Some("bash"));
    }
}
