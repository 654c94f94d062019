//! `legwork ssh cp`: files of any size, whole or not at all.
//!
//! A command's line holds some 7 MiB, so a large file goes in parts, which the host puts
//! together, checks and moves into place.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use legwork_remote::{Error, FileRead, FileWrite};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connected::{Connected, bytes_of, content, invalid};
use super::diff;
use super::inventory::Inventory;
use super::report::Report;
use crate::args::ssh::CpArgs;

/// A part of an upload: below 10 MiB in base64.
const UP: u64 = 6 * 1024 * 1024;
/// Read at once for a digest.
const PIECE: usize = 1024 * 1024;
/// A part of a download: below the 4 MiB that are captured, in base64 below a line.
const DOWN: u64 = 3 * 1024 * 1024;

/// What to copy where.
pub(crate) struct Plan {
    hosts: Vec<String>,
    way: Way,
    copier: Copier,
}

/// How files are copied, whatever they are.
#[derive(Default)]
pub(crate) struct Copier {
    pub(crate) mode: Option<String>,
    pub(crate) owner: String,
    pub(crate) group: String,
    pub(crate) backup: bool,
    pub(crate) dry_run: bool,
    /// What comes here goes on to another host: with the permissions that it has.
    pub(crate) exact: bool,
}

impl Copier {
    pub(crate) fn new(args: &CpArgs) -> Self {
        Self {
            mode: args.mode.clone(),
            owner: args.owner.clone().unwrap_or_default(),
            group: args.group_name.clone().unwrap_or_default(),
            backup: args.backup,
            dry_run: args.dry_run,
            exact: false,
        }
    }
}

enum Way {
    /// Local file and its place there.
    Up(Vec<(PathBuf, String)>),
    Down {
        paths: Vec<String>,
        to: PathBuf,
        /// Several hosts: a folder for each.
        apart: bool,
    },
}

/// `HOST:PATH`, if a word is one. A path with a slash before the colon is local, as for scp.
pub(super) fn remote(word: &str) -> Option<(&str, &str)> {
    // In brackets stand addresses with colons, and ranges.
    let bracket = word.find('[').filter(|at| word.find(':').is_none_or(|colon| at < &colon));
    let at = if bracket.is_some() { word.find("]:")? + 1 } else { word.find(':')? };
    let (host, path) = (&word[..at], &word[at + 1..]);
    (!host.is_empty() && !host.contains('/')).then_some((host, path))
}

impl Plan {
    pub(crate) fn new(args: &CpArgs) -> Result<Self> {
        let Some((to, from)) = args.paths.split_last() else {
            bail!("a source and a destination are needed")
        };
        let (hosts, way) = match remote(to) {
            Some((hosts, path)) => (hosts.to_owned(), upload(from, path)?),
            None => download(from, to)?,
        };
        if args.dry_run && matches!(way, Way::Down { .. }) {
            bail!("--dry-run is for copies to hosts");
        }
        let hosts = hosts.split_whitespace().map(str::to_owned).collect();
        Ok(Self { hosts, way, copier: Copier::new(args) })
    }

    /// Files of a host on their way to another.
    pub(crate) fn fetch(paths: &[String], to: &Path) -> Self {
        let way = Way::Down { paths: paths.to_vec(), to: to.to_owned(), apart: false };
        Self { hosts: Vec::new(), way, copier: Copier { exact: true, ..Copier::default() } }
    }

    /// The hosts, and the plan that knows how many they are.
    pub(crate) fn split(mut self, inventory: &Inventory) -> Result<(Vec<String>, Self)> {
        let count = inventory.names(&self.hosts)?.len();
        if let Way::Down { apart, .. } = &mut self.way {
            *apart = count > 1;
        }
        Ok((self.hosts.clone(), self))
    }

    pub(crate) async fn run(&self, on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
        match &self.way {
            Way::Up(files) => {
                for (from, to) in files {
                    self.copier.send_to(on, from, to, report).await?;
                }
            }
            Way::Down { paths, to, apart } => {
                for path in paths {
                    let path = &on.at_home(path).await?;
                    let to = place(path, to, apart.then_some(&on.target.name))?;
                    let size = self.copier.fetch(on, path, &to).await?;
                    report.said.push(format!("{}: {size} bytes", to.display()));
                }
            }
        }
        Ok(())
    }
}

/// The difference to what is there, if both are short enough to be texts.
async fn difference(on: &Connected<'_>, from: &Path, to: &str) -> Result<Vec<String>, Error> {
    let local = |error: std::io::Error| invalid(format!("{}: {error}", from.display()));
    if tokio::fs::metadata(from).await.map_err(local)?.len() >= UP {
        return Ok(Vec::new());
    }
    let bytes = tokio::fs::read(from).await.map_err(local)?;
    match on.read(to).await {
        Ok(former) => Ok(diff::unified(to, former.as_deref(), &bytes)),
        // A folder: it goes into it.
        Err(Error::Command(_) | Error::InvalidCommand(_)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Copier {
    /// Sends a file, and tells of it.
    async fn send_to(
        &self,
        on: &Connected<'_>,
        from: &Path,
        to: &str,
        report: &mut Report,
    ) -> Result<(), Error> {
        let to = on.at_home(to).await?;
        let mut shown = if on.diff { difference(on, from, &to).await? } else { Vec::new() };
        let (size, changed) = match self.send(on, from, &to, None).await {
            // As for scp: into the folder.
            Err(Error::Command(failure)) if failure.message.ends_with("is a directory") => {
                let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let to = format!("{}/{name}", to.trim_end_matches('/'));
                shown = if on.diff { difference(on, from, &to).await? } else { Vec::new() };
                self.send(on, from, &to, None).await?
            }
            done => done?,
        };
        let dry = if self.dry_run && changed { " (dry run: nothing was changed)" } else { "" };
        let same = if changed { "" } else { ", unchanged" };
        report.said.push(format!("{to}: {size} bytes{same}{dry}"));
        report.changed = Some(report.changed.unwrap_or(false) || changed);
        report.diff.extend(shown);
        Ok(())
    }

    /// Sends a file, with these permissions if no others were asked for: its size, and whether
    /// anything changed by it.
    pub(super) async fn send(
        &self,
        on: &Connected<'_>,
        from: &Path,
        to: &str,
        bits: Option<u32>,
    ) -> Result<(u64, bool), Error> {
        let local = |error: std::io::Error| invalid(format!("{}: {error}", from.display()));
        let mut file = tokio::fs::File::open(from).await.map_err(local)?;
        let found = file.metadata().await.map_err(local)?;
        let usual = format!("{:04o}", bits.unwrap_or(found.permissions().mode() & 0o777));
        let whole = |part: &[u8]| FileWrite {
            path: to.to_owned(),
            create: true,
            mode: self.mode.clone().unwrap_or(usual.clone()),
            owner: self.owner.clone(),
            group: self.group.clone(),
            backup: self.backup,
            dry_run: self.dry_run,
            ..content(part)
        };
        let mut part = Vec::new();
        (&mut file).take(UP).read_to_end(&mut part).await.map_err(local)?;
        if (part.len() as u64) < UP {
            let result = on.call(whole(&part)).await?;
            return Ok((result.bytes_written, result.changed));
        }
        let checksum = digest_of(from).await.map_err(local)?;
        // What is there already need not be sent.
        let stat = FileRead { path: to.to_owned(), stat: true, ..Default::default() };
        let there = on.call(stat).await.ok().filter(|there| there.checksum == checksum);
        let mode = whole(&[]).mode;
        let is_so = there.as_ref().is_some_and(|there| {
            there.mode.trim_start_matches('0') == mode.trim_start_matches('0')
                && self.owner.is_empty()
                && self.group.is_empty()
        });
        if is_so || self.dry_run {
            return Ok((found.len(), !is_so));
        }
        let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (mut parts, mut size) = (Vec::new(), 0);
        while !part.is_empty() {
            size += part.len() as u64;
            let path = format!("{to}.legwork-{unique:x}.{}", parts.len());
            parts.push(path.clone());
            let (mode, owner, group) = ("0600".to_owned(), String::new(), String::new());
            let one = FileWrite { path, mode, owner, group, backup: false, ..whole(&part) };
            let mut sent = on.call(one).await.map(drop);
            part.clear();
            if sent.is_ok() {
                sent = (&mut file).take(UP).read_to_end(&mut part).await.map(drop).map_err(local);
            }
            if let Err(error) = sent {
                remove(on, &parts).await;
                return Err(error);
            }
        }
        let result = on.call(FileWrite { parts, checksum, ..whole(&[]) }).await?;
        Ok((size, result.changed))
    }

    /// As chown takes both.
    pub(super) fn owner_and_group(&self) -> String {
        match (self.owner.as_str(), self.group.as_str()) {
            (owner, "") => owner.to_owned(),
            (owner, group) => format!("{owner}:{group}"),
        }
    }

    pub(super) async fn fetch(&self, on: &Connected<'_>, path: &str, to: &Path) -> Result<u64, Error> {
        let local = |error: std::io::Error| invalid(format!("{}: {error}", to.display()));
        let first = on.call(FileRead { path: path.to_owned(), ..Default::default() }).await?;
        let mut bytes = bytes_of(first.content.as_bytes(), first.content_base64.as_deref())?;
        if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(folder).await.map_err(local)?;
        }
        let draft = to.with_file_name(format!(
            ".{}.legwork-{}",
            to.file_name().unwrap_or_default().to_string_lossy(),
            std::process::id()
        ));
        let result = async {
            // A secret there is none of everybody's here: at most what it has, less our umask.
            let mode = u32::from_str_radix(&first.mode, 8).unwrap_or(0) & 0o777;
            let _ = tokio::fs::remove_file(&draft).await;
            let mut options = tokio::fs::OpenOptions::new();
            options.write(true).create_new(true).mode(mode);
            let mut file = options.open(&draft).await.map_err(local)?;
            let mut size = 0u64;
            let more = first.truncated;
            loop {
                file.write_all(&bytes).await.map_err(local)?;
                size += bytes.len() as u64;
                if !more || bytes.is_empty() {
                    break;
                }
                let script = "tail -c +\"$2\" -- \"$1\" | head -c \"$3\"";
                let args = ["-c", script, "sh", path].map(str::to_owned).into_iter();
                let args = args.chain([(size + 1).to_string(), DOWN.to_string()]).collect();
                bytes = on.shell(args).await?;
            }
            if self.exact {
                let bits = std::fs::Permissions::from_mode(mode);
                file.set_permissions(bits).await.map_err(local)?;
            }
            file.sync_all().await.map_err(local)?;
            tokio::fs::rename(&draft, to).await.map_err(local)?;
            Ok(size)
        };
        let result = result.await;
        if result.is_err() {
            let _ = tokio::fs::remove_file(&draft).await;
        }
        result
    }
}

async fn remove(on: &Connected<'_>, names: &[String]) {
    let mut args = vec!["-c".to_owned(), "rm -f -- \"$@\"".to_owned(), "sh".to_owned()];
    args.extend(names.iter().cloned());
    let _ = on.shell(args).await;
}

async fn digest_of(file: &Path) -> std::io::Result<String> {
    let mut file = tokio::fs::File::open(file).await?;
    let (mut hash, mut piece) = (Sha256::new(), Vec::with_capacity(PIECE));
    while (&mut file).take(PIECE as u64).read_to_end(&mut piece).await? > 0 {
        hash.update(&piece);
        piece.clear();
    }
    Ok(legwork_base::digest::hex(hash.finalize()))
}

fn upload(from: &[String], to: &str) -> Result<Way> {
    let to = if to.is_empty() { "./" } else { to };
    if from.len() > 1 && !to.ends_with('/') {
        bail!("several files go into a folder: end the destination with a /");
    }
    let mut files = Vec::new();
    for word in from {
        let file = PathBuf::from(word);
        let found = std::fs::metadata(&file).with_context(|| format!("failed to open {word}"))?;
        if !found.is_file() {
            bail!("{word} is no regular file; a folder goes with -r");
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((file, if to.ends_with('/') { format!("{to}{name}") } else { to.to_owned() }));
    }
    Ok(Way::Up(files))
}

fn download(from: &[String], to: &str) -> Result<(String, Way)> {
    let mut hosts: Option<&str> = None;
    let mut paths = Vec::new();
    for word in from {
        let Some((host, path)) = remote(word) else {
            bail!("neither {word} nor {to} is on a host: write HOST:PATH");
        };
        if *hosts.get_or_insert(host) != host {
            bail!("copies come from the same hosts: {host} is not {}", hosts.unwrap_or_default());
        }
        paths.push(path.to_owned());
    }
    let way = Way::Down { paths, to: PathBuf::from(to), apart: false };
    Ok((hosts.unwrap_or_default().to_owned(), way))
}

/// The name of a host's own folder here.
pub(super) fn folder_of(host: &str) -> String {
    let name = host.replace(['/', '\\'], "_");
    let name = name.trim_start_matches('.');
    if name.is_empty() { "_".to_owned() } else { name.to_owned() }
}

/// Where a host's file goes here.
fn place(path: &str, to: &Path, host: Option<&String>) -> Result<PathBuf, Error> {
    let name = Path::new(path).file_name();
    let name = name.ok_or_else(|| Error::InvalidCommand(format!("{path:?} names no file")))?;
    Ok(match host {
        Some(host) => to.join(folder_of(host)).join(name),
        None if to.is_dir() || to.as_os_str().as_encoded_bytes().ends_with(b"/") => to.join(name),
        None => to.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_stands_before_a_colon() {
        assert_eq!(remote("web1:/etc/x"), Some(("web1", "/etc/x")));
        assert_eq!(remote("web[1-3]:x:y"), Some(("web[1-3]", "x:y")));
        assert_eq!(remote("[::1]:/x"), Some(("[::1]", "/x")));
        assert_eq!(remote("me@[::1]:x"), Some(("me@[::1]", "x")));
        for local in ["./a:b", "/a:b", "plain", ":x"] {
            assert_eq!(remote(local), None, "{local}");
        }
    }

    #[test]
    fn a_file_never_leaves_its_folder() {
        let host = "../..".to_owned();
        let place = place("/etc/passwd", Path::new("out"), Some(&host)).unwrap();
        assert!(!place.components().any(|part| part.as_os_str() == ".."), "{place:?}");
        assert!(super::place("/..", Path::new("out"), None).is_err());
    }
}
