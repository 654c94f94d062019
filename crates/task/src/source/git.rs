//! Running git: behind the task's walls, with a configuration that is said here in whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use legwork_process::{Chunk, Status, Stream};
use legwork_proto::task::Level;
use legwork_runner::{Command, What};

use super::read::Repository;
use super::{OURS, Porter, SECRET};
use crate::hands::{Continue, command_file};

/// For each call of git: a clone may take long.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// Said of what git printed, at most.
pub(super) const MAX_SAID: usize = 2000;
const CONFIG: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "protocol.file.allow=never",
    "protocol.ext.allow=never",
    "credential.helper=",
    "gc.auto=0",
];

/// No file is changed on its way, whatever a .gitattributes says.
const PLAIN: &str = "* -text !eol !filter !working-tree-encoding !ident";

/// What opens a repository: arguments and environment of git. What lies in a folder of its own is
/// gone with this.
#[derive(Default)]
pub(super) struct Opener {
    args: Vec<String>,
    env: BTreeMap<String, String>,
    folder: Option<PathBuf>,
}

impl Drop for Opener {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Porter<'_> {
    /// Fetches a repository into the workspace; the commit that it is at.
    pub(super) async fn fetch(&self, repository: &Repository) -> Result<String, String> {
        let Repository { url, reference, depth, sparse, submodules, .. } = repository;
        self.events.log(Level::Info, &format!("Source: {url} {reference}")).await;
        let opener = self.opener(repository)?;
        let depth = depth.map(|depth| format!("--depth={depth}"));
        let run = async |args: &[&str]| self.git_here(&opener, args).await;
        run(&["init", "--quiet", "."]).await?;
        // Again after a kill: the same again.
        let _ = run(&["remote", "remove", "origin"]).await;
        run(&["remote", "add", "origin", url]).await?;
        if !sparse.is_empty() {
            let folders: Vec<&str> = sparse.iter().map(String::as_str).collect();
            run(&[&["sparse-checkout", "set", "--"][..], &folders].concat()).await?;
        }
        let what = if reference.is_empty() { "HEAD" } else { reference };
        let mut fetch = vec!["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        fetch.extend(depth.as_deref());
        fetch.extend(["origin", what]);
        run(&fetch).await?;
        run(&["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"]).await?;
        if *submodules {
            let mut update = vec!["submodule", "--quiet", "update", "--init", "--recursive"];
            update.extend(depth.as_deref());
            run(&update).await?;
        }
        run(&["rev-parse", "HEAD"]).await
    }

    /// What opens a repository. A secret goes to the repository's own host and to no other, whatever
    /// a redirection or a submodule says.
    pub(super) fn opener(&self, repository: &Repository) -> Result<Opener, String> {
        let secret = match &repository.secret {
            None => None,
            Some(name) => {
                let own = self.secrets.get(name).map(|secret| secret.expose().to_owned());
                let found = own.or_else(|| self.settings.secret(name));
                Some(found.ok_or_else(|| {
                    format!("source.git.secret: neither the hub nor the runner has a secret '{name}' for this task (of the runner it would be the variable {SECRET}{name})")
                })?)
            }
        };
        let url = url::Url::parse(&repository.url).map_err(|e| format!("source.git.url: {e}"))?;
        if url.scheme() == "ssh" {
            return self.ssh_opener(&repository.known_hosts, secret.as_deref());
        }
        let Some(secret) = secret else { return Ok(Opener::default()) };
        let host = &url[..url::Position::BeforePath];
        let host = host.replacen(&format!("{}@", url.username()), "", 1);
        const HELPER: &str =
            "!f() { echo username=x-access-token; echo \"password=$LEGWORK_GIT_SECRET\"; }; f";
        Ok(Opener {
            args: vec!["-c".into(), format!("credential.{host}.helper={HELPER}")],
            env: [("LEGWORK_GIT_SECRET".to_owned(), secret)].into(),
            folder: None,
        })
    }

    /// ssh with a key that is a secret, and with hosts that the task names; without whatever else is
    /// configured on this machine.
    fn ssh_opener(&self, known_hosts: &str, key: Option<&str>) -> Result<Opener, String> {
        use std::io::Write;
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let folder = command_file(&self.settings.scratch(), "ssh", &self.dir.to_string_lossy());
        let failed = |e: std::io::Error| format!("failed to write in {}: {e}", folder.display());
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let mut opener = Opener { args: Vec::new(), env: BTreeMap::new(), folder: Some(folder.clone()) };
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            // A key without an end of line is none to ssh.
            file.write_all(text.trim_end().as_bytes())?;
            file.write_all(b"\n").map(|()| path)
        };
        let hosts = write("known_hosts", known_hosts).map_err(failed)?;
        let mut ssh = format!(
            "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none -o StrictHostKeyChecking=yes \
             -o GlobalKnownHostsFile=/dev/null -o UpdateHostKeys=no -o UserKnownHostsFile='{}'",
            hosts.display()
        );
        match key {
            Some(key) => {
                let key = write("key", key).map_err(failed)?;
                ssh.push_str(&format!(" -i '{}'", key.display()));
            }
            None => ssh.push_str(" -o PubkeyAuthentication=no"),
        }
        opener.env.insert("GIT_SSH_COMMAND".into(), ssh);
        opener.env.insert("GIT_SSH_VARIANT".into(), "ssh".into());
        Ok(opener)
    }

    /// Makes an empty repository of our own, which takes files as they are.
    pub(super) async fn make_repository(&self, dir: &Path) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("failed to create {}: {e}", dir.display());
        std::fs::create_dir_all(dir).map_err(failed)?;
        self.git_beside(dir, &["init", "--quiet"], MAX_SAID).await?;
        let info = dir.join("info");
        let written = std::fs::create_dir_all(&info)
            .and_then(|()| std::fs::write(info.join("exclude"), format!("/{OURS}\n")))
            // Bytes as they are, whatever a .gitattributes says.
            .and_then(|()| std::fs::write(info.join("attributes"), format!("{PLAIN} !diff\n")));
        written.map_err(failed)
    }

    /// From now on a repository of ours tells all that is changed as bytes.
    pub(super) fn tell_bytes(&self, dir: &Path) -> Result<(), String> {
        let path = dir.join("info/attributes");
        std::fs::write(&path, format!("{PLAIN} -diff\n"))
            .map_err(|e| format!("failed to write {}: {e}", path.display()))
    }

    /// git on a repository of ours, with the workspace as its tree.
    pub(super) async fn git_beside(&self, dir: &Path, args: &[&str], most: usize) -> Result<String, String> {
        self.git(args, self.beside(dir), most).await
    }

    /// The same, as the bytes that it prints.
    pub(super) async fn bytes_beside(
        &self,
        dir: &Path,
        args: &[&str],
        most: usize,
    ) -> Result<Vec<u8>, String> {
        self.git_bytes("", args, self.beside(dir), most).await
    }

    pub(super) fn beside(&self, dir: &Path) -> BTreeMap<String, String> {
        let root = self.hands.root.path().to_string_lossy().into_owned();
        BTreeMap::from([
            ("GIT_DIR".to_owned(), dir.to_string_lossy().into_owned()),
            ("GIT_WORK_TREE".to_owned(), root),
        ])
    }

    /// The same with what opens the repository that it speaks to.
    pub(super) async fn git_opened(
        &self,
        dir: &Path,
        opener: &Opener,
        args: &[&str],
    ) -> Result<String, String> {
        let mut env = opener.env.clone();
        env.insert("GIT_DIR".to_owned(), dir.to_string_lossy().into_owned());
        let args: Vec<&str> = opener.args.iter().map(String::as_str).chain(args.iter().copied()).collect();
        self.git(&args, env, MAX_SAID).await
    }

    /// git on the repository in the workspace. A secret goes by the environment, which only this
    /// process of git and its helpers have.
    async fn git_here(&self, opener: &Opener, args: &[&str]) -> Result<String, String> {
        let args: Vec<&str> = opener.args.iter().map(String::as_str).chain(args.iter().copied()).collect();
        self.git(&args, opener.env.clone(), MAX_SAID).await
    }

    /// Runs git behind the walls; what it prints.
    async fn git(
        &self,
        args: &[&str],
        more: BTreeMap<String, String>,
        most: usize,
    ) -> Result<String, String> {
        self.git_in("", args, more, most).await
    }

    /// The same in a folder of the workspace.
    pub(super) async fn git_in(
        &self,
        folder: &str,
        args: &[&str],
        more: BTreeMap<String, String>,
        most: usize,
    ) -> Result<String, String> {
        let out = self.git_bytes(folder, args, more, most).await?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// The same, as the bytes that it prints.
    async fn git_bytes(
        &self,
        folder: &str,
        args: &[&str],
        more: BTreeMap<String, String>,
        most: usize,
    ) -> Result<Vec<u8>, String> {
        let (mut out, mut is_cut) = (Vec::new(), false);
        let take = |data: &[u8]| {
            is_cut |= out.len() + data.len() > most;
            let room = most - out.len().min(most);
            out.extend_from_slice(&data[..data.len().min(room)]);
        };
        self.git_each(folder, args, more, take).await?;
        match is_cut {
            true => Err(format!("git {}: it printed more than {most} bytes", subject(args))),
            false => Ok(out),
        }
    }

    /// The same, piece by piece as it comes.
    pub(super) async fn git_each(
        &self,
        folder: &str,
        args: &[&str],
        more: BTreeMap<String, String>,
        mut take: impl FnMut(&[u8]) + Send,
    ) -> Result<(), String> {
        let path = self.settings.env.get("PATH").map(String::as_str).unwrap_or_default();
        let git = std::env::split_paths(path).map(|dir| dir.join("git")).find(|git| git.is_file());
        let git = git.ok_or("git is not installed here, which source and result need")?;
        let mut argv = vec![git.to_string_lossy().into_owned()];
        argv.extend(CONFIG.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]));
        argv.extend(args.iter().map(|arg| (*arg).to_owned()));
        let mut env = more;
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "true"),
            ("LC_ALL", "C"),
        ] {
            env.insert(name.to_owned(), value.to_owned());
        }
        let what = subject(args);
        let program = Command {
            what: What::Program(argv),
            env,
            workdir: if folder.is_empty() { ".".into() } else { folder.to_owned() },
            timeout: Some(TIMEOUT),
            subject: format!("git {what}"),
            ..Command::default()
        };
        let file = command_file(self.dir, "git", what);
        // A call that a killed process had begun is made anew.
        let _ = std::fs::remove_file(&file);
        let mut said = Vec::new();
        let each = async |Chunk { stream, data, .. }| {
            if stream == Stream::Stdout {
                take(&data);
            } else {
                let room = MAX_SAID - said.len().min(MAX_SAID);
                said.extend_from_slice(&data[..data.len().min(room)]);
            }
            Continue::Yes
        };
        let ended = self.hands.run(&program, self.requester, &file, self.abort, (0, 0), each).await;
        let _ = std::fs::remove_file(&file);
        match ended.map_err(|failure| failure.to_string())? {
            Status { exit_code: Some(0), .. } => Ok(()),
            Status { exit_code, .. } => {
                let said = self.events.masks.apply(String::from_utf8_lossy(&said).trim().to_owned());
                let code = exit_code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
                Err(format!("git {what} ended with {code}: {said}"))
            }
        }
    }
}

/// What git was asked to do.
fn subject<'a>(args: &[&'a str]) -> &'a str {
    args.iter().find(|arg| !arg.contains(['=', ' ']) && **arg != "-c").copied().unwrap_or_default()
}
