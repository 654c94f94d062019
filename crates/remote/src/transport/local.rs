//! This machine: the runner as a child of ours.

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{Guard, Link, Starting, Transport, bootstrap, link, spawn};
use crate::{Binaries, Error};

/// Runs the runner here, in a private folder that goes with it.
#[derive(Debug, Clone, Default)]
pub struct Local {
    program: Option<PathBuf>,
}

impl Local {
    /// Copies the binary into a private folder and deletes it at the end, as on any host.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a program that is there already, and leaves it there.
    pub fn program(path: impl Into<PathBuf>) -> Self {
        Self { program: Some(path.into()) }
    }

    fn begin(&self, binaries: &Binaries, flags: &[String]) -> Result<Link, Error> {
        bootstrap::check_flags(flags)?;
        if let Some(program) = &self.program {
            return run(program, flags, None);
        }
        let system = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let binary = binaries.find(&text(system.sysname()), &text(system.machine()))?;
        let bytes = binary.bytes()?;
        let folder = std::env::temp_dir().join(format!(".legwork-{}", bootstrap::token()?));
        let upload = |error: std::io::Error| Error::Upload(error.to_string());
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&folder)
            .map_err(upload)?;
        let folder = Folder(folder);
        let file = folder.0.join(format!("{}-{}", legwork_proto::micro::FILE_PREFIX, binary.digest()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o700);
        options
            .open(&file)
            .and_then(|mut open| std::io::Write::write_all(&mut open, bytes))
            .map_err(upload)?;
        run(&file, flags, Some(folder))
    }
}

/// Deleted with all in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(program: &std::path::Path, flags: &[String], folder: Option<Folder>) -> Result<Link, Error> {
    let child = spawn(program, flags, false).map_err(|error| Error::Start(error.to_string()))?;
    let mut link = link(child).ok_or_else(|| Error::Start("no pipes".into()))?;
    if let Some(folder) = folder {
        let child = link.guard.take();
        // The process first, then its folder.
        let guard: Box<dyn Send> = Box::new((child, folder));
        link.guard = Some(Guard::Other(guard));
    }
    Ok(link)
}

impl Transport for Local {
    fn start<'a>(&'a self, binaries: &'a Binaries, flags: &'a [String]) -> Starting<'a> {
        Box::pin(async move { self.begin(binaries, flags) })
    }

    fn name(&self) -> String {
        "localhost".to_owned()
    }
}
