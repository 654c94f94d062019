//! OpenSSH: the user's configuration, agent, jump hosts and known hosts just work.
//!
//! The first start makes a connection that is shared (a ControlMaster of ours, in a private
//! folder) and sends the binary over it; further ones are sessions on that connection and
//! find the binary there. It goes when the connection goes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use legwork_base::ids;
use tokio::io::AsyncReadExt;

use super::bootstrap::{self, Stay};
use super::places::{self, Places};
use super::{Link, Starting, Transport, link, mux, spawn};
use crate::{Binaries, Error};

/// How long a shared connection outlives its last use.
const PERSIST: Duration = Duration::from_secs(60);
/// How long a host may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long login and upload may take in all, where nobody is asked anything.
const LOGIN: Duration = Duration::from_secs(120);
/// How long a runner that is there may take to say so before it is sent again.
const WARM: Duration = Duration::from_secs(10);

/// A user's config may forward ports or run something at each login: not for us.
const ALONE: [&str; 5] = [
    "-oClearAllForwardings=yes",
    "-oForwardX11=no",
    "-oForwardAgent=no",
    "-oRemoteCommand=none",
    "-oPermitLocalCommand=no",
];

/// How often a login is tried again that the host, or one on the way, was too busy for.
const RETRIES: u32 = 5;
/// Before the first of these; each further one waits twice as long.
const BACK_OFF: Duration = Duration::from_millis(300);

/// A host that the user's `ssh` reaches.
#[derive(Debug, Clone)]
pub struct Ssh {
    host: String,
    options: Vec<String>,
    program: PathBuf,
    persist: Duration,
    interactive: bool,
    shared: bool,
    retries: u32,
    folder: Option<PathBuf>,
}

/// What became of an attempt to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// The host let us in.
    In,
    /// It did not, and names the methods with which one may go on trying.
    Refused(Vec<String>),
    /// There was no answer to that: what ssh said.
    Broken(String),
}

impl Ssh {
    /// `HOST` or `USER@HOST`, as the user's `ssh` knows it.
    pub fn new(host: impl Into<String>) -> Result<Self, Error> {
        let host = host.into();
        // ssh puts a host's name into the user's ProxyCommand: it must be inert in a shell.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:%@[]+-".contains(c);
        if host.is_empty() || host.len() > 255 || host.starts_with('-') || !host.chars().all(plain) {
            return Err(Error::InvalidHost(host));
        }
        let (options, program) = (Vec::new(), PathBuf::from("ssh"));
        Ok(Self {
            host,
            options,
            program,
            persist: PERSIST,
            interactive: false,
            shared: true,
            retries: RETRIES,
            folder: None,
        })
    }

    /// Adds an argument of `ssh`, such as `-oPort=2222` or `-F` and then its file.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.options.push(arg.into());
        self
    }

    /// How long the shared connection outlives its last use [default: 60 s]. 0: it ends with
    /// [`Ssh::disconnect`].
    #[must_use]
    pub fn persist(mut self, time: Duration) -> Self {
        self.persist = time;
        self
    }

    /// Lets `ssh` ask at the terminal for passwords and unknown keys [default: no].
    #[must_use]
    pub fn interactive(mut self, yes: bool) -> Self {
        self.interactive = yes;
        self
    }

    /// How often a login is tried again, later and later, where the host or one on the way hangs
    /// up before it asks who we are: too many are logging in [default: 5, some 10 s in all].
    #[must_use]
    pub fn retries(mut self, times: u32) -> Self {
        self.retries = times;
        self
    }

    /// The same host by a login of its own: no connection that is open already is used, and
    /// none is kept.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.shared = false;
        self
    }

    /// The same host on another port, with the key that it is known by now.
    ///
    /// # Errors
    ///
    /// If `ssh` can't say what it makes of the host.
    pub async fn on_port(mut self, port: u16) -> Result<Self, Error> {
        let mut args = vec!["-G".to_owned()];
        args.extend(self.options.iter().cloned());
        args.extend(["--".to_owned(), self.host.clone()]);
        let (status, said, complaint) = self.call(&args).await?;
        let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let Some(host) = value("hostname").filter(|_| status == Some(0)) else {
            return Err(Error::Start(format!("ssh -G: {complaint}")));
        };
        let known = match (value("hostkeyalias").filter(|alias| *alias != "none"), value("port")) {
            (Some(alias), _) => alias.to_owned(),
            (None, None | Some("22")) => host.to_owned(),
            (None, Some(port)) => format!("[{host}]:{port}"),
        };
        // ssh takes the first of each.
        self.options.splice(0..0, [format!("-oPort={port}"), format!("-oHostKeyAlias={known}")]);
        Ok(self)
    }

    /// Tries to log in, as this user or as the one it would be, by a connection of its own,
    /// and asks nobody anything. With `ask_only` no key is shown: what the host offers shows.
    ///
    /// # Errors
    ///
    /// If `ssh` can't be started.
    pub async fn try_login(&self, user: Option<&str>, ask_only: bool) -> Result<Login, Error> {
        let mut args: Vec<String> =
            ["-T", "-oControlMaster=no", "-oControlPath=none", "-oBatchMode=yes", "-oLogLevel=ERROR"]
                .map(str::to_owned)
                .into();
        args.extend(ALONE.map(str::to_owned));
        if ask_only {
            args.push("-oPreferredAuthentications=none".to_owned());
        }
        let host = match user {
            Some(user) => {
                args.extend(["-l".to_owned(), user.to_owned()]);
                self.host.rsplit('@').next().unwrap_or(&self.host)
            }
            None => &self.host,
        };
        args.extend(self.options.iter().cloned());
        args.push(format!("-oConnectTimeout={}", CONNECT.as_secs()));
        args.extend(["--".to_owned(), host.to_owned(), "exit 0".to_owned()]);
        let (status, _, said) = self.call(&args).await?;
        if status.is_some_and(|status| status != 255) {
            return Ok(Login::In);
        }
        let methods = said.split("Permission denied (").nth(1).and_then(|rest| rest.split(')').next());
        Ok(methods.map_or(Login::Broken(said.clone()), |methods| {
            Login::Refused(methods.split(',').map(str::to_owned).collect())
        }))
    }

    /// Runs ssh to its end: its status, and what it said on both outputs.
    async fn call(&self, args: &[String]) -> Result<(Option<i32>, String, String), Error> {
        let child = spawn(&self.program, args, false).map_err(|error| self.not_started(&error))?;
        let output = tokio::time::timeout(LOGIN, child.wait_with_output()).await;
        let output = output.map_err(|_| Error::ReadyTimeout)?.map_err(|error| self.not_started(&error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    }

    fn not_started(&self, error: &std::io::Error) -> Error {
        Error::Start(format!("{}: {error}; is OpenSSH installed?", self.program.display()))
    }

    /// Where sockets lie [default: `$XDG_RUNTIME_DIR/legwork-ssh`, else `~/.legwork/ssh`].
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Ends the shared connection, and with it the runner's stay on the host.
    pub async fn disconnect(&self) {
        if let Ok(socket) = self.socket() {
            let _ = mux::terminate(&socket).await;
            places::forget(&socket);
        }
    }

    fn socket(&self) -> Result<PathBuf, Error> {
        let places = Places::open(self.folder.as_deref()).map_err(|error| Error::Start(error.to_string()))?;
        Ok(places.socket(&self.host, &self.options))
    }

    async fn begin(&self, binaries: &Binaries, flags: &[String]) -> Result<Link, Error> {
        bootstrap::check_flags(flags)?;
        let socket = if self.shared { Some(self.socket()?) } else { None };
        let starting = async {
            let (mut wait, mut left) = (BACK_OFF, self.retries);
            loop {
                let started = match &socket {
                    Some(socket) => self.start_at(socket, binaries, flags).await,
                    None => self.start_apart(binaries, flags).await,
                };
                match started {
                    Err(Error::Unreachable { reason, .. }) if left > 0 && is_busy(&reason) => left -= 1,
                    started => return started,
                }
                // Not all at the same time again.
                tokio::time::sleep(wait.mul_f64(1.0 + ids::fraction())).await;
                wait *= 2;
            }
        };
        if self.interactive {
            // A person may take their time at ssh's questions.
            return starting.await;
        }
        tokio::time::timeout(LOGIN, starting).await.unwrap_or_else(|_| {
            let reason = format!("no login and no runner within {} s", LOGIN.as_secs());
            Err(Error::Unreachable { host: self.host.clone(), reason })
        })
    }

    /// A session on the shared connection, if there is one that answers.
    async fn session(&self, socket: &Path, line: &str) -> Option<Link> {
        if let Ok(opened) = tokio::time::timeout(WARM, mux::open(socket, line)).await {
            return opened.ok();
        }
        // Its other end is gone, and nobody has told it: the next one is new.
        self.disconnect().await;
        None
    }

    async fn start_at(&self, socket: &Path, binaries: &Binaries, flags: &[String]) -> Result<Link, Error> {
        if let Some(place) = places::recall(socket).filter(|place| binaries.has_digest(&place.digest)) {
            if let Some(mut link) = self.session(socket, &bootstrap::again(&place, flags)).await
                && is_ready(&mut link).await
            {
                return Ok(link);
            }
            places::forget(socket);
        }
        let line = bootstrap::line(&bootstrap::token()?, flags, Stay::Connection, binaries.room());
        let mut link = match self.session(socket, &line).await {
            Some(link) => link,
            None => self.connect(Some(socket), &line)?,
        };
        let place = bootstrap::upload(&mut link, binaries).await.map_err(|error| self.explain(error))?;
        // Without a socket the connection could not be shared, and the next one is another.
        if socket.exists() {
            places::remember(socket, &place).map_err(|error| Error::Start(error.to_string()))?;
        }
        Ok(link)
    }

    /// A runner on a connection of its own, with which it goes.
    async fn start_apart(&self, binaries: &Binaries, flags: &[String]) -> Result<Link, Error> {
        let line = bootstrap::line(&bootstrap::token()?, flags, Stay::Once, binaries.room());
        let mut link = self.connect(None, &line)?;
        bootstrap::upload(&mut link, binaries).await.map_err(|error| self.explain(error))?;
        Ok(link)
    }

    /// A new connection, with the line as its first session; shared, if there is a place for
    /// its socket.
    fn connect(&self, socket: Option<&Path>, line: &str) -> Result<Link, Error> {
        let batch = if self.interactive { "no" } else { "yes" };
        let mut args: Vec<String> = ["-T".to_owned(), format!("-oBatchMode={batch}")].into();
        match socket {
            Some(socket) => {
                // ssh reads the value as a line of its configuration: quotes, and `%` for itself.
                let path = socket.display().to_string().replace('%', "%%");
                args.extend([
                    "-oControlMaster=auto".to_owned(),
                    format!("-oControlPath=\"{path}\""),
                    format!("-oControlPersist={}", self.persist.as_secs().max(1)),
                ]);
            }
            None => args.extend(["-oControlMaster=no", "-oControlPath=none"].map(str::to_owned)),
        }
        args.extend(ALONE.map(str::to_owned));
        args.extend(self.options.iter().cloned());
        // ssh takes the first of each: these hold unless the caller said otherwise. A peer that
        // is gone without a word is noticed within a minute.
        args.push(format!("-oConnectTimeout={}", CONNECT.as_secs()));
        args.extend(["-oServerAliveInterval=15".to_owned(), "-oServerAliveCountMax=3".to_owned()]);
        args.extend(["--".to_owned(), self.host.clone(), line.to_owned()]);
        let child =
            spawn(&self.program, &args, self.interactive).map_err(|error| self.not_started(&error))?;
        link(child).ok_or_else(|| Error::Start("no pipes".into()))
    }

    /// Says what ssh's words mean, and what to do.
    fn explain(&self, error: Error) -> Error {
        let Error::Upload(said) = error else { return error };
        let host = self.host.clone();
        if said.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            let known = said.lines().map(str::trim).find(|line| line.starts_with("ssh-keygen -f"));
            let run = known.map_or_else(|| format!("ssh-keygen -R {host}"), str::to_owned);
            let reason = format!(
                "the host's key has changed since it was last seen: somebody may be listening in. If you know \
                 that the host was set up anew, run: {run}"
            );
            return Error::HostKey { host, reason };
        }
        if said.contains("Host key verification failed") {
            let reason = format!("the host's key is not known; connect once by hand to check it: ssh {host}");
            return Error::HostKey { host, reason };
        }
        let reason = if said.contains("Permission denied (") {
            format!("{said}; check that `ssh {host}` works without a question")
        } else {
            said
        };
        // What ssh itself says begins with its name or the host's.
        let by_ssh = ["ssh:", "Permission denied (", "Connection ", "kex_", "Bad ", "command-line:"];
        if by_ssh.iter().any(|words| reason.contains(words)) || reason.contains("port ") {
            Error::Unreachable { host, reason }
        } else {
            Error::Upload(reason)
        }
    }
}

/// Whether somebody hung up before a word about who we are was said: an sshd does that to some
/// while more than its MaxStartups are logging in.
fn is_busy(said: &str) -> bool {
    let words =
        ["kex_exchange_identification", "ssh_exchange_identification", "banner exchange", "MaxStartups"];
    words.iter().any(|words| said.contains(words)) && !said.contains("Connection refused")
}

/// Whether a runner greets. What a profile printed before is dropped, the rest is kept.
async fn is_ready(link: &mut Link) -> bool {
    const READY: &[u8] = b"{\"type\":\"READY\"";
    let mut chunk = [0u8; 4096];
    loop {
        match tokio::time::timeout(WARM, link.stdout.read(&mut chunk)).await {
            Ok(Ok(n @ 1..)) => link.early.extend_from_slice(&chunk[..n]),
            _ => return false,
        }
        if let Some(at) = link.early.windows(READY.len()).position(|window| window == READY) {
            link.early.drain(..at);
            return true;
        }
    }
}

impl Transport for Ssh {
    fn start<'a>(&'a self, binaries: &'a Binaries, flags: &'a [String]) -> Starting<'a> {
        Box::pin(self.begin(binaries, flags))
    }

    fn name(&self) -> String {
        self.host.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_hosts_are_refused() {
        for host in ["", "-oProxyCommand=id", "a b", "a;id", "a\nb", "$(id)", "`id`", "a'b", "../x", "a|b"] {
            assert!(matches!(Ssh::new(host), Err(Error::InvalidHost(_))), "{host:?}");
        }
        for host in ["web1", "me@web1.example.com", "::1", "fe80::1%eth0", "DOM+me@web1"] {
            assert!(Ssh::new(host).is_ok(), "{host:?}");
        }
    }

    #[test]
    fn sshs_words_are_explained() {
        let explain = |said: &str| Ssh::new("web1").unwrap().explain(Error::Upload(said.into()));
        let changed = "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n  ssh-keygen -f \"/k\" -R \"web1\"\nHost key verification failed.";
        let text = explain(changed).to_string();
        assert!(text.ends_with("run: ssh-keygen -f \"/k\" -R \"web1\""), "{text}");
        assert!(matches!(explain("Host key verification failed."), Error::HostKey { .. }));
        assert!(matches!(
            explain("ssh: connect to host web1 port 22: Connection refused"),
            Error::Unreachable { .. }
        ));
        assert!(matches!(explain("only part of the runner arrived"), Error::Upload(_)));
    }
}
