//! From the command line to the work, one function for each kind.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use legwork_remote::{PkgEnsure, ServiceReload, SshdHarden, SudoersEnsure};

use super::edit::{self, Edit, Place};
use super::files::{MAX_CONTENT, Put};
use super::inventory::Inventory;
use super::template::{self, Template};
use super::work::{Health, Work};
use super::{copy, exec, sync};
use crate::args::ssh::{
    BlockArgs, FileCommand, HardenArgs, LineArgs, PkgArgs, PkgState, PlaceArgs, ServiceAction, ServiceArgs,
    SshCommon, SshWork, SudoersArgs, TemplateArgs,
};

/// The hosts as they were written, and what is to be done there.
pub(super) type Asked = (Vec<String>, Work);

/// What a subcommand asks for.
pub(super) fn work(work: SshWork, common: &SshCommon, inventory: &Arc<Inventory>) -> Result<Asked> {
    match work {
        SshWork::Cp(cp) if cp.recursive => {
            let [from, to] = &cp.paths[..] else { bail!("-r copies one folder: cp -r site web1:/srv/site") };
            let (hosts, plan) = sync::Plan::copy(from, to, copy::Copier::new(&cp))?.split(inventory)?;
            Ok((hosts, Work::Sync(plan)))
        }
        SshWork::Cp(cp) => {
            let (hosts, plan) = copy::Plan::new(&cp)?.split(inventory)?;
            Ok((hosts, Work::Copy(plan)))
        }
        SshWork::Sync(args) => {
            let (hosts, plan) = sync::Plan::new(args)?.split(inventory)?;
            Ok((hosts, Work::Sync(plan)))
        }
        SshWork::Template(args) => fill_in(args, inventory),
        SshWork::Pkg(pkg) => packages(pkg),
        SshWork::Service(service) => services(service),
        SshWork::File(file) => one_file(file),
        SshWork::Sudoers(sudoers) => Ok(sudo_rule(sudoers, common)),
        SshWork::Harden(settings) => Ok(harden(settings, common)),
        SshWork::Facts { hosts } => Ok((hosts, Work::Facts)),
    }
}

/// A command.
pub(super) fn command(hosts: Vec<String>, words: &[String], common: &SshCommon) -> Result<Asked> {
    Ok((hosts, Work::Exec(exec::asked(words, common)?)))
}

fn fill_in(args: TemplateArgs, inventory: &Arc<Inventory>) -> Result<Asked> {
    let (hosts, path) =
        copy::remote(&args.to).with_context(|| format!("{}: the template's place is HOST:PATH", args.to))?;
    let name = args.from.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = [".j2", ".jinja", ".jinja2"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let path = if path.is_empty() || path.ends_with('/') { format!("{path}{name}") } else { path.to_owned() };
    let more = template::given(&args.vars, &args.var)?;
    let template = Template::load(&args.from, more, Arc::clone(inventory))?;
    let hosts = hosts.split_whitespace().map(str::to_owned).collect();
    Ok((hosts, Work::Template(Put { path, create: true, args: args.put }, Arc::new(template))))
}

fn packages(pkg: PkgArgs) -> Result<Asked> {
    let names = pkg.packages.len();
    match (pkg.state, names) {
        (PkgState::Refreshed, 1..) => bail!("pkg refreshed is for the lists of all packages; none is named"),
        (PkgState::Refreshed, _) => {}
        (_, 0) => bail!("which packages? They stand after --: pkg present web1 -- curl jq"),
        _ => {}
    }
    if pkg.pin.is_some() && names > 1 {
        bail!("--pin is for one package; {names} were named");
    }
    let state = match pkg.state {
        PkgState::Present => "present",
        PkgState::Absent => "absent",
        PkgState::Latest => "latest",
        PkgState::Purged => "purged",
        PkgState::Held => "held",
        PkgState::Unheld => "unheld",
        PkgState::Refreshed => "refreshed",
    };
    let one = |name: String, state: &str| PkgEnsure {
        name,
        state: state.to_owned(),
        version: pkg.pin.clone().unwrap_or_default(),
        manager: pkg.manager.clone().unwrap_or_default(),
        options: pkg.option.clone(),
        dry_run: pkg.dry_run,
        ..Default::default()
    };
    let mut all: Vec<PkgEnsure> = Vec::new();
    if pkg.refresh || pkg.state == PkgState::Refreshed {
        all.push(PkgEnsure { version: String::new(), ..one(String::new(), "refreshed") });
    }
    all.extend(pkg.packages.iter().cloned().map(|name| one(name, state)));
    Ok((pkg.hosts, Work::Packages(all)))
}

fn services(service: ServiceArgs) -> Result<Asked> {
    let action = match service.action {
        ServiceAction::Reload => "reload",
        ServiceAction::Restart => "restart",
        ServiceAction::Start => "start",
        ServiceAction::Stop => "stop",
        ServiceAction::Enable => "enable",
        ServiceAction::Disable => "disable",
        ServiceAction::Mask => "mask",
        ServiceAction::Unmask => "unmask",
        ServiceAction::Status => "status",
        ServiceAction::DaemonReload => "daemon-reload",
    };
    let mut names = service.services;
    match (service.action, names.len()) {
        (ServiceAction::DaemonReload, 0) => names.push(String::new()),
        (ServiceAction::DaemonReload, _) => bail!("daemon-reload is for all units; none is named"),
        (_, 0) => bail!("which services? They stand after --: service restart web1 -- nginx"),
        _ => {}
    }
    let one = |name: String| ServiceReload {
        name,
        action: action.to_owned(),
        dry_run: service.dry_run,
        ..Default::default()
    };
    let health = service.healthy.map(|command| Health { command, within: service.within });
    Ok((service.hosts, Work::Services(names.into_iter().map(one).collect(), health)))
}

fn one_file(file: FileCommand) -> Result<Asked> {
    match file {
        FileCommand::Read { hosts, path } => Ok((hosts, Work::Read(path))),
        FileCommand::Write { hosts, path, content, from, existing, put } => {
            let bytes = content.map_or_else(|| read_local(from.as_deref()), |text| Ok(text.into_bytes()))?;
            Ok((hosts, Work::Write(Put { path, create: !existing, args: put }, bytes)))
        }
        FileCommand::Line(args) => line(*args),
        FileCommand::Block(args) => block(*args),
    }
}

fn place(args: &PlaceArgs) -> Result<Place> {
    Ok(match (&args.after, &args.before) {
        (Some(after), _) => Place::After(edit::pattern("--after", after)?),
        (_, Some(before)) => Place::Before(edit::pattern("--before", before)?),
        _ if args.at_start => Place::Start,
        _ => Place::End,
    })
}

fn line(args: LineArgs) -> Result<Asked> {
    if args.line.as_ref().is_some_and(|line| line.contains(['\n', '\r'])) {
        bail!("--line is one line; `file block` puts several");
    }
    let matches = args.matching.as_deref().map(|text| edit::pattern("--match", text)).transpose()?;
    let edit = match (args.absent, args.line) {
        (true, line) => Edit::NoLine { line, matches },
        (false, Some(line)) => Edit::Line { line, matches, expand: args.expand, place: place(&args.place)? },
        (false, None) => bail!("--line is needed, or --absent"),
    };
    Ok((args.hosts, Work::Edit(Put { path: args.path, create: args.create, args: args.put }, edit)))
}

fn block(args: BlockArgs) -> Result<Asked> {
    let (begin, end) = edit::markers(&args.marker, &args.name)?;
    let content = match (args.absent, args.content) {
        (true, _) => None,
        (false, Some(content)) => Some(content),
        (false, None) => {
            let bytes = read_local(args.from.as_deref())?;
            Some(String::from_utf8(bytes).context("the block is no text in UTF-8")?)
        }
    };
    let edit = Edit::Block { begin, end, content, place: place(&args.place)? };
    Ok((args.hosts, Work::Edit(Put { path: args.path, create: args.create, args: args.put }, edit)))
}

fn sudo_rule(sudoers: SudoersArgs, common: &SshCommon) -> Asked {
    let ensure = SudoersEnsure {
        user: sudoers.user,
        commands: sudoers.commands,
        no_passwd: sudoers.no_password,
        state: if sudoers.absent { "absent" } else { "present" }.to_owned(),
        dry_run: sudoers.dry_run,
        diff: common.diff,
        ..Default::default()
    };
    (sudoers.hosts, Work::Sudoers(ensure))
}

fn harden(harden: HardenArgs, common: &SshCommon) -> Asked {
    let settings = SshdHarden {
        disable_password_auth: harden.no_password_auth,
        disable_root_login: harden.no_root_login,
        allow_users: harden.allow_user,
        port: harden.port.map(i64::from),
        test_connection: !harden.no_test,
        dry_run: harden.dry_run,
        diff: common.diff,
        ..Default::default()
    };
    (harden.hosts, Work::Harden(settings))
}

/// A local file, or standard input, that fits into one command.
fn read_local(from: Option<&Path>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let from = from.context("--content or --from is needed")?;
    if from.as_os_str() == "-" {
        std::io::stdin()
            .take(MAX_CONTENT as u64 + 1)
            .read_to_end(&mut bytes)
            .context("failed to read standard input")?;
    } else {
        let file = std::fs::File::open(from).with_context(|| format!("failed to open {}", from.display()))?;
        file.take(MAX_CONTENT as u64 + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() > MAX_CONTENT {
        bail!("{} is larger than 7 MiB; `legwork ssh cp` copies files of any size", from.display());
    }
    Ok(bytes)
}
