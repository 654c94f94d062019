//! `sudoers.ensure`: one user's rule, in a file of its own, valid before it is in place.

use std::io::Write;
use std::path::{Path, PathBuf};

use legwork_proto::micro::result;
use sha2::{Digest, Sha256};

use super::file::{self, Attributes, Content, Stage};
use crate::fields::Fields;
use crate::os::cause;
use crate::process::{Job, Keep, look_up};
use crate::request::{Context, Request, Trouble, failure};
use crate::signature::hex;

/// Where sudo looks.
const FOLDER: &str = "/etc/sudoers.d";
/// The one mode that sudo accepts everywhere.
const MODE: u32 = 0o440;
/// Where Debian keeps what only root needs.
const VISUDO: &[&str] = &["visudo", "/usr/sbin/visudo", "/sbin/visudo", "/usr/local/sbin/visudo"];

const PARAMS: &[&str] = &["user", "commands", "no_passwd", "state", "dry_run", "diff"];

pub(super) fn run(context: &mut Context<'_>, request: &Request) -> Result<result::SudoersEnsure, Trouble> {
    let fields = Fields::parse(&request.params, PARAMS)?;
    let (user, state) = (fields.string("user")?, fields.string("state")?);
    let (commands, no_passwd) = (fields.strings("commands")?, fields.boolean("no_passwd")?);
    let dry_run = fields.boolean("dry_run")?;
    if user.is_empty() {
        return Err("user is required".into());
    }
    check_user(&user)?;
    commands.iter().try_for_each(|command| check_command(command))?;
    if !matches!(state.as_str(), "present" | "absent") {
        return Err(format!("invalid state: {}", state.chars().take(100).collect::<String>()).into());
    }
    let path = place(&user);
    let rule = rule(&user, &commands, no_passwd);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let action = match state.as_str() {
        "absent" => remove(&path, dry_run)?,
        _ => ensure(context, &path, &rule, dry_run)?,
    };
    let changed = !action.starts_with("already");
    let file_path = path.to_string_lossy().into_owned();
    let after = if state == "present" { rule } else { String::new() };
    let shown = changed && fields.boolean("diff")?;
    let files = if shown { vec![vec![file_path.clone(), before, after]] } else { Vec::new() };
    Ok(result::SudoersEnsure { changed, file_path, action: action.to_owned(), files })
}

/// Where a user's rule is, or would be. sudo skips files whose names hold a dot, and so a name
/// with a dot is written with `_`; the file of another whose name is written the same is left
/// to them.
fn place(user: &str) -> PathBuf {
    let usual = Path::new(FOLDER).join(format!("froyo-{}", user.replace('.', "_")));
    let digest = hex(&Sha256::digest(user));
    let own = PathBuf::from(format!("{}-{}", usual.display(), &digest[..12]));
    let (is_own, is_others) =
        (owner(&own).is_some_and(|of| of == user), owner(&usual).is_some_and(|of| of != user));
    if is_own || is_others { own } else { usual }
}

/// Whose rule a file holds, as its second line says.
fn owner(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("# User: ")).map(|user| user.trim().to_owned())
}

fn check_user(user: &str) -> Result<(), Trouble> {
    let first = user.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    // sudo takes a word in capitals for an alias (`ALL` is everybody), and some for its own.
    let alias = user.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let reserved = ["Defaults", "User_Alias", "Runas_Alias", "Host_Alias", "Cmnd_Alias"].contains(&user);
    if first && user.len() <= 64 && user.chars().all(plain) && !alias && !reserved {
        return Ok(());
    }
    Err(format!("invalid user: {user:?}").into())
}

fn check_command(command: &str) -> Result<(), Trouble> {
    // A `#` would start a comment, a quote would hide what follows.
    let inert = |c: char| !c.is_control() && c != '#' && c != '"';
    if command == "ALL" || (command.starts_with('/') && command.chars().all(inert)) {
        return Ok(());
    }
    Err(format!("invalid command: {command:?} is not an absolute path without quotes and comments").into())
}

fn rule(user: &str, commands: &[String], no_passwd: bool) -> String {
    let escape = |command: &String| {
        command.chars().fold(String::new(), |mut text, c| {
            if ",:=\\".contains(c) {
                text.push('\\');
            }
            text.push(c);
            text
        })
    };
    let commands = commands.iter().map(escape).collect::<Vec<_>>().join(", ");
    let commands = if commands.is_empty() { "ALL".to_owned() } else { commands };
    let tag = if no_passwd { " NOPASSWD:" } else { "" };
    format!("# Managed by legwork-micro\n# User: {user}\n{user} ALL=(ALL){tag} {commands}\n")
}

fn remove(path: &Path, dry_run: bool) -> Result<&'static str, Trouble> {
    if dry_run {
        return Ok(if path.exists() { "removed" } else { "already_absent" });
    }
    match std::fs::remove_file(path) {
        Ok(()) => Ok("removed"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok("already_absent"),
        Err(error) => Err(format!("failed to remove sudoers file: {}", cause(&error)).into()),
    }
}

fn ensure(
    context: &mut Context<'_>,
    path: &Path,
    rule: &str,
    dry_run: bool,
) -> Result<&'static str, Trouble> {
    let former = match std::fs::read(path) {
        Ok(bytes) if bytes == rule.as_bytes() => return Ok("already_present"),
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(format!("failed to read sudoers file: {}", cause(&error)).into()),
    };
    validate(context, rule)?;
    let action = if former { "updated" } else { "created" };
    if dry_run {
        return Ok(action);
    }
    let root = Attributes { mode: MODE, owner: Some(0), group: Some(0) };
    file::replace(path, Content::Bytes(rule.as_bytes()), root).map_err(|stage| {
        let (Stage::Write(error) | Stage::Mode(error) | Stage::Owner(error)) = stage;
        format!("failed to write sudoers file: {}", cause(&error))
    })?;
    Ok(action)
}

/// Has visudo look at the rule in a file that only we can read, away from sudo's folder.
fn validate(context: &mut Context<'_>, rule: &str) -> Result<(), Trouble> {
    let visudo = VISUDO.iter().find(|program| look_up(program).is_ok_and(|found| found.exists()));
    let visudo = visudo.ok_or("invalid sudoers syntax: visudo validation failed: visudo is not installed")?;
    let base: PathBuf = std::env::temp_dir().join("legwork-sudoers");
    let (name, mut draft) = file::temporary(&base)
        .map_err(|error| format!("failed to write a draft of the rule: {}", cause(&error)))?;
    let written = draft.write_all(rule.as_bytes());
    let text = name.to_string_lossy().into_owned();
    let keep = Keep::Capture(64 * 1024);
    let job = Job { out: keep, err: keep, ..Job::new(visudo, &["-c", "-f", &text]) };
    let ended = written.map_err(|error| Trouble::from(cause(&error))).and_then(|()| context.run(&job));
    let _ = std::fs::remove_file(&name);
    match ended {
        Ok(ended) if ended.code == Some(0) => Ok(()),
        Ok(ended) => Err(failure(&ended).context("invalid sudoers syntax: visudo validation failed")),
        Err(why) => Err(why.context("invalid sudoers syntax: visudo validation failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_what_sudo_reads() {
        let rule = rule("deploy", &["/bin/ls".into(), "/bin/a -x,y:z=\\".into()], true);
        assert!(rule.ends_with("deploy ALL=(ALL) NOPASSWD: /bin/ls, /bin/a -x\\,y\\:z\\=\\\\\n"), "{rule}");
        assert!(super::rule("a", &[], false).ends_with("a ALL=(ALL) ALL\n"));
    }

    #[test]
    fn hostile_users_and_commands_are_refused() {
        for user in [
            "%wheel",
            "-x",
            "a b",
            "../x",
            "a\nALL ALL=(ALL) ALL",
            "ALL",
            "ADMINS",
            "Defaults",
            "#0",
            "+net",
            "",
        ] {
            assert!(check_user(user).is_err(), "{user:?}");
        }
        for command in ["ls", "/bin/ls\n", "!/bin/sh", "", "-x", "sudoedit x", "/bin/ls # x", "/bin/\"ls"] {
            assert!(check_command(command).is_err(), "{command:?}");
        }
        assert!(check_user("first.last").is_ok() && check_command("/bin/ls -l").is_ok());
    }
}
