//! Which hosts are meant: names, ranges, groups, patterns, labels; and what is known of them.

mod ansible;
mod read;
mod ssh_config;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail};
use legwork_remote::{Secret, Whom};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::template::{Engine, Variables};
pub(crate) use read::VAULT;
use words::{fits, range, split, written};

/// Groups in groups.
const MAX_DEPTH: usize = 20;

/// One host to work on.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What people call it.
    pub(crate) name: String,
    /// What ssh calls it.
    pub(crate) address: String,
    /// Arguments of ssh.
    pub(crate) args: Vec<String>,
    /// Those that its name holds: a port.
    pub(crate) named: Vec<String>,
    /// As whom the inventory says that work is done there.
    pub(crate) whom: Option<Whom>,
    /// It is this machine.
    pub(crate) is_here: bool,
    /// What it said of itself, where that was asked.
    pub(crate) facts: Option<Value>,
}

/// Hosts, groups and their variables.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// By name.
    hosts: BTreeMap<String, Host>,
    groups: BTreeMap<String, Group>,
    /// Of all hosts.
    vars: Vars,
    /// `Host` names of the user's ssh configuration.
    known: Vec<String>,
    /// A configuration of ssh that the hosts come from.
    config: Option<PathBuf>,
    /// By group.
    members: OnceLock<BTreeMap<String, Vec<String>>>,
}

/// Variables of one and the same: in the inventory, and in files beside it, which win.
#[derive(Debug, Clone, Default)]
struct Vars {
    inline: Map<String, Value>,
    files: Map<String, Value>,
}

#[derive(Debug, Clone, Default)]
struct Group {
    /// Hosts, ranges, patterns, `@group`, `!host`.
    words: Vec<String>,
    vars: Vars,
    /// Of two of the same depth, the higher one's variables win.
    priority: i64,
}

#[derive(Debug, Clone, Default)]
struct Host {
    settings: Settings,
    vars: Vars,
}

/// What our own format says of a host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    address: Option<String>,
    user: Option<String>,
    port: Option<u16>,
    identity_file: Option<PathBuf>,
    jump: Option<String>,
    #[serde(default)]
    ssh_options: Vec<String>,
    /// Work there is root's.
    #[serde(default)]
    sudo: bool,
    /// Words by which it can be chosen.
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    vars: Map<String, Value>,
}

impl Inventory {
    /// The hosts that are meant, each once, in the order they were named.
    pub(crate) fn resolve(self: &Arc<Self>, words: &[String]) -> Result<Vec<Target>> {
        let found = self.names(words)?;
        if found.is_empty() {
            bail!("no host is left of {}", words.join(" "));
        }
        let engine = Engine::default();
        found.into_iter().map(|name| self.target(&engine, name)).collect()
    }

    /// Whether a host stands in it.
    pub(crate) fn knows(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }

    /// Their names.
    pub(crate) fn names(&self, words: &[String]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        self.expand(words, 0, &mut found)?;
        Ok(found)
    }

    /// All of these words, but for those behind a `!`, and of the rest those behind each `&`.
    fn expand(&self, words: &[String], depth: usize, found: &mut Vec<String>) -> Result<()> {
        if depth > MAX_DEPTH {
            bail!("groups of the inventory contain each other");
        }
        let (mut without, mut only) = (HashSet::new(), Vec::new());
        let inner = |word: &str| {
            let mut some = Vec::new();
            self.expand(&[word.to_owned()], depth + 1, &mut some).map(|()| some)
        };
        for word in words {
            if let Some(word) = word.strip_prefix('!') {
                without.extend(inner(word)?);
            } else if let Some(word) = word.strip_prefix('&') {
                only.push(inner(word)?.into_iter().collect::<HashSet<_>>());
            } else {
                self.word(word, depth, found)?;
            }
        }
        let mut seen = HashSet::new();
        found.retain(|name| {
            !without.contains(name)
                && only.iter().all(|only| only.contains(name))
                && seen.insert(name.clone())
        });
        Ok(())
    }

    fn word(&self, word: &str, depth: usize, found: &mut Vec<String>) -> Result<()> {
        if let Some(file) = word.strip_prefix("@file:") {
            let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {file}"))?;
            let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
            let words: Vec<String> = lines.filter(|word| !word.is_empty()).map(str::to_owned).collect();
            return self.expand(&words, depth + 1, found);
        }
        if let Some(label) = word.strip_prefix("@label:") {
            let before = found.len();
            let has = |host: &Host| host.settings.labels.iter().any(|known| known == label);
            found.extend(self.hosts.iter().filter(|(_, host)| has(host)).map(|(name, _)| name.clone()));
            if found.len() == before {
                bail!("no host of the inventory has the label {label}");
            }
            return Ok(());
        }
        if let Some(group) = word.strip_prefix('@') {
            return self.group(group, depth, found);
        }
        if word.contains(['*', '?']) {
            let before = found.len();
            let all = self.hosts.keys().chain(&self.known);
            found.extend(all.filter(|name| fits(word, name)).cloned());
            if found.len() == before {
                bail!("no host of the inventory or of ssh's configuration fits {word}");
            }
            return Ok(());
        }
        let is_host = self.hosts.contains_key(word) || self.known.iter().any(|known| known == word);
        if depth == 0 && self.groups.contains_key(word) && !is_host {
            bail!(
                "{word} is a group of the inventory: @{word} names its hosts, ssh://{word} a host of that name"
            );
        }
        found.extend(range(word)?);
        Ok(())
    }

    fn group(&self, name: &str, depth: usize, found: &mut Vec<String>) -> Result<()> {
        let mut some = Vec::new();
        let all = self.groups.iter();
        match self.groups.get(name) {
            Some(group) => self.expand(&group.words, depth + 1, &mut some)?,
            None if name == "all" => some.extend(self.hosts.keys().cloned()),
            None if name == "ungrouped" => {
                let grouped: HashSet<&String> = self.members().values().flatten().collect();
                some.extend(self.hosts.keys().filter(|host| !grouped.contains(host)).cloned());
            }
            None if name.contains(['*', '?']) && self.groups.keys().any(|group| fits(name, group)) => {
                for (_, group) in all.filter(|(group, _)| fits(name, group)) {
                    self.expand(&group.words, depth + 1, &mut some)?;
                }
            }
            None => {
                let known: Vec<&str> = all.map(|(name, _)| name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                bail!("there is no group @{name} in the inventory; there are: {known}");
            }
        }
        found.extend(some);
        Ok(())
    }

    /// The hosts of each group. One that can't be told has none: who names it is told why.
    fn members(&self) -> &BTreeMap<String, Vec<String>> {
        self.members.get_or_init(|| {
            let hosts = |group: &Group| {
                let mut some = Vec::new();
                self.expand(&group.words, 1, &mut some).map_or_else(|_| Vec::new(), |()| some)
            };
            self.groups.iter().map(|(name, group)| (name.clone(), hosts(group))).collect()
        })
    }

    /// A host's groups: those whose variables win come last.
    fn groups_of(&self, host: &str) -> Result<Vec<&String>> {
        let mut found = Vec::new();
        for (name, members) in self.members() {
            let group = &self.groups[name];
            if members.iter().any(|member| member == host) {
                found.push((self.depth(name), group.priority, name));
            } else if members.is_empty() && !(group.vars.inline.is_empty() && group.vars.files.is_empty()) {
                // Whose variables these are must be known.
                self.expand(&group.words, 1, &mut Vec::new()).with_context(|| format!("group {name}"))?;
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, _, name)| name).collect())
    }

    /// How many groups a group is in, one in the other.
    fn depth(&self, name: &str) -> usize {
        let mut above = BTreeSet::from([name.to_owned()]);
        for depth in 0..MAX_DEPTH {
            let holds = |group: &Group| {
                group
                    .words
                    .iter()
                    .any(|word| word.strip_prefix('@').is_some_and(|child| above.contains(child)))
            };
            let next: BTreeSet<String> =
                self.groups.iter().filter(|(_, group)| holds(group)).map(|(name, _)| name.clone()).collect();
            if next.is_empty() {
                return depth;
            }
            above = next;
        }
        MAX_DEPTH
    }

    /// A host's variables: of all, of its groups from the outermost on, its own.
    pub(crate) fn variables(&self, host: &str) -> Result<Map<String, Value>> {
        let groups = self.groups_of(host)?;
        let mut all = self.vars.inline.clone();
        all.extend(self.vars.files.clone());
        let mut add = |vars: &Map<String, Value>| all.extend(vars.clone());
        groups.iter().for_each(|group| add(&self.groups[*group].vars.inline));
        groups.iter().for_each(|group| add(&self.groups[*group].vars.files));
        if let Some(host) = self.hosts.get(host) {
            add(&host.vars.inline);
            add(&host.vars.files);
        }
        // What a vault keeps is not known here; as it stands it would be written into files.
        all.retain(|_, value| !value.as_str().is_some_and(|text| text.starts_with(VAULT)));
        Ok(all)
    }

    /// What templates know of a host beside its variables.
    pub(crate) fn about(&self, host: &str) -> Map<String, Value> {
        let mut groups = self.members().clone();
        groups.insert("all".to_owned(), self.hosts.keys().cloned().collect());
        let names: Vec<&String> = self.groups_of(host).unwrap_or_default();
        let labels = self.hosts.get(host).map(|host| host.settings.labels.clone()).unwrap_or_default();
        let short = host.split('.').next().unwrap_or_default();
        let about = json!({
            "inventory_hostname": host, "inventory_hostname_short": short, "group_names": names,
            "groups": groups, "labels": labels,
        });
        about.as_object().cloned().unwrap_or_default()
    }

    fn target(self: &Arc<Self>, engine: &Engine, name: String) -> Result<Target> {
        let settings = self.hosts.get(&name).map(|host| host.settings.clone()).unwrap_or_default();
        let vars = Variables::of(engine, self, &name, &Map::new(), None)?;
        let text = |name: &str| vars.text(name);
        let first = |names: &[&str]| -> Result<Option<String>> {
            names.iter().find_map(|name| text(name).transpose()).transpose()
        };
        let of = |error: anyhow::Error| error.context(format!("host {name} of the inventory"));
        let mut args = Vec::new();
        let mut set = |option: &str, value: Option<String>| {
            args.extend(value.map(|value| format!("-o{option}={value}")));
        };
        let var = |names: &[&str]| first(names).map_err(of);
        set(
            "User",
            settings
                .user
                .map_or_else(|| var(&["ansible_user", "ansible_ssh_user"]), |user| Ok(Some(user)))?,
        );
        let port = settings.port.map(|port| port.to_string());
        let port = port.map_or_else(|| var(&["ansible_port", "ansible_ssh_port"]), |port| Ok(Some(port)))?;
        if port.as_ref().is_some_and(|port| port.parse::<u16>().is_err()) {
            bail!("host {name} of the inventory: its port is no number");
        }
        set("Port", port);
        let key = settings.identity_file.map(|file| file.display().to_string());
        let key = key.map_or_else(
            || var(&["ansible_ssh_private_key_file", "ansible_private_key_file"]),
            |key| Ok(Some(key)),
        )?;
        set("IdentityFile", key.map(|key| format!("\"{key}\"")));
        set("ProxyJump", settings.jump);
        args.extend(settings.ssh_options.into_iter().map(|option| format!("-o{option}")));
        for more in ["ansible_ssh_common_args", "ansible_ssh_extra_args"] {
            let more = text(more).map_err(of)?.unwrap_or_default();
            args.extend(split(&more).map_err(of)?);
        }
        args.extend(self.config.iter().map(|file| format!("-F{}", file.display())));
        let address = settings
            .address
            .map_or_else(|| var(&["ansible_host", "ansible_ssh_host"]), |own| Ok(Some(own)))?;
        let address = address.unwrap_or_else(|| name.clone());
        let (address, port) = written(&address);
        let named = port.map(|port| format!("-oPort={port}")).into_iter().collect();
        let is_here = match text("ansible_connection").map_err(of)?.as_deref() {
            None | Some("ssh" | "smart" | "paramiko" | "paramiko_ssh" | "ansible.builtin.ssh") => false,
            Some("local" | "ansible.builtin.local") => true,
            Some(other) => {
                bail!("host {name} of the inventory: {other} is no way to it; --via names a program that is")
            }
        };
        let whom = whom(&vars, settings.sudo).map_err(of)?;
        Ok(Target { address, name, args, named, whom, is_here, facts: None })
    }
}

/// As whom work is done on a host, if not as the one who logs in.
fn whom(vars: &Arc<Variables>, sudo: bool) -> Result<Option<Whom>> {
    let text = |name: &str| vars.text(name).map(Option::unwrap_or_default);
    let yes = |text: String| matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1");
    if !sudo && !yes(text("ansible_become")?) {
        return Ok(None);
    }
    let method = match text("ansible_become_method")?.as_str() {
        "" | "sudo" | "ansible.builtin.sudo" => String::new(),
        "su" | "ansible.builtin.su" => "su".to_owned(),
        "doas" | "community.general.doas" => "doas".to_owned(),
        other => bail!("ansible_become_method: {other} is none of sudo, su and doas"),
    };
    let mut password = text("ansible_become_password")?;
    for former in ["ansible_become_pass", "ansible_sudo_pass"] {
        if password.is_empty() {
            password = text(former)?;
        }
    }
    let user = Some(text("ansible_become_user")?).filter(|user| user != "root").unwrap_or_default();
    Ok(Some(Whom { elevated: true, password: Secret(password), method, user }))
}

#[cfg(test)]
mod tests;
