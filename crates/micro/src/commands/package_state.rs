//! What a host has of a package: by the package manager's own word, or its own files.

use super::package_manager::{Manager, OUTPUT};
use crate::process::{Ended, Job, Keep};
use crate::request::{Context, Trouble};

/// Where apk keeps what is installed, before and since it moved to `/usr`.
const APK: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];

/// What there is of a package.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Empty: nothing.
    pub(super) version: String,
    /// Unpacked and not configured, or half of it.
    pub(super) broken: bool,
    /// Its configuration is there still.
    pub(super) left: bool,
}

pub(super) fn installed(context: &mut Context<'_>, manager: Manager, name: &str) -> Result<Found, Trouble> {
    let (program, args) = match manager {
        Manager::Apk => return apk(name),
        // Not what is wanted of it (`hold`), but what is there.
        Manager::Apt => {
            let format = "-f=${db:Status-Status}\t${db:Status-Eflag}\t${Version}\n";
            ("dpkg-query", ["-W", format, "--", name].to_vec())
        }
        Manager::Pacman => ("pacman", ["-Q", "--", name].to_vec()),
        _ => ("rpm", ["-q", "--queryformat", "%{VERSION}-%{RELEASE}\n", "--", name].to_vec()),
    };
    let ended = told(context, program, &args)?;
    let mut found = Found::default();
    if ended.code != Some(0) {
        return Ok(found);
    }
    let text = String::from_utf8_lossy(&ended.stdout.bytes);
    // Several architectures or kernels: the last one is the newest.
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut fields = line.split(['\t', ' ']);
        match (manager, fields.next(), fields.next(), fields.next()) {
            (Manager::Apt, Some("config-files"), ..) => found.left = true,
            (Manager::Apt, Some("not-installed"), ..) => {}
            (Manager::Apt, Some(status), Some(flag), Some(version)) => {
                let whole = matches!(status, "installed" | "triggers-pending" | "triggers-awaited");
                let (version, left) = (version.to_owned(), true);
                found = Found { version, broken: !whole || flag != "ok", left };
            }
            (Manager::Apt, ..) => {}
            // It answers for what provides a name, too.
            (Manager::Pacman, Some(of), Some(version), _) if of == name => {
                version.clone_into(&mut found.version)
            }
            (Manager::Pacman, ..) => {}
            (_, Some(version), ..) => version.clone_into(&mut found.version),
            _ => {}
        }
    }
    Ok(found)
}

fn apk(name: &str) -> Result<Found, Trouble> {
    let mut texts = APK.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    let text =
        texts.next_back().ok_or("failed to check package status: apk has no list of what is installed")?;
    Ok(Found { version: apk_version(&text, name).unwrap_or_default().to_owned(), ..Found::default() })
}

/// `P:` is the name, and what follows is of that package; `V:` is the version.
fn apk_version<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut is_it = false;
    for line in text.lines() {
        match line.split_once(':') {
            Some(("P", found)) => is_it = found == name,
            Some(("V", version)) if is_it => return Some(version),
            _ => {}
        }
    }
    None
}

/// Whether a package stays in its version, whatever else is upgraded.
pub(super) fn held(context: &mut Context<'_>, manager: Manager, name: &str) -> Result<bool, Trouble> {
    let (program, args): (_, &[&str]) = match manager {
        Manager::Apt => ("apt-mark", &["showhold"]),
        Manager::Dnf | Manager::Dnf5 | Manager::Yum => (manager.program(), &["-q", "versionlock", "list"]),
        Manager::Zypper => ("zypper", &["--non-interactive", "locks"]),
        Manager::Apk | Manager::Pacman => return Ok(false),
    };
    let ended = told(context, program, args)?;
    let text = String::from_utf8_lossy(&ended.stdout.bytes).into_owned();
    Ok(names_lock(manager, &text, name))
}

/// Whether a list of locks names a package.
fn names_lock(manager: Manager, text: &str, name: &str) -> bool {
    text.lines().map(str::trim).any(|line| match manager {
        Manager::Apt => line.split(':').next() == name.split(':').next() && !line.is_empty(),
        // A table: # | Name | Type | Repository | Comment
        Manager::Zypper => line.split('|').nth(1).is_some_and(|field| field.trim() == name),
        // dnf 5 says `Package name: bash`, dnf 4 `bash-0:5.1.8-6.el9.*`, yum `0:bash-5.1.8-6.el9.*`.
        _ => {
            let line = line.strip_prefix("Package name:").map_or(line, str::trim);
            let line = line
                .split_once(':')
                .filter(|(epoch, _)| epoch.bytes().all(|b| b.is_ascii_digit()))
                .map_or(line, |(_, rest)| rest);
            line == name
                || line
                    .strip_prefix(name)
                    .and_then(|rest| rest.strip_prefix('-'))
                    .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        }
    })
}

/// Whether a group of packages is installed.
pub(super) fn group_is_there(
    context: &mut Context<'_>,
    manager: Manager,
    name: &str,
) -> Result<bool, Trouble> {
    match manager {
        Manager::Dnf | Manager::Dnf5 | Manager::Yum => {
            // dnf 4 shows ids when it shows all, and dnf 5 always.
            let mut ended = told(context, manager.program(), &["-q", "group", "list", "--ids"])?;
            if ended.code != Some(0) {
                ended =
                    told(context, manager.program(), &["-q", "group", "list", "--installed", "--hidden"])?;
            }
            Ok(names_group(&String::from_utf8_lossy(&ended.stdout.bytes), name))
        }
        Manager::Zypper => {
            let args = [
                "--non-interactive",
                "search",
                "--installed-only",
                "--match-exact",
                "-t",
                "pattern",
                "--",
                name,
            ];
            Ok(told(context, "zypper", &args)?.code == Some(0))
        }
        Manager::Pacman => {
            let ended = told(context, "pacman", &["-Sgq", "--", name])?;
            let text = String::from_utf8_lossy(&ended.stdout.bytes).into_owned();
            let members: Vec<&str> = text.split_whitespace().collect();
            if members.is_empty() {
                return Err(format!("there is no group {name}").into());
            }
            Ok(told(context, "pacman", &[&["-Q", "--"], &members[..]].concat())?.code == Some(0))
        }
        Manager::Apt | Manager::Apk => Err(format!("{} has no groups of packages", manager.name()).into()),
    }
}

/// `   Development Tools (development)` of dnf 4, below what is installed and above what is available;
/// `development  Development Tools  yes` of dnf 5.
fn names_group(text: &str, name: &str) -> bool {
    let id = format!("({name})");
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Available"));
    lines.any(|line| line.ends_with(&id) || line.split_whitespace().next() == Some(name))
}

/// Whether an installed version is the one that was asked for: rpm's, pacman's and apk's may be
/// asked for without its release.
pub(super) fn same(installed: &str, wanted: &str) -> bool {
    installed == wanted || installed.split_once('-').is_some_and(|(version, _)| version == wanted)
}

pub(super) fn older(
    context: &mut Context<'_>,
    manager: Manager,
    now: &str,
    before: &str,
) -> Result<bool, Trouble> {
    match manager {
        Manager::Apt => {
            let job = Job::new("dpkg", &["--compare-versions", now, "lt", before]);
            Ok(context.run(&job)?.code == Some(0))
        }
        Manager::Pacman => Ok(told(context, "vercmp", &[now, before])?.stdout.bytes.starts_with(b"-1")),
        Manager::Apk => {
            Ok(told(context, "apk", &["version", "-t", now, before])?.stdout.bytes.starts_with(b"<"))
        }
        _ => {
            let expression = format!("%{{lua:print(rpm.vercmp('{now}','{before}'))}}");
            Ok(told(context, "rpm", &["--eval", &expression])?.stdout.bytes.starts_with(b"-1"))
        }
    }
}

fn told(context: &mut Context<'_>, program: &str, args: &[&str]) -> Result<Ended, Trouble> {
    let job = Job { out: Keep::Capture(OUTPUT), set: &[("LC_ALL", "C.UTF-8")], ..Job::new(program, args) };
    context.run(&job).map_err(|why| why.context("failed to check package status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_package_managers_list_is_read() {
        let lists = "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\n\nC:Q1y=\nP:curl\nV:8.9.1-r1\n\n";
        assert_eq!(apk_version(lists, "curl"), Some("8.9.1-r1"));
        assert_eq!((apk_version(lists, "cur"), apk_version("", "curl")), (None, None));
        for (manager, text, name, is) in [
            (Manager::Apt, "bash\nlibc6:amd64\n", "libc6", true),
            (Manager::Apt, "", "bash", false),
            (Manager::Dnf, "bash-0:5.1.8-6.el9.*\n", "bash", true),
            (Manager::Dnf, "bash-completion-1:2.11-4.el9.*\n", "bash", false),
            (Manager::Yum, "0:bash-4.2.46-35.el7_9.*\nversionlock list done\n", "bash", true),
            (
                Manager::Dnf5,
                "# Added by 'versionlock add' command on 2024-10-01 08:00:00\nPackage name: bash\nevr = 5.2.26-4.fc41\n",
                "bash",
                true,
            ),
            (
                Manager::Zypper,
                "\n# | Name | Type    | Repository | Comment\n--+------+---------+------------+--------\n1 | bash | package | (any)      |\n",
                "bash",
                true,
            ),
            (Manager::Zypper, "\nThere are no package locks defined.\n", "bash", false),
        ] {
            assert_eq!(names_lock(manager, text, name), is, "{manager:?} {text}");
        }
        assert!(names_group("Installed Groups:\n   Development Tools (development)\n", "development"));
        assert!(names_group(
            "ID                   Name                 Installed\ndevelopment-tools    Development Tools          yes\n",
            "development-tools"
        ));
        let all = "Installed Groups:\n   Probe Group (probes)\nAvailable Groups:\n   Development Tools (development)\n";
        assert!(names_group(all, "probes") && !names_group(all, "development"));
        assert!(!names_group("ID Name Installed\n", "development"));
    }
}
