//! `pkg.ensure`: one package, by the host's package manager.

use legwork_proto::micro::result;

use super::package_manager::{Manager, Run};
use super::package_state::{Found, group_is_there, held, installed, older, same};
use crate::fields::Fields;
use crate::process::look_up;
use crate::request::{Context, Request, Trouble};

/// In a package manager's options these can run programs of the caller's choice.
const SETTINGS: &[&str] = &[
    "-o",
    "-c",
    "--option",
    "--config-file",
    "--setopt",
    "--config",
    "--installroot",
    "--root",
    "--hookdir",
    "--gpgdir",
    "--dbpath",
    "--keys-dir",
    "-p",
];

/// What is asked for.
struct Wanted {
    name: String,
    state: String,
    version: String,
    manager: Manager,
    options: Vec<String>,
    /// A lower version may be installed.
    down: bool,
    dry_run: bool,
    diff: bool,
}

pub(super) fn run(context: &mut Context<'_>, request: &Request) -> Result<result::PkgEnsure, Trouble> {
    let wanted = Wanted::read(&request.params, context.restricted)?;
    match wanted.state.as_str() {
        "refreshed" => wanted.refresh(context),
        "held" | "unheld" => wanted.hold(context),
        _ if wanted.name.starts_with('@') => wanted.group(context),
        _ => wanted.ensure(context),
    }
}

fn answer(action: &str) -> result::PkgEnsure {
    result::PkgEnsure {
        changed: !action.starts_with("already"),
        previous_version: String::new(),
        installed_version: String::new(),
        action: action.to_owned(),
        plan: Vec::new(),
    }
}

impl Wanted {
    fn read(params: &str, restricted: bool) -> Result<Self, Trouble> {
        let names = &["name", "state", "version", "manager", "options", "dry_run", "diff"];
        let fields = Fields::parse(params, names)?;
        let (name, state) = (fields.string("name")?, fields.string("state")?);
        let (version, manager) = (fields.string("version")?, fields.string("manager")?);
        let mut options = fields.strings("options")?;
        if name.is_empty() && state != "refreshed" {
            return Err("package name is required".into());
        }
        if !name.is_empty() {
            check(name.strip_prefix('@').unwrap_or(&name), "package name", "+._:~@/-")?;
        }
        if !version.is_empty() {
            check(&version, "version", "+._:~^-")?;
        }
        check_options(&options, restricted)?;
        let manager = find(&manager)?;
        let down = options.iter().any(|option| option.contains("downgrade") || option == "--oldpackage");
        if manager != Manager::Apt {
            options.retain(|option| !option.starts_with("--allow-downgrade"));
        }
        let (dry_run, diff) = (fields.boolean("dry_run")?, fields.boolean("diff")?);
        Ok(Self { name, state, version, manager, options, down, dry_run, diff })
    }

    /// Has the package manager do something.
    fn act(&self, context: &mut Context<'_>, verb: &str, words: &[&str], spec: &str) -> Result<(), Trouble> {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let run = Run { manager: self.manager, words, options: &options, spec };
        let failed = format!("failed to {verb} package");
        run.carry_out(context).map_err(|why| match why {
            Trouble::Failed(why, said) if why.starts_with("exit status") => {
                Trouble::Failed(format!("{failed}: command failed: {why}"), said)
            }
            other => other.context(&failed),
        })
    }

    /// The lists of what there is.
    fn refresh(&self, context: &mut Context<'_>) -> Result<result::PkgEnsure, Trouble> {
        if !self.dry_run {
            let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
            let run = Run { manager: self.manager, words: &[], options: &options, spec: "" };
            run.refresh(context).map_err(|why| why.context("failed to refresh the lists of packages"))?;
        }
        Ok(result::PkgEnsure { changed: false, ..answer("refreshed") })
    }

    /// That it stays in its version, or does not.
    fn hold(&self, context: &mut Context<'_>) -> Result<result::PkgEnsure, Trouble> {
        let hold = self.state == "held";
        let words = self.manager.hold(hold).ok_or_else(|| {
            let how = "pins a version where it is installed, and holds none by itself";
            format!("failed to hold package: {} {how}", self.manager.name())
        })?;
        let found = installed(context, self.manager, &self.name)?;
        if hold && found.version.is_empty() {
            return Err(format!("failed to hold package: {} is not installed", self.name).into());
        }
        let before = held(context, self.manager, &self.name)?;
        let action = match (hold, before) {
            (true, true) => "already_held",
            (true, false) => "held",
            (false, false) => "already_unheld",
            (false, true) => "unheld",
        };
        if !action.starts_with("already") && !self.dry_run {
            let verb = if hold { "failed to hold package" } else { "failed to unhold package" };
            let failed = |why: Trouble| why.context(verb);
            super::package_manager::hold(context, words, &self.name).map_err(failed)?;
        }
        let version = found.version;
        Ok(result::PkgEnsure {
            previous_version: version.clone(),
            installed_version: version,
            ..answer(action)
        })
    }

    /// A group of packages, where the package manager has groups.
    fn group(&self, context: &mut Context<'_>) -> Result<result::PkgEnsure, Trouble> {
        let name = self.name.trim_start_matches('@');
        let is_there = group_is_there(context, self.manager, name)?;
        let (verb, action) = match (self.state.as_str(), is_there) {
            ("present", true) => ("", "already_present"),
            ("present", false) => ("install", "installed"),
            ("absent" | "purged", false) => ("", "already_absent"),
            ("absent" | "purged", true) => ("remove", "removed"),
            ("latest", _) => ("install", if is_there { "upgraded" } else { "installed" }),
            _ => return Err(format!("invalid state: {}", self.state).into()),
        };
        if !verb.is_empty() && !self.dry_run {
            let (words, spec) = self.manager.group(verb, name);
            self.act(context, verb, &words, &spec)?;
        }
        Ok(answer(action))
    }

    fn ensure(&self, context: &mut Context<'_>) -> Result<result::PkgEnsure, Trouble> {
        let found = installed(context, self.manager, &self.name)?;
        let is_older = self.is_older(context, &found.version)?;
        let step = self.step(&found, is_older)?;
        let mut plan = Vec::new();
        if let Some((verb, words, spec)) = &step.doing {
            if self.diff {
                let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
                plan = Run { manager: self.manager, words, options: &options, spec }.plan(context);
            }
            if !self.dry_run {
                self.act(context, verb, words, spec)?;
            }
        }
        let before = found.version;
        let after = if step.doing.is_none() || self.dry_run {
            before.clone()
        } else {
            let now = installed(context, self.manager, &self.name)?;
            if now.broken {
                return Err(
                    format!("the package manager left {} {} half installed", self.name, now.version).into()
                );
            }
            now.version
        };
        let action = match step.action {
            "changed" if older(context, self.manager, &after, &before)? => "downgraded",
            "changed" => "upgraded",
            "upgraded" if after == before && !self.dry_run => "already_present",
            other => other,
        };
        let gone = matches!(self.state.as_str(), "absent" | "purged");
        let installed_version = if gone { String::new() } else { after };
        Ok(result::PkgEnsure { previous_version: before, installed_version, plan, ..answer(action) })
    }

    /// Whether what is asked for is older than what is there, where the manager would not say.
    fn is_older(&self, context: &mut Context<'_>, before: &str) -> Result<bool, Trouble> {
        if !self.manager.downgrades_unasked()
            || self.version.is_empty()
            || before.is_empty()
            || same(before, &self.version)
        {
            return Ok(false);
        }
        let is_older = older(context, self.manager, &self.version, comparable(before, &self.version))?;
        if is_older && !self.down {
            return Err(format!(
                "failed to install package: {} {} is older than {before}, which is installed; the option \
                 --allow-downgrade permits it",
                self.name, self.version
            )
            .into());
        }
        Ok(is_older)
    }

    /// What leads from what is there to what is asked for.
    fn step(&self, found: &Found, is_older: bool) -> Result<Step, Trouble> {
        let (manager, version) = (self.manager, self.version.as_str());
        let wanted = match version {
            "" => self.name.clone(),
            version => manager.with_version(&self.name, version).ok_or_else(|| {
                format!("failed to install package: {} has one version of each package", manager.name())
            })?,
        };
        let doing = |action, verb, words: &'static [&'static str], spec: &str| {
            Ok(Step { action, doing: Some((verb, words, spec.to_owned())) })
        };
        let so = |action| Ok(Step { action, doing: None });
        match (self.state.as_str(), found.version.is_empty() || found.broken) {
            ("present" | "latest", true) => doing("installed", "install", manager.install(), &wanted),
            ("present", false) if version.is_empty() => so("already_present"),
            ("present" | "latest", false) if same(&found.version, version) => so("already_present"),
            ("present" | "latest", false) if !version.is_empty() => {
                let words = if is_older { manager.downgrade() } else { manager.install() };
                // Only what the options permit got here: apt refuses to downgrade unasked.
                doing(if self.down { "changed" } else { "upgraded" }, "install", words, &wanted)
            }
            ("latest", false) => doing("upgraded", "upgrade", manager.upgrade(), &self.name),
            ("absent", true) if !found.broken => so("already_absent"),
            ("absent", _) => doing("removed", "remove", manager.remove(), &self.name),
            ("purged", true) if !found.broken && !found.left => so("already_absent"),
            ("purged", _) => doing("purged", "purge", manager.purge(), &self.name),
            _ => Err(format!("invalid state: {}", self.state).into()),
        }
    }
}

struct Step {
    action: &'static str,
    /// For messages, the manager's words, and what they are about.
    doing: Option<(&'static str, &'static [&'static str], String)>,
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

/// Of what is installed, as much as a wanted version says.
fn comparable<'a>(installed: &'a str, wanted: &str) -> &'a str {
    let version = installed.split_once('-').map_or(installed, |(version, _)| version);
    if wanted.contains('-') { installed } else { version }
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
