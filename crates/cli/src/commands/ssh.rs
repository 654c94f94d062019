//! `legwork ssh`: work on hosts where nothing is installed.

mod asked;
mod connected;
mod copy;
mod diff;
mod edit;
mod exec;
mod facts;
mod files;
mod fleet;
mod harden;
mod input;
mod inventory;
mod login;
mod relay;
mod report;
mod sync;
mod template;
mod tree;
mod work;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use legwork_remote::{Secret, Whom};

use crate::args::ssh::{BecomeMethod, SshArgs, SshCommon};
use fleet::Fleet;
use inventory::Inventory;

pub(crate) async fn run(args: SshArgs) -> Result<u8> {
    let mut common = args.common;
    sort_out(&mut common)?;
    let Some(password) = login::password(&common).await? else { return Ok(crate::exit::INTERRUPTED) };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let inventory =
        Inventory::load(common.inventory.as_deref(), common.ssh_config.as_deref(), home.as_deref())?;
    let inventory = Arc::new(inventory);
    if let (Some(_), Some(host)) = (&args.work, args.hosts.first()) {
        bail!("{host:?} stands before the name of a subcommand: hosts come after it, or give user@host");
    }
    let fleet = Fleet { whom: whom(&common, &password), password, common, inventory: Arc::clone(&inventory) };
    let relay = args.work.as_ref().map(relay::Relay::between).transpose()?.flatten();
    let work = match (args.work, &relay) {
        (Some(work), Some(relay)) => Some(relay.rest(work)?),
        (work, _) => work,
    };
    if let Some(relay) = &relay
        && let Some(status) = relay.fetch(&fleet).await?
    {
        return Ok(status);
    }
    let (hosts, work) = match work {
        None => asked::command(args.hosts, &args.command, &fleet.common)?,
        Some(work) => asked::work(work, &fleet.common, &inventory)?,
    };
    let targets = inventory.resolve(&hosts)?;
    fleet.carry_out(targets, work).await
}

/// As whom the command line says that work is done; `None` if it does not.
fn whom(common: &SshCommon, password: &Secret) -> Option<Whom> {
    let method = match common.become_method {
        None | Some(BecomeMethod::Sudo) => "",
        Some(BecomeMethod::Su) => "su",
        Some(BecomeMethod::Doas) => "doas",
    };
    let asked = common.sudo || common.become_user.is_some() || common.become_method.is_some();
    let user = common.become_user.clone().unwrap_or_default();
    asked.then(|| Whom { elevated: true, password: password.clone(), method: method.to_owned(), user })
}

/// `-i` is ssh's for a key, and was ours for the inventory: what the file is decides.
fn sort_out(common: &mut SshCommon) -> Result<()> {
    for file in std::mem::take(&mut common.identity) {
        if file.is_dir() {
            set_inventory(common, file)?;
            continue;
        }
        let mut start = [0u8; 16];
        let read = std::fs::File::open(&file)
            .and_then(|mut file| std::io::Read::read(&mut file, &mut start))
            .with_context(|| format!("failed to read {}", file.display()))?;
        let keys: [&[u8]; 4] = [b"-----BEGIN ", b"ssh-", b"ecdsa-", b"sk-"];
        if keys.iter().any(|key| start[..read].starts_with(key)) {
            common.identity.push(file);
        } else {
            set_inventory(common, file)?;
        }
    }
    Ok(())
}

fn set_inventory(common: &mut SshCommon, file: PathBuf) -> Result<()> {
    if common.inventory.replace(file).is_some() {
        bail!("there are two inventories, and one is all that is read");
    }
    Ok(())
}
