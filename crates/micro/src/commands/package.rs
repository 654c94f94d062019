//! `pkg.ensure`: one package, by the host's package manager.

use legwork_proto::micro::result;

use super::package_manager::{Manager, OUTPUT, Run};
use crate::fields::Fields;
use crate::process::{Job, Keep, look_up};
use crate::request::{Context, Request, Trouble};

/// In a package manager's options these can run programs of the caller's choice.
const SETTINGS: &[&str] =
    &["-o", "-c", "--option", "--config-file", "--setopt", "--config", "--installroot", "--root"];

pub(super) fn run(context: &mut Context<'_>, request: &Request) -> Result<result::PkgEnsure, Trouble> {
    let fields =
        Fields::parse(&request.params, &["name", "state", "version", "manager", "options", "dry_run"])?;
    let (name, state) = (fields.string("name")?, fields.string("state")?);
    let (version, manager) = (fields.string("version")?, fields.string("manager")?);
    let (options, dry_run) = (fields.strings("options")?, fields.boolean("dry_run")?);
    if name.is_empty() {
        return Err("package name is required".into());
    }
    check(&name, "package name", "+._:~@/-")?;
    if !version.is_empty() {
        check(&version, "version", "+._:~^-")?;
    }
    check_options(&options, context.restricted)?;
    let manager = find(&manager)?;
    let found = installed(context, manager, &name)?;
    // What is half there is neither present nor absent.
    let (before, broken) = (found.version, found.broken);
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    let down = options.iter().any(|option| option.contains("downgrade") || *option == "--oldpackage");
    let is_older = manager != Manager::Apt
        && !version.is_empty()
        && !before.is_empty()
        && !same(&before, &version)
        && older(context, manager, &version, comparable(&before, &version))?;
    if is_older && !down {
        return Err(format!(
            "failed to install package: {name} {version} is older than {before}, which is installed; the option \
             --allow-downgrade permits it"
        )
        .into());
    }
    if manager != Manager::Apt {
        options.retain(|option| !option.starts_with("--allow-downgrade"));
    }
    let mut act = |verb: &str, words: &[&str], spec: &str| {
        if dry_run {
            return Ok(());
        }
        let failed = format!("failed to {verb} package");
        let run = Run { manager, words, options: &options, spec };
        run.carry_out(context).map_err(|why| match why {
            Trouble::Failed(why, said) if why.starts_with("exit status") => {
                Trouble::Failed(format!("{failed}: command failed: {why}"), said)
            }
            other => other.context(&failed),
        })
    };
    let wanted = if version.is_empty() { name.clone() } else { manager.with_version(&name, &version) };
    let action = match (state.as_str(), before.is_empty() || broken) {
        ("present", true) => {
            act("install", &["install", "-y"], &wanted)?;
            "installed"
        }
        ("present", false) if version.is_empty() => "already_present",
        ("present" | "latest", false) if same(&before, &version) => "already_present",
        ("present" | "latest", false) if !version.is_empty() => {
            let words = if is_older { manager.downgrade() } else { &["install", "-y"] };
            act("install", words, &wanted)?;
            // Only what the options permit got here: apt refuses to downgrade unasked.
            if down { "changed" } else { "upgraded" }
        }
        ("absent", true) if !broken => "already_absent",
        ("absent", _) => {
            act("remove", &["remove", "-y"], &name)?;
            "removed"
        }
        ("latest", true) => {
            act("install", &["install", "-y"], &name)?;
            "installed"
        }
        ("latest", false) => {
            act("upgrade", manager.upgrade(), &name)?;
            "upgraded"
        }
        _ => return Err(format!("invalid state: {state}").into()),
    };
    let after = if action.starts_with("already") || dry_run {
        before.clone()
    } else {
        let now = installed(context, manager, &name)?;
        if now.broken {
            return Err(format!("the package manager left {name} {} half installed", now.version).into());
        }
        now.version
    };
    let action = match action {
        "changed" if older(context, manager, &after, &before)? => "downgraded",
        "changed" => "upgraded",
        "upgraded" if after == before && !dry_run => "already_present",
        other => other,
    };
    Ok(result::PkgEnsure {
        changed: !action.starts_with("already"),
        previous_version: before,
        installed_version: if state == "absent" { String::new() } else { after },
        action: action.to_owned(),
    })
}

fn check(text: &str, what: &str, also: &str) -> Result<(), Trouble> {
    let fits = text.len() <= 256 && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c));
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if fits && starts && !text.contains("..") {
        return Ok(());
    }
    Err(format!("invalid {what}: {text:?}").into())
}

/// Options, and their values, but nothing that would be another package.
fn check_options(options: &[String], restricted: bool) -> Result<(), Trouble> {
    let mut value = false;
    for option in options {
        let name = option.split('=').next().unwrap_or_default();
        if option.chars().any(char::is_control) || !(option.starts_with('-') || value) || option == "--" {
            return Err(format!("invalid option: {option:?}").into());
        }
        let sets = SETTINGS.contains(&name)
            || (!name.starts_with("--") && (name.starts_with("-o") || name.starts_with("-c")));
        if restricted && sets && !value {
            return Err(format!("option {option:?} can run programs, and exec is disabled").into());
        }
        // `-o NAME=VALUE`, `-t RELEASE`: what follows belongs to it.
        value = !value
            && matches!(
                option.as_str(),
                "-o" | "-c" | "-t" | "--option" | "--config-file" | "--target-release"
            );
    }
    Ok(())
}

fn find(name: &str) -> Result<Manager, Trouble> {
    if name.is_empty() {
        let found = Manager::ALL.into_iter().find(|(_, program)| look_up(program).is_ok());
        return found
            .map(|(manager, _)| manager)
            .ok_or_else(|| "failed to detect package manager: no supported package manager found".into());
    }
    let found = Manager::ALL.into_iter().find(|(_, known)| *known == name);
    let found = found.ok_or_else(|| {
        let name: String = name.chars().take(100).collect();
        Trouble::from(format!("failed to check package status: unsupported package manager: {name}"))
    });
    found.map(|(manager, _)| manager)
}

/// What there is of a package.
struct Found {
    /// Empty: nothing.
    version: String,
    /// Unpacked and not configured, or half of it.
    broken: bool,
}

fn installed(context: &mut Context<'_>, manager: Manager, name: &str) -> Result<Found, Trouble> {
    let (program, args) = match manager {
        // Not what is wanted of it (`hold`), but what is there.
        Manager::Apt => {
            let format = "-f=${db:Status-Status}\t${db:Status-Eflag}\t${Version}\n";
            ("dpkg-query", ["-W", format, "--", name].to_vec())
        }
        _ => ("rpm", ["-q", "--queryformat", "%{VERSION}-%{RELEASE}\n", "--", name].to_vec()),
    };
    let job = Job { out: Keep::Capture(OUTPUT), ..Job::new(program, &args) };
    let ended = context.run(&job).map_err(|why| why.context("failed to check package status"))?;
    let mut found = Found { version: String::new(), broken: false };
    if ended.code != Some(0) {
        return Ok(found);
    }
    let text = String::from_utf8_lossy(&ended.stdout.bytes);
    // Several architectures or kernels: the last one is the newest.
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut fields = line.split('\t');
        match (manager, fields.next(), fields.next(), fields.next()) {
            (Manager::Apt, Some("not-installed" | "config-files"), ..) => {}
            (Manager::Apt, Some(status), Some(flag), Some(version)) => {
                let whole = matches!(status, "installed" | "triggers-pending" | "triggers-awaited");
                found = Found { version: version.to_owned(), broken: !whole || flag != "ok" };
            }
            (Manager::Apt, ..) => {}
            (_, Some(version), ..) => version.clone_into(&mut found.version),
            _ => {}
        }
    }
    Ok(found)
}

/// Of what is installed, as much as a wanted version says.
fn comparable<'a>(installed: &'a str, wanted: &str) -> &'a str {
    let version = installed.split_once('-').map_or(installed, |(version, _)| version);
    if wanted.contains('-') { installed } else { version }
}

/// Whether an installed version is the one that was asked for: rpm's may be asked for
/// without its release.
fn same(installed: &str, wanted: &str) -> bool {
    installed == wanted || installed.split_once('-').is_some_and(|(version, _)| version == wanted)
}

fn older(context: &mut Context<'_>, manager: Manager, now: &str, before: &str) -> Result<bool, Trouble> {
    if manager == Manager::Apt {
        let job = Job::new("dpkg", &["--compare-versions", now, "lt", before]);
        return Ok(context.run(&job)?.code == Some(0));
    }
    let expression = format!("%{{lua:print(rpm.vercmp('{now}','{before}'))}}");
    let job = Job { out: Keep::Capture(64), ..Job::new("rpm", &["--eval", &expression]) };
    Ok(context.run(&job)?.stdout.bytes.starts_with(b"-1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for name in ["-oDebug=1", "a b", "../x", "; id", "a\nb", "$(id)", "a=1", "/tmp/x.deb", "é"] {
            assert!(check(name, "package name", "+._:~@/-").is_err(), "{name:?}");
        }
        for name in ["curl", "libstdc++6", "g++", "gcc-12-base:amd64", "python3.11"] {
            assert!(check(name, "package name", "+._:~@/-").is_ok(), "{name:?}");
        }
    }

    #[test]
    fn options_name_no_other_package() {
        let check = |options: &[&str], restricted| {
            let options: Vec<String> = options.iter().map(|&o| o.to_owned()).collect();
            check_options(&options, restricted).is_ok()
        };
        assert!(check(
            &["--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "-t", "bookworm"],
            false
        ));
        assert!(!check(&["evil"], false) && !check(&["-y", "evil"], false) && !check(&["--", "evil"], false));
        assert!(!check(&["-oDPkg::Pre-Invoke::=id"], true) && !check(&["-o", "x"], true));
        assert!(
            !check(&["--option=DPkg::Pre-Invoke::=id"], true) && check(&["--no-install-recommends"], true)
        );
    }
}
