//! The walls around commands, as a config file describes them.

use std::path::{Path, PathBuf};

use legwork_policy::Policy;
use legwork_runner::process::sandbox::{Limits, Profile};
use legwork_runner::{Destinations, Gating, Wanted};

use super::settings::Reader;
use super::{ConfigError, expand_home};

/// `auto` is no profile of its own.
const PROFILES: &[(&str, Option<Profile>)] = &[
    ("off", Some(Profile::Off)),
    ("landlock", Some(Profile::Landlock)),
    ("namespaces", Some(Profile::Namespaces)),
    ("gvisor", Some(Profile::Gvisor)),
    ("auto", None),
];

/// Reads `sandbox: PROFILE`, or `sandbox:` with `profile` and what else there is. `policy` tells
/// whose credentials are meant by `credentials: rules`.
pub(super) fn read(
    r: &mut Reader<'_>,
    home: &Path,
    policy: &Policy,
) -> Result<(Wanted, Destinations), ConfigError> {
    if !r.is_section("sandbox") {
        let profile = r.word("sandbox", &[], PROFILES, "off")?;
        return Ok((Wanted { profile, ..Wanted::default() }, Destinations::default()));
    }
    let profile = r.word("sandbox.profile", &[], PROFILES, "off")?;
    let mut paths = |key| -> Result<Vec<PathBuf>, ConfigError> {
        let given = r.list(key)?;
        let paths: Vec<PathBuf> = given.into_iter().map(|path| expand_home(path, home)).collect();
        match paths
            .iter()
            .find(|path| !path.is_absolute() || path.components().any(|c| c.as_os_str() == ".."))
        {
            Some(bad) => Err(ConfigError(format!(
                "failed to load config: {}: {key}: '{}' is not an absolute path without '..'",
                r.file,
                bad.display()
            ))),
            None => Ok(paths),
        }
    };
    let (read, write, exec) = (paths("sandbox.read")?, paths("sandbox.write")?, paths("sandbox.exec")?);
    let credentials = r.word("sandbox.credentials", &[], &[("none", false), ("rules", true)], "none")?;
    let mut read = read;
    if credentials {
        read.extend(credentials_of(policy, home));
    }
    let words = [("allow", true), ("deny", false)];
    let unix_sockets = r.word("sandbox.unix_sockets", &[], &words, "deny")?;
    let run_as = r.optional("sandbox.run_as", &[])?;
    let allowed = r.list("sandbox.network.allow")?;
    let destinations = Destinations::parse(&allowed)
        .map_err(|e| ConfigError(format!("failed to load config: {}: sandbox.network.allow: {e}", r.file)))?;
    let limits = limits(r)?;
    let wanted = Wanted { profile, read, write, exec, unix_sockets, run_as, limits, ..Wanted::default() };
    let holds = |profile: Option<Profile>| profile.is_none_or(Profile::holds_network);
    if !allowed.is_empty() && !holds(profile) {
        return Err(ConfigError(format!(
            "failed to load config: {}: sandbox.network.allow: only the profiles namespaces and gvisor hold the network",
            r.file
        )));
    }
    Ok((wanted, destinations))
}

/// Reads `gate: auto`, `required` or `strict`: what is wanted of the exec gate.
pub(super) fn gate(r: &mut Reader<'_>) -> Result<Gating, ConfigError> {
    let words = [("auto", Gating::Auto), ("required", Gating::Required), ("strict", Gating::Strict)];
    r.word("gate", &["LEGWORK_GATE"], &words, "auto")
}

/// What the programs that rules name sign in with, as far as it is there.
pub(super) fn credentials_of(policy: &Policy, home: &Path) -> Vec<PathBuf> {
    let named = policy.credentials();
    let paths = named.iter().flat_map(|(_, paths)| paths.iter());
    let mut found: Vec<PathBuf> = paths.map(|path| expand_home((*path).to_owned(), home)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.dedup();
    found
}

fn limits(r: &mut Reader<'_>) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    let mut optional = |key, least| -> Result<Option<u64>, ConfigError> {
        let number = r.number(key, 0, u64::MAX >> 1, 0)?;
        match number {
            0 => Ok(None),
            number if number < least => Err(ConfigError(format!(
                "failed to load config: {}: {key}: expected 0 for no limit, or at least {least}",
                r.file
            ))),
            number => Ok(Some(number)),
        }
    };
    let memory = optional("sandbox.limits.memory_bytes", 1 << 20)?;
    let cpu_millis = optional("sandbox.limits.cpu_millis", 10)?;
    let file_size = optional("sandbox.limits.file_bytes", 1 << 10)?;
    Ok(Limits {
        memory,
        cpu_millis,
        file_size,
        processes: Some(r.number(
            "sandbox.limits.processes",
            1,
            1 << 22,
            default.processes.unwrap_or(4096),
        )?),
        open_files: Some(r.number(
            "sandbox.limits.open_files",
            16,
            1 << 30,
            default.open_files.unwrap_or(65_536),
        )?),
        tmp: r.number("sandbox.limits.tmp_bytes", 1 << 12, 1 << 50, default.tmp)?,
    })
}
