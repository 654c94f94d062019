//! Files by which a step tells later ones its outputs, variables and folders of programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use legwork_workspace::Root;

use crate::journal::Left;
use crate::random;

/// Most bytes of each file.
const MAX_BYTES: u64 = 1 << 20;

/// The files of one step; dropped, they are gone.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    /// Makes them in `scratch`, or finds those of an earlier process by `name`.
    pub(super) fn make(scratch: &Path, name: &str) -> std::io::Result<Self> {
        let folder = scratch.join(name);
        std::fs::create_dir_all(&folder)?;
        for file in ["output", "env", "path", "summary", "state"] {
            std::fs::File::options().append(true).create(true).open(folder.join(file))?;
        }
        Ok(Self { folder })
    }

    /// A name nobody can guess.
    pub(super) fn fresh_name() -> String {
        format!("{:016x}", random::bits())
    }

    /// The variables that name them.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let names = [
            ("OUTPUT", "output"),
            ("ENV", "env"),
            ("PATH", "path"),
            ("STEP_SUMMARY", "summary"),
            ("STATE", "state"),
        ];
        ["LEGWORK", "GITHUB"]
            .iter()
            .flat_map(|prefix| names.map(|(name, file)| (format!("{prefix}_{name}"), path(file))))
            .collect()
    }

    /// Where they are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the step wrote, and its summary.
    pub(super) fn read(&self) -> Result<(Left, String), String> {
        // The step may have put links here: none is followed out of the folder.
        let root = Root::open(&self.folder).map_err(|e| e.to_string())?;
        let text = |name: &str| -> Result<String, String> {
            let data = root.read(name, 0, 0, MAX_BYTES + 1).map_err(|e| format!("{name}: {e}"))?.data;
            if data.len() as u64 > MAX_BYTES {
                return Err(format!("{name}: the file is larger than {MAX_BYTES} bytes"));
            }
            String::from_utf8(data).map_err(|_| format!("{name}: the file is no UTF-8"))
        };
        let left = Left {
            state: pairs(&text("state")?).map_err(|e| format!("GITHUB_STATE: {e}"))?,
            outputs: pairs(&text("output")?).map_err(|e| format!("LEGWORK_OUTPUT: {e}"))?,
            env: pairs(&text("env")?).map_err(|e| format!("LEGWORK_ENV: {e}"))?,
            path: text("path")?.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect(),
        };
        Ok((left, text("summary")?))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `NAME=VALUE`, or `NAME<<WORD`, lines, `WORD`.
fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let heredoc = line.find("<<").filter(|at| line.find('=').is_none_or(|eq| *at < eq));
        let (name, value) = match (heredoc, line.split_once('=')) {
            (Some(at), _) => {
                let word = &line[at + 2..];
                let mut value = Vec::new();
                loop {
                    match lines.next() {
                        Some((_, line)) if line == word => break,
                        Some((_, line)) => value.push(line),
                        None => return Err(format!("line {}: '{word}' does not come", number + 1)),
                    }
                }
                (&line[..at], value.join("\n"))
            }
            (None, Some((name, value))) => (name, value.to_owned()),
            (None, None) => return Err(format!("line {}: neither NAME=VALUE nor NAME<<WORD", number + 1)),
        };
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("line {}: '{name}' is no name", number + 1));
        }
        pairs.insert(name.to_owned(), value);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_texts_of_many_lines_are_read() {
        let read = pairs("a=1\n\nb<<END\nx=y\n<<\nEND\nc=p=q<<r\n").expect("valid");
        assert_eq!(read["a"], "1");
        assert_eq!(read["b"], "x=y\n<<");
        assert_eq!(read["c"], "p=q<<r");
        for bad in ["x", "a<<END\nb", "=1", "a b=1"] {
            assert!(pairs(bad).is_err_and(|e| e.contains("line 1")), "{bad}");
        }
    }

    #[test]
    fn a_link_leads_nowhere() {
        let dir = tempfile::tempdir().expect("dir");
        let files = Files::make(dir.path(), "s").expect("files");
        let output = dir.path().join("s/output");
        std::fs::write(&output, "a=1\n").expect("write");
        assert_eq!(files.read().expect("read").0.outputs["a"], "1");
        std::fs::remove_file(&output).expect("remove");
        std::os::unix::fs::symlink("/etc/hostname", &output).expect("link");
        assert!(files.read().is_err());
        drop(files);
        assert!(!dir.path().join("s").exists());
    }
}
