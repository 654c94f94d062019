//! `legwork ssh`: work on hosts where nothing is installed.

mod copy;
mod diff;
mod harden;
mod input;
mod inventory;
mod report;
mod sync;
mod tree;
mod work;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use legwork_dialout::config::{Source, rules_of};
use legwork_policy::Policy;
use legwork_remote::{
    Binaries, Client, Error, FileRead, FileWrite, Options, Outcome, PkgEnsure, Pool, Secret, ServiceReload,
    Ssh, SshdHarden, SudoersEnsure, Template, Transport,
};

use crate::args::ssh::{BecomeMethod, FileCommand, PkgState, ServiceAction, SshArgs, SshCommon, SshWork};
use crate::{exit, output};
use inventory::{Inventory, Target};
use report::{Printer, Report, State, Style};
use work::Work;

/// With more hosts than this, connections do not stay for the next call.
const FEW: usize = 20;
/// Beyond a command's time, the runner lives so much longer.
const SPARE: Duration = Duration::from_secs(60);
/// The largest file that is written at once; a line holds it in base64.
const MAX_CONTENT: u64 = 7 * 1024 * 1024;

/// The micro-runners that this program brings along.
#[derive(rust_embed::Embed)]
#[folder = "../../dist"]
#[include = "legwork-micro-*-linux"]
#[allow_missing = true]
struct Micro;

pub(crate) async fn run(args: SshArgs) -> Result<u8> {
    let mut common = args.common;
    sort_out(&mut common)?;
    let Some(secret) = password(&common).await? else { return Ok(crate::exit::INTERRUPTED) };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let inventory =
        Inventory::load(common.inventory.as_deref(), common.ssh_config.as_deref(), home.as_deref())?;
    if let (Some(_), Some(host)) = (&args.work, args.hosts.first()) {
        bail!("{host:?} stands before the name of a subcommand: hosts come after it, or give user@host");
    }
    let method = || match common.become_method {
        None | Some(BecomeMethod::Sudo) => String::new(),
        Some(BecomeMethod::Su) => "su".to_owned(),
        Some(BecomeMethod::Doas) => "doas".to_owned(),
    };
    let sudo = common.sudo || common.become_user.is_some() || common.become_method.is_some();
    if !sudo && !secret.is_empty() {
        bail!("a password for sudo is of use with --sudo, --become-user or --become-method");
    }
    let pass = || secret.clone();
    let (hosts, work) = match args.work {
        None => (args.hosts, Work::exec(&args.command, &common, sudo, method(), pass())?),
        Some(SshWork::Cp(cp)) if cp.recursive => {
            let [from, to] = &cp.paths[..] else { bail!("-r copies one folder: cp -r site web1:/srv/site") };
            let plan = sync::Plan::copy(from, to, copy::Copier::new(&cp, sudo, pass(), method()))?;
            let (hosts, plan) = plan.split(&inventory)?;
            (hosts, Work::Sync(plan))
        }
        Some(SshWork::Sync(args)) => {
            let (hosts, plan) = sync::Plan::new(args, sudo, pass(), method())?.split(&inventory)?;
            (hosts, Work::Sync(plan))
        }
        Some(SshWork::Cp(cp)) => {
            let plan = copy::Plan::new(cp, (sudo, pass(), method()), common.diff)?;
            let (hosts, plan) = plan.split(&inventory)?;
            (hosts, Work::Copy(plan))
        }
        Some(SshWork::Pkg(pkg)) => {
            if pkg.pin.is_some() && pkg.packages.len() > 1 {
                bail!("--pin is for one package; {} were named", pkg.packages.len());
            }
            let state = match pkg.state {
                PkgState::Present => "present",
                PkgState::Absent => "absent",
                PkgState::Latest => "latest",
            };
            let one = |name: String| PkgEnsure {
                name,
                state: state.to_owned(),
                version: pkg.pin.clone().unwrap_or_default(),
                manager: pkg.manager.clone().unwrap_or_default(),
                options: pkg.option.clone(),
                use_sudo: sudo,
                sudo_password: pass(),
                become_method: method(),
                dry_run: pkg.dry_run,
            };
            (pkg.hosts, Work::Packages(pkg.packages.into_iter().map(one).collect()))
        }
        Some(SshWork::Service(service)) => {
            let action = match service.action {
                ServiceAction::Reload => "reload",
                ServiceAction::Restart => "restart",
                ServiceAction::Start => "start",
                ServiceAction::Stop => "stop",
                ServiceAction::Enable => "enable",
                ServiceAction::Disable => "disable",
            };
            let one = |name: String| ServiceReload {
                name,
                action: action.to_owned(),
                use_sudo: sudo,
                sudo_password: pass(),
                become_method: method(),
                dry_run: service.dry_run,
            };
            (service.hosts, Work::Services(service.services.into_iter().map(one).collect()))
        }
        Some(SshWork::File(FileCommand::Read { hosts, path })) => {
            let read = FileRead {
                path,
                use_sudo: sudo,
                sudo_password: pass(),
                become_method: method(),
                ..Default::default()
            };
            (hosts, Work::Read(read))
        }
        Some(SshWork::File(FileCommand::Write {
            hosts,
            path,
            content,
            from,
            mode,
            owner,
            group_name,
            backup,
            existing,
            dry_run,
        })) => {
            let bytes = content.map_or_else(|| read_local(from.as_deref()), |text| Ok(text.into_bytes()))?;
            let write = FileWrite {
                path,
                mode: mode.unwrap_or_default(),
                owner: owner.unwrap_or_default(),
                group: group_name.unwrap_or_default(),
                create: !existing,
                backup,
                use_sudo: sudo,
                sudo_password: pass(),
                become_method: method(),
                dry_run,
                ..work::content(&bytes)
            };
            (hosts, Work::Write(write, common.diff.then_some(bytes)))
        }
        Some(SshWork::Sudoers(sudoers)) => {
            let ensure = SudoersEnsure {
                user: sudoers.user,
                commands: sudoers.commands,
                no_passwd: sudoers.no_password,
                state: if sudoers.absent { "absent" } else { "present" }.to_owned(),
                use_sudo: sudo,
                sudo_password: pass(),
                become_method: method(),
                dry_run: sudoers.dry_run,
            };
            (sudoers.hosts, Work::Sudoers(ensure))
        }
        Some(SshWork::Harden(harden)) => {
            let settings = SshdHarden {
                disable_password_auth: harden.no_password_auth,
                disable_root_login: harden.no_root_login,
                allow_users: harden.allow_user,
                port: harden.port.map(i64::from),
                test_connection: !harden.no_test,
                use_sudo: sudo,
                sudo_password: pass(),
                become_method: method(),
                dry_run: harden.dry_run,
                ..Default::default()
            };
            (harden.hosts, Work::Harden(settings))
        }
    };
    let targets = inventory.resolve(&hosts)?;
    carry_out(&common, targets, work).await
}

/// `-i` is ssh's for a key, and was ours for the inventory: what the file is decides.
fn sort_out(common: &mut SshCommon) -> Result<()> {
    for file in std::mem::take(&mut common.identity) {
        let mut start = [0u8; 16];
        let read = std::fs::File::open(&file)
            .and_then(|mut file| std::io::Read::read(&mut file, &mut start))
            .with_context(|| format!("failed to read {}", file.display()))?;
        let keys: [&[u8]; 4] = [b"-----BEGIN ", b"ssh-", b"ecdsa-", b"sk-"];
        if keys.iter().any(|key| start[..read].starts_with(key)) {
            common.identity.push(file);
        } else if common.inventory.replace(file).is_some() {
            bail!("there are two inventories, and one is all that is read");
        }
    }
    Ok(())
}

async fn carry_out(common: &SshCommon, targets: Vec<Target>, work: Work) -> Result<u8> {
    let style = match (common.json, common.group, targets.len()) {
        (true, _, _) => Style::Json,
        (_, true, _) => Style::Grouped,
        (_, _, 1) => Style::Plain,
        _ => Style::Prefixed,
    };
    let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
    let printer = Arc::new(Printer::new(style, &names));
    let policy = common.policy.as_ref().map(rules).transpose()?;
    let steps = u32::try_from(work.steps()).unwrap_or(u32::MAX);
    let options = Options {
        ttl: Some(Duration::from_secs(common.timeout).saturating_mul(steps) + SPARE),
        policy,
        ..Default::default()
    };
    let few = targets.len() <= FEW;
    let persist = Duration::from_secs(common.persist.unwrap_or(if few { 60 } else { 0 }));
    let (interrupt, interrupted) = tokio::sync::watch::channel(false);
    let shared = Arc::new(Shared {
        interrupted,
        binaries: binaries(common)?,
        options,
        interactive: targets.len() == 1 && rustix::termios::isatty(std::io::stdin()),
        persist,
        timeout: Duration::from_secs(common.timeout),
        common: common.clone(),
        printer: Arc::clone(&printer),
        stdin: (names.len() == 1 && !common.no_input && matches!(work, Work::Exec(_)))
            .then(input::Input::open)
            .flatten(),
        work,
    });
    let begun = Instant::now();
    let mut pool = Pool::default().concurrency(common.parallel);
    if let Some(most) = common.max_failures.or(common.fail_fast.then_some(1)) {
        pool = pool.max_failures(most);
    }
    if !common.serial.is_empty() {
        pool = pool.waves(waves(&common.serial, names.len())?);
    }
    let runs_commands = matches!(shared.work, Work::Exec(_));
    let working = pool.run(
        targets,
        |target| {
            let shared = Arc::clone(&shared);
            async move {
                let report = shared.on_host(&target).await;
                if report.state == State::Succeeded { Ok(report) } else { Err(report) }
            }
        },
        |at, outcome| match outcome {
            Outcome::Done(report) | Outcome::Failed(report) => printer.ended(report),
            Outcome::Skipped => printer.ended(&skipped(&names[at])),
        },
    );
    tokio::pin!(working);
    let outcomes = tokio::select! {
        outcomes = &mut working => outcomes,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            eprintln!("legwork: interrupted; what was running on the hosts is being ended");
            let _ = interrupt.send(true);
            working.await
        }
        // What changes hosts is done to its end; a command's output is what it is run for.
        () = output::reader_gone(), if runs_commands => {
            let _ = interrupt.send(true);
            working.await;
            return Ok(exit::PIPE);
        }
    };
    let reports: Vec<Report> = outcomes
        .into_iter()
        .zip(&names)
        .map(|(outcome, name)| match outcome {
            Outcome::Done(report) | Outcome::Failed(report) => report,
            Outcome::Skipped => skipped(name),
        })
        .collect();
    if let Some(file) = &common.failed_to {
        let failed = reports.iter().filter(|report| report.state != State::Succeeded);
        let lines: String = failed.map(|report| format!("{}\n", report.host)).collect();
        std::fs::write(file, lines).with_context(|| format!("failed to write {}", file.display()))?;
    }
    Ok(report::finish(&reports, style, begun.elapsed()))
}

/// How many hosts each wave has: a number, or a part of all, of which one is the least.
fn waves(words: &[String], hosts: usize) -> Result<Vec<usize>> {
    let size = |word: &String| {
        let (number, part) = word.strip_suffix('%').map_or((word.as_str(), false), |number| (number, true));
        let number: usize = number.parse().ok().filter(|number| *number > 0)?;
        Some(if part { (hosts * number.min(100) / 100).max(1) } else { number })
    };
    words
        .iter()
        .map(|word| {
            size(word).with_context(|| format!("--serial {word}: expected a number of hosts, or 10%"))
        })
        .collect()
}

fn skipped(name: &str) -> Report {
    let error = Some("not tried: too many hosts had failed before".to_owned());
    Report { error, ..Report::new(name, State::Skipped) }
}

/// What work on every host needs.
struct Shared {
    interrupted: tokio::sync::watch::Receiver<bool>,
    binaries: Binaries,
    options: Options,
    interactive: bool,
    persist: Duration,
    timeout: Duration,
    common: SshCommon,
    printer: Arc<Printer>,
    work: Work,
    /// Our standard input, for the one host that there is.
    stdin: Option<input::Input>,
}

impl Shared {
    async fn on_host(&self, target: &Target) -> Report {
        let begun = Instant::now();
        let mut interrupted = self.interrupted.clone();
        let result = tokio::select! {
            biased;
            // The connection is dropped: that ends the runner, and what it runs.
            _ = interrupted.wait_for(|yes| *yes) => {
                let error = Some("interrupted".to_owned());
                return Report { error, ..Report::new(&target.name, State::Interrupted) };
            }
            result = self.try_host(target) => result,
        };
        let mut report = match result {
            Ok(report) => report,
            Err(error) => {
                let state = state_of(&error);
                Report { error: Some(work::explain(&error)), ..Report::new(&target.name, state) }
            }
        };
        report.seconds = begun.elapsed().as_secs_f64();
        report
    }

    async fn try_host(&self, target: &Target) -> Result<Report, Error> {
        if let Some(via) = &self.common.via {
            // A host's name goes into the program's arguments: the same names as for ssh.
            Ssh::new(&target.address)?;
            let words = via.split_whitespace().map(|word| word.replace("{host}", &target.address));
            return self.with(&Template::new(&target.name, words), target, None).await;
        }
        let mut ssh = Ssh::new(&target.address)?.interactive(self.interactive).persist(self.persist);
        ssh = ssh.retries(self.common.connect_retries);
        if let Some(config) = &self.common.ssh_config {
            ssh = ssh.arg(format!("-F{}", config.display()));
        }
        // ssh takes the first of each: what the host's name itself says, then the command line.
        for arg in target.named.iter().chain(&arguments(&self.common)) {
            ssh = ssh.arg(arg);
        }
        for arg in &target.args {
            ssh = ssh.arg(arg);
        }
        let way = harden::Way { ssh: &ssh, binaries: &self.binaries, options: &self.options };
        let report = self.with(&ssh, target, Some(&way)).await;
        if self.persist.is_zero() {
            ssh.disconnect().await;
        }
        report
    }

    async fn with(
        &self,
        transport: &dyn Transport,
        target: &Target,
        way: Option<&harden::Way<'_>>,
    ) -> Result<Report, Error> {
        let client = Client::start(transport, &self.binaries, self.options.clone()).await?;
        let mut report = Report::new(&target.name, State::Succeeded);
        let given =
            work::Given { printer: &self.printer, timeout: self.timeout, way, stdin: self.stdin.as_ref() };
        let done = self.work.run(&client, target, &given, &mut report).await;
        client.close().await;
        // What was done before something failed is part of the report.
        if let Err(error) = done {
            report.state = state_of(&error);
            report.error = Some(work::explain(&error));
        }
        Ok(report)
    }
}

fn state_of(error: &Error) -> State {
    match error {
        Error::Denied(_) => State::Denied,
        Error::Command(failure) if failure.code == "TIMEOUT" => State::TimedOut,
        Error::ResponseTimeout | Error::Read(_) | Error::Exited | Error::Send(_) => State::Lost,
        error if error.is_unreachable() => State::Unreachable,
        _ => State::Failed,
    }
}

/// What the command line says to ssh.
fn arguments(common: &SshCommon) -> Vec<String> {
    let mut args: Vec<String> = common.ssh_option.iter().map(|option| format!("-o{option}")).collect();
    args.extend(common.ssh_port.map(|port| format!("-oPort={port}")));
    args.extend(common.login.iter().map(|user| format!("-l{user}")));
    args.extend(common.jump.iter().map(|hosts| format!("-J{hosts}")));
    args.extend(common.identity.iter().map(|file| format!("-i{}", file.display())));
    args
}

fn binaries(common: &SshCommon) -> Result<Binaries> {
    if let Some(dir) = &common.micro_dir {
        return Ok(Binaries::from_dir(dir)?);
    }
    let embedded = ["x86_64", "aarch64"].into_iter().fold(Binaries::default(), |found, processor| {
        match Micro::get(&format!("legwork-micro-{processor}-linux")) {
            Some(file) => found.with_digest("Linux", processor, file.data, &file.metadata.sha256_hash()),
            None => found,
        }
    });
    if embedded.is_empty() {
        bail!(
            "this program was built without micro-runners; `make micro` builds them, --micro-dir tells where"
        );
    }
    Ok(embedded)
}

fn rules(file: &PathBuf) -> Result<Arc<Policy>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let rules = rules_of(&Source { path: file.clone(), text, original: false })?;
    Ok(Arc::new(rules.bash))
}

/// sudo's password, from whom it is to come; `None` if the person interrupted instead.
async fn password(common: &SshCommon) -> Result<Option<Secret>> {
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

/// A local file, or standard input, that fits into one command.
fn read_local(from: Option<&std::path::Path>) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let from = from.context("--content or --from is needed")?;
    if from.as_os_str() == "-" {
        std::io::stdin()
            .take(MAX_CONTENT + 1)
            .read_to_end(&mut bytes)
            .context("failed to read standard input")?;
    } else {
        let file = std::fs::File::open(from).with_context(|| format!("failed to open {}", from.display()))?;
        file.take(MAX_CONTENT + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_CONTENT {
        bail!("{} is larger than 7 MiB; `legwork ssh cp` copies files of any size", from.display());
    }
    Ok(bytes)
}
