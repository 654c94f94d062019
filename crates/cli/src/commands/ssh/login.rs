//! What it takes to log in: the words for ssh, passwords, the micro-runners that go over.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use legwork_dialout::config::{Source, rules_of};
use legwork_policy::Policy;
use legwork_remote::{Binaries, Packed, Secret};

use crate::args::ssh::SshCommon;

/// The micro-runners that this program brings along, by processor (`build.rs` packs them).
const MICRO: &[(&str, Packed)] = include!(concat!(env!("OUT_DIR"), "/micro.rs"));

/// What the command line says to ssh.
pub(super) fn arguments(common: &SshCommon) -> Vec<String> {
    let mut args: Vec<String> = common.ssh_option.iter().map(|option| format!("-o{option}")).collect();
    args.extend(common.ssh_port.map(|port| format!("-oPort={port}")));
    args.extend(common.login.iter().map(|user| format!("-l{user}")));
    args.extend(common.jump.iter().map(|hosts| format!("-J{hosts}")));
    args.extend(common.identity.iter().map(|file| format!("-i{}", file.display())));
    args
}

pub(super) fn binaries(common: &SshCommon) -> Result<Binaries> {
    if let Some(dir) = &common.micro_dir {
        return Ok(Binaries::from_dir(dir)?);
    }
    let embedded = MICRO.iter().fold(Binaries::default(), |found, (processor, packed)| {
        found.with_packed("Linux", processor, *packed)
    });
    if embedded.is_empty() {
        bail!(
            "this program was built without micro-runners; `make micro` builds them, --micro-dir tells where"
        );
    }
    Ok(embedded)
}

pub(super) fn rules(file: &PathBuf) -> Result<Arc<Policy>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let rules = rules_of(&Source { path: file.clone(), text, original: false })?;
    Ok(Arc::new(rules.bash))
}

/// sudo's password, from whom it is to come; `None` if the person interrupted instead.
pub(super) async fn password(common: &SshCommon) -> Result<Option<Secret>> {
    if let Some(file) = &common.sudo_password_file {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        return Ok(Some(Secret(text.lines().next().unwrap_or_default().to_owned())));
    }
    if !common.ask_password {
        return Ok(Some(Secret::default()));
    }
    let terminal = Terminal::quiet().context("failed to ask for the password")?;
    let reader = terminal.file.try_clone()?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(reader), &mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = reading => line??,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            return Ok(None);
        }
    };
    Ok(Some(Secret(line.trim_end_matches(['\n', '\r']).to_owned())))
}

/// The person's terminal, which shows nothing of what is typed until it is dropped.
struct Terminal {
    file: std::fs::File,
    seen: rustix::termios::Termios,
}

impl Terminal {
    fn quiet() -> Result<Self> {
        let mut file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let seen = rustix::termios::tcgetattr(&file)?;
        let mut unseen = seen.clone();
        unseen.local_modes.remove(rustix::termios::LocalModes::ECHO);
        std::io::Write::write_all(&mut file, b"sudo password: ")?;
        rustix::termios::tcsetattr(&file, rustix::termios::OptionalActions::Flush, &unseen)?;
        Ok(Self { file, seen })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(&self.file, rustix::termios::OptionalActions::Flush, &self.seen);
        let _ = std::io::Write::write_all(&mut self.file, b"\n");
    }
}
