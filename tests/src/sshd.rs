//! A real sshd on a loopback port with keys of its own, and an ssh configuration in which
//! every host is it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::{DEADLINE, legwork};

pub struct Sshd {
    child: Child,
    dir: PathBuf,
    pub port: u16,
}

fn run(program: &str, args: &[&str]) {
    let output = std::process::Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Sshd {
    /// Starts one whose files lie in a folder.
    pub async fn start(dir: &Path) -> Self {
        Self::start_in(dir, None).await
    }

    /// Starts one behind a script that makes it another kind of host: with mounts of its own.
    pub async fn start_in(dir: &Path, host: Option<&str>) -> Self {
        std::fs::create_dir_all(dir.join("home")).unwrap();
        let file = |name: &str| dir.join(name).display().to_string();
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file("host_key")]);
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file("id")]);
        let port = free_port();
        // Root's own profile may be slow, or print.
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nAuthorizedKeysFile {id}.pub\nStrictModes no\n\
             PidFile none\nUsePAM no\nPermitRootLogin yes\nMaxStartups 500\nMaxSessions 200\nSetEnv HOME={home}\n",
            key = file("host_key"),
            id = file("id"),
            home = file("home"),
        );
        std::fs::write(dir.join("sshd_config"), config).unwrap();
        let client = format!(
            "Host *\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  IdentityFile {id}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking accept-new\n  \
             LogLevel ERROR\n",
            user = user(),
            id = file("id"),
            known = file("known"),
        );
        std::fs::write(dir.join("ssh_config"), client).unwrap();
        let mut sshd = Self { child: Self::spawn(dir, host), dir: dir.to_owned(), port };
        sshd.wait().await;
        sshd
    }

    /// Starts one that is the host's own: its settings are `/etc/ssh/sshd_config`, to which
    /// more is added, and it reads them again when it is told. Besides root there are `deploy`,
    /// who may use sudo, and `DOM+me`. A line `umask …` in `more` is for the host. Needs root.
    pub async fn start_as_host(dir: &Path, more: &str) -> Self {
        let (umask, more): (Vec<&str>, Vec<&str>) = more.lines().partition(|line| line.starts_with("umask "));
        let umask = umask.concat();
        let more = more.iter().map(|line| format!("{line}\n")).collect::<String>();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(dir.join("more"), more).unwrap();
        let script = format!(
            "cd '{dir}'; mount -t tmpfs tmpfs /run; mkdir -p /run/sshd /run/sudo\n\
             for f in passwd shadow group sudoers; do cp -a /etc/$f $f; mount --bind $f /etc/$f; done\n\
             echo 'deploy:x:4242:4242::/tmp:/bin/sh' >>/etc/passwd; echo 'DOM+me:x:4243:4243::/tmp:/bin/sh' >>/etc/passwd\n\
             for u in deploy DOM+me; do echo \"$u:*:19000:0:99999:7:::\" >>/etc/shadow; done\n\
             printf 'Defaults !lecture\\ndeploy ALL=(ALL) NOPASSWD: ALL\\n' >/etc/sudoers; chmod 440 /etc/sudoers\n\
             sed -i 's,^PidFile.*,PidFile {dir}/pid,' sshd_config; cat more >>sshd_config\n\
             mount -t tmpfs -o mode=755 tmpfs /etc/ssh; ln -s '{dir}/sshd_config' /etc/ssh/sshd_config\n\
             mkdir sudoers.d; mount --bind sudoers.d /etc/sudoers.d; cd /; {umask}",
            dir = dir.display()
        );
        Self::start_in(dir, Some(&script)).await
    }

    fn spawn(dir: &Path, host: Option<&str>) -> Child {
        let _ = std::fs::create_dir_all("/run/sshd");
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let config = dir.join("sshd_config").display().to_string();
        let mut command = match host {
            None => Command::new("/usr/sbin/sshd"),
            Some(script) => {
                let mut command = Command::new("unshare");
                let script = format!("set -e\n{script}\nexec /usr/sbin/sshd \"$@\"");
                command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
                command
            }
        };
        command.args(["-D", "-e", "-f", &config]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.kill_on_drop(true).spawn().unwrap()
    }

    async fn wait(&mut self) {
        let start = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(start.elapsed() < DEADLINE && self.child.try_wait().unwrap().is_none(), "no sshd: {log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn config(&self) -> String {
        self.dir.join("ssh_config").display().to_string()
    }

    /// `legwork ssh` with this host's configuration, and connections that soon end.
    pub fn legwork(&self, args: &[&str]) -> Command {
        let mut command = legwork(&self.dir);
        command.args(["ssh", "--ssh-config", &self.config()]).args(args);
        if !args.contains(&"--persist") {
            command.env("LEGWORK_SSH_PERSIST", "5");
        }
        command.env("LEGWORK_MICRO_DIR", crate::micro::dist());
        command
    }

    /// Runs it to its end: status, standard output, standard error.
    pub async fn ssh(&self, args: &[&str]) -> (i32, String, String) {
        let output = tokio::time::timeout(DEADLINE, self.legwork(args).output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Gives sessions these variables, too.
    pub async fn set_env(&mut self, variables: &[(&str, &str)]) {
        let file = self.dir.join("sshd_config");
        let config = std::fs::read_to_string(&file).unwrap();
        // Only the first SetEnv counts.
        let more: String = variables.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        let config = config.lines().map(|line| match line.starts_with("SetEnv") {
            true => format!("{line}{more}\n"),
            false => format!("{line}\n"),
        });
        std::fs::write(&file, config.collect::<String>()).unwrap();
        self.restart().await;
    }

    /// Gives a setting of sshd's another value.
    pub async fn configure(&mut self, keyword: &str, value: &str) {
        let file = self.dir.join("sshd_config");
        let config = std::fs::read_to_string(&file).unwrap();
        let others = config.lines().filter(|line| !line.starts_with(keyword));
        let config: String = others.map(|line| format!("{line}\n")).collect();
        std::fs::write(&file, format!("{keyword} {value}\n{config}")).unwrap();
        self.restart().await;
    }

    async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        self.child = Self::spawn(&self.dir, None);
        self.wait().await;
    }

    /// Gives the host another key, as a host that was set up anew has.
    pub async fn change_key(&mut self) {
        let key = self.dir.join("host_key");
        std::fs::remove_file(&key).unwrap();
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key.display().to_string()]);
        self.restart().await;
    }
}

fn user() -> String {
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
