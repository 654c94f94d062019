//! `legwork ssh sync` and `cp -r`: folders, of which only what differs is sent.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use anyhow::{Result, bail};
use futures_util::stream::{self, StreamExt as _};
use globset::GlobSet;
use legwork_remote::{Error, FileRead};

use super::connected::{Connected, invalid};
use super::copy::{self, folder_of, remote};
use super::inventory::Inventory;
use super::report::Report;
use super::tree::{self, Steps, Tree};
use crate::args::ssh::SyncArgs;

/// Files on their way at once.
const AHEAD: usize = 8;
/// Paths in one command: far below what a command line may hold.
const BATCH: usize = 200;

/// A file on its way.
type Sending<'a> = Pin<Box<dyn Future<Output = Result<(u64, bool), Error>> + Send + 'a>>;

/// Which folder becomes like which.
pub(crate) struct Plan {
    hosts: Vec<String>,
    up: bool,
    here: PathBuf,
    there: String,
    /// The folder here, read once for all hosts.
    tree: Tree,
    without: GlobSet,
    delete: bool,
    /// Into a folder that is there already, as scp does.
    into: bool,
    /// Several hosts: a folder here for each.
    apart: bool,
    copier: copy::Copier,
}

impl Plan {
    pub(crate) fn new(args: SyncArgs) -> Result<Self> {
        let without = tree::patterns(&args.exclude)?;
        let copier = copy::Copier {
            owner: args.owner.unwrap_or_default(),
            group: args.group_name.unwrap_or_default(),
            dry_run: args.dry_run,
            ..Default::default()
        };
        Self::between(&args.from, &args.to, without, args.delete, false, copier)
    }

    /// For `cp -r`.
    pub(crate) fn copy(from: &str, to: &str, copier: copy::Copier) -> Result<Self> {
        Self::between(from, to, tree::patterns(&[])?, false, true, copier)
    }

    /// A folder of a host on its way to another.
    pub(crate) fn fetch(from: &str, here: &Path, exclude: &[String]) -> Result<Self> {
        let copier = copy::Copier { exact: true, ..Default::default() };
        Self::between(from, &here.display().to_string(), tree::patterns(exclude)?, false, false, copier)
    }

    fn between(
        from: &str,
        to: &str,
        without: GlobSet,
        delete: bool,
        into: bool,
        copier: copy::Copier,
    ) -> Result<Self> {
        let (up, (hosts, there), here) = match (remote(from), remote(to)) {
            (None, Some(there)) => (true, there, from),
            (Some(there), None) => (false, there, to),
            _ => bail!("one of both folders is here, and the other on hosts: write HOST:PATH"),
        };
        let here = PathBuf::from(here);
        let tree = if up { tree::here(&here, &without)? } else { Tree::new() };
        Ok(Self {
            hosts: hosts.split_whitespace().map(str::to_owned).collect(),
            up,
            here,
            there: there.to_owned(),
            tree,
            without,
            delete,
            into,
            apart: false,
            copier,
        })
    }

    /// The hosts, and the plan that knows how many they are.
    pub(crate) fn split(mut self, inventory: &Inventory) -> Result<(Vec<String>, Self)> {
        self.apart = !self.up && inventory.names(&self.hosts)?.len() > 1;
        Ok((self.hosts.clone(), self))
    }

    pub(crate) async fn run(&self, on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
        let there = on.at_home(&self.there).await?;
        let there = if there.is_empty() { ".".to_owned() } else { there };
        let steps = if self.up { self.up(on, there).await? } else { self.down(on, &there).await? };
        let dry = if self.copier.dry_run { " (dry run: nothing was changed)" } else { "" };
        report.said = steps.tell();
        let count = report.said.len();
        report.said.push(match count {
            0 => "nothing to do".to_owned(),
            count => format!("{count} changes{dry}"),
        });
        report.changed = Some(!steps.is_nothing());
        Ok(())
    }

    async fn up(&self, on: &Connected<'_>, mut there: String) -> Result<Steps, Error> {
        let mut present = self.list(on, &there).await?;
        if let (true, Some(_), Some(name)) = (self.into, &present, name_of(&self.here)) {
            there = format!("{}/{name}", there.trim_end_matches('/'));
            present = self.list(on, &there).await?;
        }
        let steps = Steps::between(&self.tree, &present.clone().unwrap_or_default(), self.delete);
        if self.copier.dry_run {
            return Ok(steps);
        }
        let at = |name: &str| format!("{}/{name}", there.trim_end_matches('/'));
        let paths = |names: &[String]| names.iter().map(|name| at(name)).collect::<Vec<_>>();
        shell(on, "rm -rf -- \"$@\"", paths(&steps.in_the_way)).await?;
        let mut folders: Vec<String> = steps.folders.iter().map(|(name, _)| at(name)).collect();
        if present.is_none() {
            folders.insert(0, there.clone());
        }
        shell(on, "mkdir -p -- \"$@\"", folders.clone()).await?;
        // Sent ahead: a host far away is not waited for once per file.
        let mut sending: Vec<Sending<'_>> = Vec::with_capacity(steps.files.len());
        for (name, mode) in &steps.files {
            let (from, to, mode) = (self.here.join(name), at(name), Some(*mode));
            sending.push(Box::pin(async move { self.copier.send(on, &from, &to, mode).await }));
        }
        let mut sending = stream::iter(sending).buffered(AHEAD);
        while let Some(sent) = sending.next().await {
            sent?;
        }
        drop(sending);
        let links: Vec<String> = steps.links.iter().flat_map(|(name, to)| [to.clone(), at(name)]).collect();
        let script =
            "while [ $# -gt 1 ]; do rm -f -- \"$2\" && ln -s -- \"$1\" \"$2\" || exit 1; shift 2; done";
        shell(on, script, links).await?;
        shell(on, "rm -rf -- \"$@\"", paths(&steps.extra)).await?;
        let owner = self.copier.owner_and_group();
        if !owner.is_empty() {
            let script = "while [ $# -gt 1 ]; do chown -- \"$1\" \"$2\" || exit 1; shift 2; done";
            let owners = folders.iter().flat_map(|folder| [owner.clone(), folder.clone()]).collect();
            shell(on, script, owners).await?;
        }
        // Last: into a folder without write permission nothing could have been put.
        let modes: Vec<String> =
            steps.folders.iter().rev().flat_map(|(name, mode)| [format!("{mode:04o}"), at(name)]).collect();
        let script = "while [ $# -gt 1 ]; do chmod -- \"$1\" \"$2\" || exit 1; shift 2; done";
        shell(on, script, modes).await?;
        Ok(steps)
    }

    async fn down(&self, on: &Connected<'_>, there: &str) -> Result<Steps, Error> {
        let local = |error: std::io::Error| invalid(error);
        let masked = if self.copier.exact { 0 } else { umask() };
        let Some(from) = self.list(on, there).await? else {
            return Err(Error::InvalidCommand(format!("there is no folder {there} on the host")));
        };
        let mut here = self.here.clone();
        if self.apart {
            here = here.join(folder_of(&on.target.name));
        }
        if let (true, true, Some(name)) = (self.into, here.is_dir(), name_of(Path::new(there))) {
            here = here.join(name);
        }
        let without = &self.without;
        let present = if here.exists() {
            tree::here(&here, without).map_err(|error| Error::InvalidCommand(format!("{error:#}")))?
        } else {
            Tree::new()
        };
        let steps = Steps::between(&from, &present, self.delete);
        if self.copier.dry_run {
            return Ok(steps);
        }
        std::fs::create_dir_all(&here).map_err(local)?;
        steps.in_the_way.iter().try_for_each(|name| remove(&here.join(name))).map_err(local)?;
        for (name, _) in &steps.folders {
            inside(&here, name)?;
            std::fs::create_dir_all(here.join(name)).map_err(local)?;
        }
        for (name, mode) in &steps.files {
            inside(&here, name)?;
            let path = format!("{}/{name}", there.trim_end_matches('/'));
            self.copier.fetch(on, &path, &here.join(name)).await?;
            let bits = std::fs::Permissions::from_mode(mode & 0o777 & !masked);
            std::fs::set_permissions(here.join(name), bits).map_err(local)?;
        }
        for (name, to) in &steps.links {
            inside(&here, name)?;
            let _ = std::fs::remove_file(here.join(name));
            std::os::unix::fs::symlink(to, here.join(name)).map_err(local)?;
        }
        steps.extra.iter().try_for_each(|name| remove(&here.join(name))).map_err(local)?;
        for (name, mode) in steps.folders.iter().rev() {
            let bits = std::fs::Permissions::from_mode(mode & 0o777 & !masked);
            std::fs::set_permissions(here.join(name), bits).map_err(local)?;
        }
        Ok(steps)
    }

    /// What a folder on the host holds; `None` if it is not there.
    async fn list(&self, on: &Connected<'_>, path: &str) -> Result<Option<Tree>, Error> {
        let list = FileRead { path: path.to_owned(), list: true, ..Default::default() };
        match on.call(list).await {
            Ok(result) if result.truncated => {
                Err(Error::InvalidCommand(format!("{path} holds too many files for one list of 10 MiB")))
            }
            Ok(result) => tree::there(&result.content, &self.without)
                .map(Some)
                .map_err(|error| Error::InvalidCommand(format!("{error:#}"))),
            Err(Error::Command(failure)) if failure.message.ends_with("no such file or directory") => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Runs a script with paths, so many at a time.
async fn shell(on: &Connected<'_>, script: &str, paths: Vec<String>) -> Result<(), Error> {
    for some in paths.chunks(BATCH) {
        let args =
            ["-c".to_owned(), script.to_owned(), "sh".to_owned()].into_iter().chain(some.iter().cloned());
        on.shell(args.collect()).await?;
    }
    Ok(())
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Ours, as the kernel tells it: to ask by setting it would change it for other threads.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o022)
}

/// A link on the way would lead what a host names out of the folder.
fn inside(root: &Path, name: &str) -> Result<(), Error> {
    let mut path = root.to_owned();
    for part in Path::new(name).parent().into_iter().flat_map(Path::components) {
        path.push(part);
        if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return Err(Error::InvalidCommand(format!("{} is a link, and leads elsewhere", path.display())));
        }
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    if std::fs::symlink_metadata(path)?.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}
