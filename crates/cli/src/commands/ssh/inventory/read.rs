//! Inventories from files, folders and programs, in whatever format they are.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::words::range;
use super::{Group, Host, Inventory, Settings, Vars, ansible, ssh_config};

/// What Ansible's vault has locked up begins with this.
pub(crate) const VAULT: &str = "$ANSIBLE_VAULT;";
/// A program's output, and a file.
const MAX_TEXT: u64 = 64 * 1024 * 1024;
/// What in a folder of inventories is none.
const NO_INVENTORY: &[&str] = &["cfg", "bak", "orig", "retry", "pyc", "pyo", "swp", "md", "txt"];

/// Our own format.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    /// By name; a name may be a range.
    #[serde(default)]
    hosts: BTreeMap<String, Option<Settings>>,
    /// By name: hosts, ranges, patterns, `@group`, `!host`.
    #[serde(default)]
    groups: BTreeMap<String, OwnGroup>,
    #[serde(default)]
    vars: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OwnGroup {
    Words(Vec<String>),
    More(OwnMore),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnMore {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    vars: Map<String, Value>,
}

impl Inventory {
    /// Reads an inventory, and the names in ssh's configuration.
    pub(crate) fn load(file: Option<&Path>, ssh_config: Option<&Path>, home: Option<&Path>) -> Result<Self> {
        let usual = home.map(|home| home.join(".config/legwork/inventory.yaml")).filter(|file| file.exists());
        let mut inventory = Self::default();
        if let Some(file) = file.or(usual.as_deref()) {
            inventory
                .read(file)
                .with_context(|| format!("failed to read the inventory {}", file.display()))?;
            inventory.beside(if file.is_dir() { file } else { file.parent().unwrap_or(Path::new("")) })?;
        }
        let usual = home.map(|home| home.join(".ssh/config"));
        if let Some(config) = ssh_config.map(Path::to_owned).or(usual) {
            ssh_config::names(&config, home, 0, &mut inventory.known);
        }
        Ok(inventory)
    }

    fn read(&mut self, file: &Path) -> Result<()> {
        let found = std::fs::metadata(file)?;
        if found.is_dir() {
            return self.read_folder(file);
        }
        let mut start = [0u8; 4];
        let read = std::fs::File::open(file)?.read(&mut start)?;
        let is_program = start[..read].starts_with(b"#!") || start[..read].starts_with(b"\x7fELF");
        if is_program && found.permissions().mode() & 0o111 != 0 {
            return self.ask(file);
        }
        let text = text_of(file)?;
        if text.starts_with(VAULT) {
            bail!("it is locked up in a vault: ansible-vault decrypt opens it");
        }
        if ssh_config::is_one(&text) {
            let mut names = Vec::new();
            ssh_config::names(file, None, 0, &mut names);
            self.hosts.extend(names.into_iter().map(|name| (name, Host::default())));
            self.config = Some(file.to_owned());
            return Ok(());
        }
        let is_yaml =
            file.extension().is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|known| ext == *known));
        match serde_saphyr::from_str::<Value>(&text) {
            Ok(Value::Object(top)) if !top.is_empty() => self.read_map(&text, &top),
            Ok(Value::Null) => Ok(()),
            Err(error) if is_yaml => Err(error.into()),
            Ok(_) if is_yaml => bail!("it is no map of hosts and groups"),
            _ => ansible::ini(&text, self),
        }
    }

    fn read_map(&mut self, text: &str, top: &Map<String, Value>) -> Result<()> {
        if top.keys().all(|key| ["hosts", "groups", "vars"].contains(&key.as_str())) {
            return self.own(serde_saphyr::from_str(text)?);
        }
        if top.contains_key("_meta") || top.values().any(|value| value.is_array()) {
            return ansible::listed(top, self).map(drop);
        }
        ansible::yaml(top, self)
    }

    fn own(&mut self, own: Own) -> Result<()> {
        for (name, settings) in own.hosts {
            let mut settings = settings.unwrap_or_default();
            let inline = std::mem::take(&mut settings.vars);
            for name in range(&name)? {
                let host = Host {
                    settings: settings.clone(),
                    vars: Vars { inline: inline.clone(), ..Vars::default() },
                };
                self.hosts.insert(name, host);
            }
        }
        for (name, group) in own.groups {
            let (words, inline) = match group {
                OwnGroup::Words(words) => (words, Map::new()),
                OwnGroup::More(more) => (more.hosts, more.vars),
            };
            let vars = Vars { inline, ..Vars::default() };
            self.groups.insert(name, Group { words, vars, priority: 1 });
        }
        self.vars.inline.extend(own.vars);
        Ok(())
    }

    /// Every inventory in a folder, by name; what stands in a later one is added.
    fn read_folder(&mut self, folder: &Path) -> Result<()> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        files.sort();
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let none = file.extension().is_some_and(|ext| NO_INVENTORY.iter().any(|known| ext == *known));
            if file.is_dir() || none || name.starts_with('.') || name.ends_with('~') {
                continue;
            }
            self.read(&file).with_context(|| name)?;
        }
        Ok(())
    }

    /// A program's word: `--list`, and of each host `--host` if that did not tell all.
    fn ask(&mut self, program: &Path) -> Result<()> {
        let Value::Object(top) = output(program, &["--list"])? else { bail!("--list gave no object") };
        let told = ansible::listed(&top, self)?;
        if told {
            return Ok(());
        }
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        for name in names {
            let vars = output(program, &["--host", &name])?;
            if let (Value::Object(vars), Some(host)) = (vars, self.hosts.get_mut(&name)) {
                host.vars.inline.extend(vars);
            }
        }
        Ok(())
    }

    /// `group_vars` and `host_vars`, beside the inventory.
    fn beside(&mut self, folder: &Path) -> Result<()> {
        let groups: Vec<String> = self.groups.keys().cloned().collect();
        let folder_of = |kind: &str| folder.join(kind);
        self.vars.files = variables(&folder_of("group_vars"), "all")?;
        for name in groups {
            let vars = variables(&folder_of("group_vars"), &name)?;
            if let Some(group) = self.groups.get_mut(&name) {
                group.vars.files = vars;
            }
        }
        if !folder_of("host_vars").is_dir() {
            return Ok(());
        }
        for (name, host) in &mut self.hosts {
            host.vars.files = variables(&folder_of("host_vars"), name)?;
        }
        Ok(())
    }
}

/// The variables of a group or host: a file of its name, or all files in a folder of its name.
fn variables(folder: &Path, name: &str) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    // A name is no path.
    if name.contains('/') || name.starts_with('.') || !folder.is_dir() {
        return Ok(all);
    }
    let mut files: Vec<PathBuf> = ["", ".yml", ".yaml", ".json"]
        .iter()
        .map(|ext| folder.join(format!("{name}{ext}")))
        .filter(|file| file.is_file())
        .collect();
    if let Ok(entries) = std::fs::read_dir(folder.join(name)) {
        let mut inside: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|p| p.is_file()).collect();
        inside.sort();
        files.append(&mut inside);
    }
    for file in files {
        let text = text_of(&file).with_context(|| format!("failed to read {}", file.display()))?;
        if text.starts_with(VAULT) {
            tracing::warn!("{} is locked up in a vault, and its variables are not set", file.display());
            continue;
        }
        let vars: Option<Map<String, Value>> = serde_saphyr::from_str(&text)
            .with_context(|| format!("{} is no map of variables", file.display()))?;
        all.extend(vars.unwrap_or_default());
    }
    Ok(all)
}

fn text_of(file: &Path) -> Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_TEXT).read_to_string(&mut text)?;
    // Editors of Windows begin a text with a mark.
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the person's own program, which gives the person's own inventory"
)]
fn output(program: &Path, args: &[&str]) -> Result<Value> {
    // A bare name would be looked for in PATH.
    let program = std::path::absolute(program)?;
    let mut command = std::process::Command::new(&program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_TEXT).read_to_end(&mut text)?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} {} ended with {status}", program.display(), args.join(" "));
    }
    serde_json::from_slice(&text)
        .with_context(|| format!("{} {} gave no JSON", program.display(), args.join(" ")))
}
