//! Copies from host to host, by way of this machine: the hosts need not know each other.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::copy::{self, remote};
use super::fleet::Fleet;
use super::report::{self, Report};
use super::sync;
use super::work::Work;
use crate::args::ssh::{CpArgs, SshWork, SyncArgs};

/// A word that names a file on a host, and none here.
fn is_remote(word: &str) -> Option<(&str, &str)> {
    remote(word).filter(|_| !PathBuf::from(word).exists())
}

/// What was on one host, on its way to others.
pub(super) struct Relay {
    /// Nobody else's to read; gone at the end.
    folder: TempDir,
    host: String,
    paths: Vec<String>,
    whole: bool,
    exclude: Vec<String>,
}

impl Relay {
    /// Whether both ends are on hosts.
    pub(super) fn between(work: &SshWork) -> Result<Option<Self>> {
        let (from, to, whole, exclude): (&[String], &str, bool, &[String]) = match work {
            SshWork::Cp(CpArgs { paths, recursive, .. }) => match paths.split_last() {
                Some((to, from)) => (from, to, *recursive, &[]),
                None => return Ok(None),
            },
            SshWork::Sync(SyncArgs { from, to, exclude, .. }) => {
                (std::slice::from_ref(from), to, true, exclude)
            }
            _ => return Ok(None),
        };
        if remote(to).is_none() || !from.iter().any(|word| is_remote(word).is_some()) {
            return Ok(None);
        }
        let mut host = None;
        let mut paths = Vec::new();
        for word in from {
            let Some((name, path)) = is_remote(word) else {
                bail!("{word} is here, and others are on a host: copy them one after the other");
            };
            if *host.get_or_insert(name) != name {
                bail!("copies come from one host: {name} is not {}", host.unwrap_or_default());
            }
            paths.push(path.to_owned());
        }
        let folder = tempfile::tempdir().context("failed to make a folder for what is on its way")?;
        let host = host.unwrap_or_default().to_owned();
        Ok(Some(Self { folder, host, paths, whole, exclude: exclude.to_vec() }))
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let name = std::path::Path::new(path).file_name();
        let name = name.with_context(|| format!("{path:?} names no file"))?;
        Ok(self.folder.path().join(name))
    }

    /// Brings it here. The exit status, if it did not come.
    pub(super) async fn fetch(&self, fleet: &Fleet) -> Result<Option<u8>> {
        let targets = fleet.inventory.resolve(std::slice::from_ref(&self.host))?;
        let [target] = &targets[..] else { bail!("{}: copies come from one host", self.host) };
        let work = if self.whole {
            let [path] = &self.paths[..] else { bail!("one folder is copied at a time") };
            let from = format!("{}:{path}", self.host);
            Work::Sync(sync::Plan::fetch(&from, &self.place(path)?, &self.exclude)?)
        } else {
            Work::Copy(copy::Plan::fetch(&self.paths, self.folder.path()))
        };
        let failed: Option<Report> = fleet.first(target.clone(), work).await?;
        Ok(failed.map(|failed| {
            let error = failed.error.as_deref().unwrap_or("it failed");
            eprintln!("{}: {error}", crate::commands::lists::visible(&failed.host));
            report::finish(&[failed], report::Style::Plain, std::time::Duration::ZERO)
        }))
    }

    /// What is left to do: from here to the other hosts.
    pub(super) fn rest(&self, work: SshWork) -> Result<SshWork> {
        let local = |path: &str| self.place(path).map(|path| path.display().to_string());
        Ok(match work {
            SshWork::Cp(mut cp) => {
                let to = cp.paths.pop().unwrap_or_default();
                cp.paths = self.paths.iter().map(|path| local(path)).collect::<Result<_>>()?;
                cp.paths.push(to);
                SshWork::Cp(cp)
            }
            SshWork::Sync(mut sync) => {
                sync.from = self.paths.first().map(|path| local(path)).transpose()?.unwrap_or_default();
                SshWork::Sync(sync)
            }
            other => other,
        })
    }
}
