//! Which hosts are meant: names, ranges, groups, patterns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// A range makes at most so many hosts.
const MAX_RANGE: u64 = 100_000;
/// Groups in groups.
const MAX_DEPTH: usize = 20;

/// One host to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// What people call it.
    pub(crate) name: String,
    /// What ssh calls it.
    pub(crate) address: String,
    /// Arguments of ssh.
    pub(crate) args: Vec<String>,
    /// Those that its name holds: a port.
    pub(crate) named: Vec<String>,
}

/// A host as ssh knows it, from one as people write it: `ssh://me@web1:2222`, `[::1]:2222`.
fn written(word: &str) -> (String, Option<&str>) {
    let (word, is_url) = word.strip_prefix("ssh://").map_or((word, false), |rest| (rest, true));
    let word = if is_url { word.trim_end_matches('/') } else { word };
    let (user, host) = word.rsplit_once('@').map_or((None, word), |(user, host)| (Some(user), host));
    let bare = |host: &str| user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
    let port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return match rest.strip_prefix(':').filter(|number| port(number)) {
            Some(number) => (bare(address), Some(number)),
            None if rest.is_empty() => (bare(address), None),
            None => (word.to_owned(), None),
        };
    }
    match host.split_once(':').filter(|(_, number)| is_url && port(number)) {
        Some((name, number)) => (bare(name), Some(number)),
        None => (word.to_owned(), None),
    }
}

/// An inventory file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inventory {
    /// By name; a name may be a range.
    #[serde(default)]
    hosts: BTreeMap<String, Option<Host>>,
    /// By name: hosts, ranges, patterns, `@group`, `!host`.
    #[serde(default)]
    groups: BTreeMap<String, Vec<String>>,
    /// `Host` names of the user's ssh configuration.
    #[serde(skip)]
    known: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    address: Option<String>,
    user: Option<String>,
    port: Option<u16>,
    identity_file: Option<PathBuf>,
    jump: Option<String>,
    #[serde(default)]
    ssh_options: Vec<String>,
}

impl Inventory {
    /// Reads an inventory, and the names in ssh's configuration.
    pub(crate) fn load(file: Option<&Path>, ssh_config: Option<&Path>, home: Option<&Path>) -> Result<Self> {
        let usual = home.map(|home| home.join(".config/legwork/inventory.yaml")).filter(|file| file.exists());
        let mut inventory = match file.or(usual.as_deref()) {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("failed to read the inventory {}", file.display()))?;
                serde_saphyr::from_str(&text)
                    .with_context(|| format!("{} is no inventory", file.display()))?
            }
            None => Self::default(),
        };
        let mut ranges = BTreeMap::new();
        for (name, host) in std::mem::take(&mut inventory.hosts) {
            for name in range(&name)? {
                ranges.insert(name, host.clone());
            }
        }
        inventory.hosts = ranges;
        let usual = home.map(|home| home.join(".ssh/config"));
        if let Some(config) = ssh_config.map(Path::to_owned).or(usual) {
            names(&config, home, 0, &mut inventory.known);
        }
        Ok(inventory)
    }

    /// The hosts that are meant, each once, in the order they were named.
    pub(crate) fn resolve(&self, words: &[String]) -> Result<Vec<Target>> {
        let mut found: Vec<String> = Vec::new();
        self.expand(words, 0, &mut found)?;
        if found.is_empty() {
            bail!("no host is left of {}", words.join(" "));
        }
        Ok(found.into_iter().map(|name| self.target(name)).collect())
    }

    fn expand(&self, words: &[String], depth: usize, found: &mut Vec<String>) -> Result<()> {
        if depth > MAX_DEPTH {
            bail!("groups of the inventory contain each other");
        }
        let mut without = Vec::new();
        for word in words {
            if let Some(word) = word.strip_prefix('!') {
                self.expand(&[word.to_owned()], depth + 1, &mut without)?;
            } else if let Some(file) = word.strip_prefix("@file:") {
                let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {file}"))?;
                let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
                let words: Vec<String> = lines.filter(|word| !word.is_empty()).map(str::to_owned).collect();
                self.expand(&words, depth + 1, found)?;
            } else if let Some(group) = word.strip_prefix('@') {
                match self.groups.get(group) {
                    Some(members) => self.expand(members, depth + 1, found)?,
                    None if group == "all" => found.extend(self.hosts.keys().cloned()),
                    None => {
                        let known: Vec<&str> = self.groups.keys().map(String::as_str).collect();
                        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                        bail!("there is no group @{group} in the inventory; there are: {known}");
                    }
                }
            } else if word.contains(['*', '?']) {
                let before = found.len();
                let all = self.hosts.keys().chain(&self.known);
                found.extend(all.filter(|name| fits(word, name)).cloned());
                if found.len() == before {
                    bail!("no host of the inventory or of ssh's configuration fits {word}");
                }
            } else {
                found.extend(range(word)?);
            }
        }
        let mut seen = std::collections::HashSet::new();
        found.retain(|name| !without.contains(name) && seen.insert(name.clone()));
        Ok(())
    }

    fn target(&self, name: String) -> Target {
        let host = self.hosts.get(&name).cloned().flatten().unwrap_or_default();
        let mut args = Vec::new();
        if let Some(user) = host.user {
            args.push(format!("-oUser={user}"));
        }
        if let Some(port) = host.port {
            args.push(format!("-oPort={port}"));
        }
        if let Some(file) = host.identity_file {
            args.push(format!("-oIdentityFile=\"{}\"", file.display()));
        }
        if let Some(jump) = host.jump {
            args.push(format!("-oProxyJump={jump}"));
        }
        args.extend(host.ssh_options.into_iter().map(|option| format!("-o{option}")));
        let address = host.address.unwrap_or_else(|| name.clone());
        let (address, port) = written(&address);
        let named = port.map(|port| format!("-oPort={port}")).into_iter().collect();
        Target { address, name, args, named }
    }
}

/// `web[1-3,08-10].example.com`: every host of a range. Leading zeros are kept.
fn range(word: &str) -> Result<Vec<String>> {
    let Some((before, rest)) = word.split_once('[') else { return Ok(vec![word.to_owned()]) };
    let Some((inside, after)) = rest.split_once(']') else { return Ok(vec![word.to_owned()]) };
    // [::1] is an address.
    if inside.contains(':') {
        return Ok(vec![word.to_owned()]);
    }
    let mut middles = Vec::new();
    for part in inside.split(',') {
        match part.split_once('-') {
            None if !part.is_empty() => middles.push(part.to_owned()),
            Some((from, to)) => {
                let number = |text: &str| -> Result<u64> {
                    let digits = text.bytes().all(|b| b.is_ascii_digit());
                    text.parse()
                        .ok()
                        .filter(|_| digits)
                        .with_context(|| format!("{word}: {text:?} is no number"))
                };
                let (first, last) = (number(from)?, number(to)?);
                if first > last || last - first >= MAX_RANGE {
                    bail!("{word}: a range goes up, and has at most {MAX_RANGE} hosts");
                }
                let width = if from.starts_with('0') { from.len() } else { 0 };
                middles.extend((first..=last).map(|n| format!("{n:0width$}")));
            }
            None => bail!("{word}: a part of the range is empty"),
        }
    }
    let afters = range(after)?;
    let all =
        middles.iter().flat_map(|middle| afters.iter().map(move |after| format!("{before}{middle}{after}")));
    Ok(all.collect())
}

/// Whether a name fits a pattern of `*` and `?`.
fn fits(pattern: &str, name: &str) -> bool {
    globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(name))
}

/// The `Host` names of an ssh configuration that are no patterns.
fn names(file: &Path, home: Option<&Path>, depth: usize, found: &mut Vec<String>) {
    let Ok(text) = std::fs::read_to_string(file) else { return };
    for line in text.lines() {
        let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
        let keyword = words.next().unwrap_or_default().to_ascii_lowercase();
        if keyword == "host" {
            found.extend(words.filter(|name| !name.contains(['*', '?', '!'])).map(str::to_owned));
        } else if keyword == "include" && depth < 16 {
            for path in words {
                let path = match (path.strip_prefix("~/"), home) {
                    (Some(path), Some(home)) => home.join(path),
                    _ => home.map_or_else(|| PathBuf::from(path), |home| home.join(".ssh").join(path)),
                };
                included(&path).iter().for_each(|file| names(file, home, depth + 1, found));
            }
        }
    }
}

/// The files that an Include names; a pattern stands in the last part, as it mostly does.
fn included(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    if !name.contains(['*', '?']) {
        return vec![path.to_owned()];
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|file| file.file_name().is_some_and(|n| fits(name, &n.to_string_lossy()))).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(text: &str) -> Inventory {
        let dir = std::env::temp_dir().join(format!("legwork-inventory-{}-{:p}", std::process::id(), text));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("inventory.yaml");
        std::fs::write(&file, text).unwrap();
        let loaded = Inventory::load(Some(&file), None, None);
        std::fs::remove_dir_all(&dir).unwrap();
        loaded.unwrap()
    }

    fn resolved(inventory: &Inventory, words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        inventory.resolve(&words).unwrap().into_iter().map(|target| target.name).collect()
    }

    #[test]
    fn ranges() {
        assert_eq!(range("web[1-3].x").unwrap(), ["web1.x", "web2.x", "web3.x"]);
        assert_eq!(range("web[08-10,a]").unwrap(), ["web08", "web09", "web10", "weba"]);
        assert_eq!(range("w[1-11]").unwrap()[9..], ["w10", "w11"]);
        assert_eq!(range("[::1]").unwrap(), ["[::1]"]);
        assert_eq!(range("r[1-2]n[1-2]").unwrap(), ["r1n1", "r1n2", "r2n1", "r2n2"]);
        for bad in ["web[3-1]", "web[1-x]", "web[]", "web[1,,2]", "web[1-999999999]"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_patterns_and_exclusions() {
        let text = "hosts:\n  web[1-3]:\n    user: deploy\n    port: 2222\n  db1: {address: 10.0.0.9, jump: bastion}\n\
                    groups:\n  web: ['web[1-3]']\n  prod: ['@web', db1, '!web2']\n";
        let inventory = inventory(text);
        assert_eq!(resolved(&inventory, &["@prod"]), ["web1", "web3", "db1"]);
        assert_eq!(resolved(&inventory, &["web*", "!web1", "web3"]), ["web2", "web3"]);
        assert_eq!(resolved(&inventory, &["@all"]).len(), 4);
        assert_eq!(resolved(&inventory, &["other", "other"]), ["other"]);
        let target = inventory.target("db1".into());
        assert_eq!(
            (target.address.as_str(), target.args),
            ("10.0.0.9", vec!["-oProxyJump=bastion".to_owned()])
        );
        assert_eq!(inventory.target("web1".into()).args, ["-oUser=deploy", "-oPort=2222"]);
        let missing = inventory.resolve(&["@none".into()]).unwrap_err().to_string();
        assert!(missing.contains("there are: prod, web"), "{missing}");
        assert!(inventory.resolve(&["web1".into(), "!web1".into()]).is_err());
    }

    #[test]
    fn hosts_are_written_as_ssh_takes_them() {
        for (word, address, port) in [
            ("web1", "web1", None),
            ("[::1]", "::1", None),
            ("me@[::1]:2222", "me@::1", Some("2222")),
            ("ssh://me@web1:2222", "me@web1", Some("2222")),
            ("ssh://[fe80::1%eth0]/", "fe80::1%eth0", None),
            ("DOM+me@web1", "DOM+me@web1", None),
            ("::1", "::1", None),
            ("web1:22", "web1:22", None),
        ] {
            assert_eq!(written(word), (address.to_owned(), port), "{word}");
        }
    }

    #[test]
    fn groups_that_contain_each_other_are_an_error() {
        let inventory = inventory("groups:\n  a: ['@b']\n  b: ['@a']\n");
        assert!(inventory.resolve(&["@a".into()]).is_err());
    }
}
