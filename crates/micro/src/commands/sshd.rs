//! `sshd.harden`: a few settings of sshd, tried before they are in place and taken back if
//! sshd doesn't come up with them.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use legwork_proto::micro::result;
use rustix::process::{Pid, Signal, kill_process};

use super::file::{self, Content, Stage};
use super::service::is_booted;
use super::sshd_config::{Config, Setting, Source, same};
use super::{sshd_lockout as lockout, sshd_pending as pending};
use crate::fields::Fields;
use crate::os::cause;
use crate::process::{Job, Keep, look_up};
use crate::request::{Context, Request, Trouble};

const CONFIG: &str = "/etc/ssh/sshd_config";
const BACKUP: &str = "/etc/ssh/sshd_config.bak";
/// Where Debian keeps what only root needs.
const SSHD: &[&str] = &["/usr/sbin/sshd", "sshd", "/sbin/sshd", "/usr/local/sbin/sshd"];
/// A file of sshd's settings is smaller.
const MAX_FILE: u64 = 1024 * 1024;
/// How long sshd has to answer after a reload.
const ANSWER: Duration = Duration::from_secs(5);
/// The longest wait for a confirmation, in seconds.
const MAX_WAIT: u64 = 3600;
/// A reload takes a moment, and the old listener answers till then.
const SETTLE: Duration = Duration::from_millis(300);

const PARAMS: &[&str] = &[
    "disable_password_auth",
    "disable_root_login",
    "allow_users",
    "port",
    "test_connection",
    "dry_run",
    "confirm_within",
    "confirm",
    "undo",
    "keep_watch",
    "diff",
];

pub(super) struct Files;

impl Source for Files {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn glob(&self, pattern: &str) -> Vec<PathBuf> {
        glob(pattern)
    }
}

pub(super) fn run(context: &mut Context<'_>, request: &Request) -> Result<result::SshdHarden, Trouble> {
    let fields = Fields::parse(&request.params, PARAMS)?;
    if let Some(order) = fields.raw("keep_watch").filter(|_| context.elevated) {
        pending::keep_watch(context, order)?;
        return Ok(answer("restored", &[], String::new()));
    }
    let (confirm, undo) = (fields.string("confirm")?, fields.string("undo")?);
    if !confirm.is_empty() {
        pending::confirm(&confirm)?;
        return Ok(answer("confirmed", &[], String::new()));
    }
    if !undo.is_empty() {
        pending::undo(context, &undo)?;
        return Ok(answer("restored", &[], String::new()));
    }
    harden(context, &fields)
}

fn harden(context: &mut Context<'_>, fields: &Fields<'_>) -> Result<result::SshdHarden, Trouble> {
    let settings = settings(fields)?;
    let (test, dry_run) = (fields.boolean("test_connection")?, fields.boolean("dry_run")?);
    let within = u64::try_from(fields.integer("confirm_within")?).unwrap_or(0).min(MAX_WAIT);
    let main = Path::new(CONFIG);
    if within > 0 {
        lockout::check(context, &settings)?;
    }
    if !dry_run {
        back_up(main).map_err(|error| format!("failed to create backup: {}", cause(&error)))?;
    }
    let unread = |why| format!("failed to read sshd_config: {why}");
    let mut config = Config::load(&Files, main).map_err(unread)?;
    let mut all = settings.clone();
    let mut users = Vec::new();
    if within > 0 {
        config.load_blocks(&Files).map_err(unread)?;
        all.extend(lockout::as_well(context, find_sshd()?, &settings));
        users = lockout::users(context, &config);
    }
    let former = config.clone();
    all.iter().for_each(|setting| config.set(setting));
    if within > 0 {
        config.set_in_blocks(&all);
    }
    if !config.files.iter().any(|file| file.changed) {
        return Ok(answer("none", &settings, String::new()));
    }
    let effective = try_out(context, find_sshd()?, &config, &all, &users)?;
    let files = if fields.boolean("diff")? { changes(&former, &config) } else { Vec::new() };
    if dry_run {
        return Ok(result::SshdHarden { files, ..answer("reloaded", &settings, String::new()) });
    }
    let watch = (within > 0).then(|| pending::arm(context, &former, &effective, within)).transpose()?;
    let up = put_in_place(context, &config, &former, &effective, test || within > 0);
    if let Err(why) = up {
        take_back(context, Some(&former), &effective);
        // Nothing is left to take back.
        watch.iter().for_each(|token| drop(pending::confirm(token)));
        return Err(why);
    }
    Ok(result::SshdHarden { files, ..answer("reloaded", &settings, watch.unwrap_or_default()) })
}

/// What changes in which file.
fn changes(former: &Config, config: &Config) -> Vec<Vec<String>> {
    let text = |lines: &[Vec<u8>]| String::from_utf8_lossy(&lines.concat()).into_owned();
    let pairs = former.files.iter().zip(&config.files).filter(|(_, file)| file.changed);
    pairs
        .map(|(before, after)| {
            vec![after.path.to_string_lossy().into_owned(), text(&before.lines), text(&after.lines)]
        })
        .collect()
}

fn put_in_place(
    context: &mut Context<'_>,
    config: &Config,
    former: &Config,
    effective: &Effective,
    test: bool,
) -> Result<(), Trouble> {
    install(config, former)?;
    let listeners = listeners(effective);
    reload(context, effective).map_err(|why| why.context("failed to reload sshd"))?;
    if test { answers(context, effective, &listeners) } else { Ok(()) }
}

/// Puts the former settings back, if they are not yet, and in use.
pub(super) fn take_back(context: &mut Context<'_>, former: Option<&Config>, effective: &Effective) {
    if let Some(former) = former {
        restore(former);
    }
    // Whatever happened: the old settings should be the ones in use. There may be no time
    // left, so it has a little of its own.
    context.deadline = Instant::now() + ANSWER;
    let _ = reload(context, effective);
}

fn find_sshd() -> Result<&'static str, Trouble> {
    let found = SSHD.iter().find(|program| look_up(program).is_ok_and(|found| found.exists()));
    found.copied().ok_or_else(|| "sshd config test failed: sshd -t failed: sshd is not installed".into())
}

fn answer(action: &str, settings: &[Setting], pending: String) -> result::SshdHarden {
    result::SshdHarden {
        changed: action != "none",
        backup_path: BACKUP.to_owned(),
        modified_keys: settings.iter().map(|setting| setting.keyword.to_owned()).collect(),
        service_action: action.to_owned(),
        pending,
        files: Vec::new(),
    }
}

fn settings(fields: &Fields<'_>) -> Result<Vec<Setting>, Trouble> {
    let mut settings = Vec::new();
    let no = |keyword| Setting { keyword, values: vec!["no".to_owned()], adds_up: false, aliases: &[] };
    if fields.boolean("disable_password_auth")? {
        settings.push(no("PasswordAuthentication"));
    }
    if fields.boolean("disable_root_login")? {
        settings.push(no("PermitRootLogin"));
    }
    let users = fields.strings("allow_users")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.@*?!:/%+-".contains(c);
    if let Some(user) = users.iter().find(|u| u.is_empty() || u.starts_with('-') || !u.chars().all(plain)) {
        return Err(format!("allow_users: {user:?} is not a pattern of users").into());
    }
    if !users.is_empty() {
        settings.push(Setting { keyword: "AllowUsers", values: users, adds_up: true, aliases: &[] });
    }
    match fields.integer("port")? {
        0 => {}
        port @ 1..=65535 => {
            let values = vec![port.to_string()];
            settings.push(Setting { keyword: "Port", values, adds_up: true, aliases: &[] });
        }
        port => return Err(format!("port: {port} is not between 1 and 65535").into()),
    }
    Ok(settings)
}

fn back_up(main: &Path) -> std::io::Result<()> {
    let found = std::fs::metadata(main)?;
    let content = Files.read(main)?;
    file::replace(Path::new(BACKUP), Content::Bytes(&content), file::attributes_of(&found))
        .map_err(into_error)
}

pub(super) fn into_error(stage: Stage) -> std::io::Error {
    let (Stage::Write(error) | Stage::Mode(error) | Stage::Owner(error)) = stage;
    error
}

/// What sshd makes of a config: keyword and value, in lower case.
pub(super) type Effective = Vec<(String, String)>;

/// Has sshd read a copy of the new config, and looks whether the settings hold: for
/// everybody, and for these users.
fn try_out(
    context: &mut Context<'_>,
    sshd: &str,
    config: &Config,
    settings: &[Setting],
    users: &[String],
) -> Result<Effective, Trouble> {
    let failed = |why: Trouble| why.context("sshd config test failed: sshd -t failed");
    let folder = draft(config).map_err(|error| failed(cause(&error).into()))?;
    let main = folder.join("0").to_string_lossy().into_owned();
    let told = (|| {
        ask(context, sshd, &["-t", "-f", &main]).map_err(failed)?;
        let everybody = ask(context, sshd, &["-T", "-f", &main]).map_err(failed)?;
        holds(&everybody, settings, "")?;
        for user in users {
            let who = format!("user={user},host=localhost,addr=127.0.0.1");
            let told = ask(context, sshd, &["-T", "-f", &main, "-C", &who]).map_err(failed)?;
            holds(&told, settings, &format!(" for {user}"))?;
        }
        Ok(everybody)
    })();
    let _ = std::fs::remove_dir_all(&folder);
    told
}

pub(super) fn ask(context: &mut Context<'_>, sshd: &str, args: &[&str]) -> Result<Effective, Trouble> {
    let keep = Keep::Capture(256 * 1024);
    let told = context.succeed(&Job { out: keep, err: keep, ..Job::new(sshd, args) })?;
    let text = String::from_utf8_lossy(&told.stdout.bytes);
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(keyword, value)| (keyword.to_ascii_lowercase(), value.trim().to_owned())).collect())
}

fn holds(effective: &Effective, settings: &[Setting], whom: &str) -> Result<(), Trouble> {
    for setting in settings {
        let keyword = setting.keyword.to_ascii_lowercase();
        let mut values: Vec<String> = Vec::new();
        for (_, value) in effective.iter().filter(|(name, _)| *name == keyword) {
            values.extend(value.split_whitespace().map(str::to_owned));
        }
        if !same(&values, &setting.values, true) {
            let (keyword, has) = (setting.keyword, values.join(" "));
            return Err(format!("sshd config test failed: {keyword} would still be {has:?}{whom}").into());
        }
    }
    Ok(())
}

/// Writes the new config into a private folder. What it includes goes there too, if any of
/// that is new.
fn draft(config: &Config) -> std::io::Result<PathBuf> {
    let (name, _) = file::temporary(&std::env::temp_dir().join("legwork-sshd"))?;
    let folder = name.with_extension("d");
    let _ = std::fs::remove_file(&name);
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let included_changed = config.files.iter().skip(1).any(|file| file.changed);
    let drafted = if included_changed { config.files.len() } else { 1 };
    let place = |at: usize| {
        let path = if included_changed { folder.join(at.to_string()) } else { config.files[at].path.clone() };
        path.to_string_lossy().into_owned()
    };
    (0..drafted).try_for_each(|at| std::fs::write(folder.join(at.to_string()), config.draft(at, &place)))?;
    Ok(folder)
}

fn install(config: &Config, former: &Config) -> Result<(), Trouble> {
    for file in config.files.iter().filter(|file| file.changed) {
        if let Err(error) = put(&file.path, &file.lines) {
            restore(former);
            return Err(format!("failed to write sshd_config: {}", cause(&error)).into());
        }
    }
    Ok(())
}

pub(super) fn put(path: &Path, lines: &[Vec<u8>]) -> std::io::Result<()> {
    let target = file::target(path)?;
    let found = std::fs::metadata(&target)?;
    file::replace(&target, Content::Bytes(&lines.concat()), file::attributes_of(&found)).map_err(into_error)
}

/// Puts back what is no longer as it was.
fn restore(former: &Config) {
    for file in &former.files {
        if Files.read(&file.path).ok() != Some(file.lines.concat()) {
            let _ = put(&file.path, &file.lines);
        }
    }
}

fn reload(context: &mut Context<'_>, effective: &Effective) -> Result<(), Trouble> {
    if !is_booted() {
        // Without systemd sshd has only its process file.
        let file = effective.iter().find(|(keyword, _)| keyword == "pidfile");
        let pid = file.and_then(|(_, path)| std::fs::read_to_string(path).ok()?.trim().parse::<i32>().ok());
        if let Some(pid) = pid.filter(|pid| is_sshd(*pid)).and_then(Pid::from_raw) {
            return kill_process(pid, Signal::HUP).map_err(|error| cause(&error.into()).into());
        }
    }
    let keep = Keep::Capture(64 * 1024);
    let mut ask = |unit| {
        let job = Job { out: keep, err: keep, ..Job::new("systemctl", &["reload", "--", unit]) };
        context.succeed(&job)
    };
    match ask("sshd") {
        Err(Trouble::Failed(..)) => ask("ssh").map(drop),
        other => other.map(drop),
    }
}

fn is_sshd(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sshd")
}

fn addresses(effective: &Effective) -> Vec<SocketAddr> {
    let listens = effective.iter().filter(|(keyword, _)| keyword == "listenaddress");
    listens.filter_map(|(_, value)| value.parse().ok()).map(reachable).collect()
}

/// The sockets that listen on sshd's ports, by their numbers: a daemon that read its
/// configuration again has others.
fn listeners(effective: &Effective) -> Vec<String> {
    let ports: Vec<String> = addresses(effective).iter().map(|at| format!(":{:04X}", at.port())).collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let mut sockets = Vec::new();
    for line in tables.iter().flatten().flat_map(|table| table.lines().skip(1)) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // State 0A: it listens.
        if let [_, address, _, "0A", _, _, _, _, _, inode, ..] = fields[..]
            && ports.iter().any(|port| address.ends_with(port.as_str()))
        {
            sockets.push(inode.to_owned());
        }
    }
    sockets
}

/// Whether sshd greets on the address it is to listen on, by a socket that it did not have
/// before: till it has read its settings, the old ones answer.
fn answers(context: &mut Context<'_>, effective: &Effective, before: &[String]) -> Result<(), Trouble> {
    let addresses = addresses(effective);
    let until = Instant::now() + ANSWER;
    context.pause(SETTLE)?;
    // A socket that systemd holds stays the same: then time is all there is to go by.
    let patience = Instant::now() + ANSWER / 2;
    while Instant::now() < patience && listeners(effective).iter().any(|socket| before.contains(socket)) {
        context.pause(SETTLE)?;
    }
    loop {
        context.check()?;
        if addresses.iter().any(greets) {
            return Ok(());
        }
        if Instant::now() >= until {
            let named: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let named = named.join(", ");
            return Err(
                format!("sshd config test failed: no sshd answers on {named} after the reload").into()
            );
        }
        context.pause(SETTLE)?;
    }
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn greets(address: &SocketAddr) -> bool {
    let second = Duration::from_secs(1);
    let Ok(mut stream) = TcpStream::connect_timeout(address, second) else { return false };
    let mut greeting = [0u8; 4];
    stream.set_read_timeout(Some(second)).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && &greeting == b"SSH-"
}

/// The files that a pattern names; `*` and `?` in any part of the path, as glob(7).
fn glob(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for folder in &found {
            if !part.contains(['*', '?']) {
                next.push(folder.join(part));
                continue;
            }
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let hidden = |name: &String| name.starts_with('.') && !part.starts_with('.');
            next.extend(
                names
                    .filter(|name| !hidden(name) && fits(part.as_bytes(), name.as_bytes()))
                    .map(|name| folder.join(name)),
            );
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort_unstable();
    found
}

pub(super) fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
        (Some((b'?', rest)), Some((_, name))) => fits(rest, name),
        (Some((wanted, rest)), Some((c, name))) => wanted == c && fits(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_files() {
        for (pattern, name, expected) in [
            ("*.conf", "50-cloud.conf", true),
            ("*.conf", "50-cloud.conf.bak", false),
            ("?.c*f", "a.conf", true),
            ("*", "", true),
            ("a", "ab", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
