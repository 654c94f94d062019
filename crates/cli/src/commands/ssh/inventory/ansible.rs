//! Ansible's inventories: INI, YAML, and the JSON that a program gives.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use super::Inventory;
use super::words::{range, split};

/// What a section of an INI file holds.
enum Section {
    Hosts(String),
    Children(String),
    Vars(String),
}

/// Reads an INI file.
pub(super) fn ini(text: &str, to: &mut Inventory) -> Result<()> {
    let mut section = Section::Hosts("ungrouped".to_owned());
    let mut named: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let place = || format!("line {}: {line}", at + 1);
        if let Some(head) = header(line) {
            section = head.with_context(place)?;
            let (Section::Hosts(name) | Section::Children(name) | Section::Vars(name)) = &section;
            match section {
                // Whose variables these are may stand below.
                Section::Vars(_) => named.push((at, name.clone())),
                _ => group(to, name),
            }
            continue;
        }
        match &section {
            Section::Hosts(name) => host_line(line, name, to).with_context(place)?,
            Section::Children(name) => {
                let child = line.split('#').next().unwrap_or_default().trim().to_owned();
                named.push((at, child.clone()));
                put_in(to, name, &child);
            }
            Section::Vars(name) => {
                let (key, value) =
                    line.split_once('=').with_context(|| format!("{}: expected NAME=VALUE", place()))?;
                vars_of(to, name).insert(key.trim().to_owned(), literal(value.trim()));
            }
        }
    }
    for (at, name) in named {
        if name != "all" && !to.groups.contains_key(&name) {
            bail!("line {}: there is no group {name}", at + 1);
        }
    }
    finish(to);
    Ok(())
}

/// `[web]`, `[web:vars]`; `None` for a host whose name begins with a range.
fn header(line: &str) -> Option<Result<Section>> {
    let (inside, rest) = line.strip_prefix('[')?.split_once(']')?;
    let rest = rest.trim();
    if !rest.is_empty() && !rest.starts_with('#') && !rest.starts_with(';') {
        return None;
    }
    let (name, kind) = inside.split_once(':').map_or((inside, None), |(name, kind)| (name, Some(kind)));
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Some(Err(anyhow::anyhow!("a group's name is one word")));
    }
    let name = name.to_owned();
    Some(match kind {
        None => Ok(Section::Hosts(name)),
        Some("children") => Ok(Section::Children(name)),
        Some("vars") => Ok(Section::Vars(name)),
        Some(other) => Err(anyhow::anyhow!("{other:?} is none of children and vars")),
    })
}

/// `web[01:50].example.com:2222 ansible_user=deploy note="a b"`.
fn host_line(line: &str, group: &str, to: &mut Inventory) -> Result<()> {
    let mut words = split(line)?.into_iter();
    let word = words.next().unwrap_or_default();
    let (pattern, port) = port_of(&word);
    let mut vars = Map::new();
    if let Some(port) = port {
        vars.insert("ansible_port".to_owned(), Value::from(port));
    }
    for word in words {
        let (name, value) = word.split_once('=').with_context(|| format!("{word}: expected NAME=VALUE"))?;
        vars.insert(name.to_owned(), literal(value));
    }
    for name in range(pattern)? {
        to.hosts.entry(name.clone()).or_default().vars.inline.extend(vars.clone());
        if group != "all" {
            add_word(to, group, name);
        }
    }
    Ok(())
}

/// A host's name and its port. `[::1]:22` has one, `::1` and `web[1:3]` have none.
fn port_of(word: &str) -> (&str, Option<u16>) {
    let outside = word.rfind(']').map_or(0, |at| at + 1);
    if let Some(address) =
        word.strip_prefix('[').filter(|_| word.ends_with(']')).and_then(|w| w.strip_suffix(']'))
        && address.parse::<std::net::Ipv6Addr>().is_ok()
    {
        return (address, None);
    }
    let Some(at) = word[outside..].find(':').map(|at| outside + at) else { return (word, None) };
    let (name, port) = (&word[..at], &word[at + 1..]);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let name = bare.filter(|bare| bare.parse::<std::net::Ipv6Addr>().is_ok()).unwrap_or(name);
    port.parse().map_or((word, None), |port| (name, Some(port)))
}

/// A value as Python reads it, where it does; else the text.
fn literal(text: &str) -> Value {
    match text {
        "True" => return Value::Bool(true),
        "False" => return Value::Bool(false),
        "None" => return Value::Null,
        _ => {}
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && !(digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0."));
    if is_number && let Ok(number) = serde_json::from_str(text) {
        return number;
    }
    let quoted = |quote: char| {
        text.strip_prefix(quote)?.strip_suffix(quote).filter(|inside| !inside.contains([quote, '\\']))
    };
    if let Some(inside) = quoted('\'').or_else(|| quoted('"')) {
        return Value::String(inside.to_owned());
    }
    let is_list =
        (text.starts_with('[') && text.ends_with(']')) || (text.starts_with('{') && text.ends_with('}'));
    let list = is_list.then(|| serde_saphyr::from_str::<Value>(text).ok()).flatten();
    list.filter(|_| !text.starts_with("{{")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Reads a YAML file: groups by name, each with hosts, vars and children.
pub(super) fn yaml(top: &Map<String, Value>, to: &mut Inventory) -> Result<()> {
    for (name, value) in top {
        yaml_group(name, value, to, 0)?;
    }
    finish(to);
    Ok(())
}

fn yaml_group(name: &str, value: &Value, to: &mut Inventory, depth: usize) -> Result<()> {
    if depth > super::MAX_DEPTH {
        bail!("group {name}: groups are in each other too deeply");
    }
    group(to, name);
    let map = match value {
        Value::Null => return Ok(()),
        Value::Object(map) => map,
        _ => bail!("group {name}: expected hosts, vars and children"),
    };
    // Its hosts come before those of its groups.
    let order = |key: &str| ["hosts", "vars", "children"].iter().position(|known| *known == key);
    let mut parts: Vec<(&String, &Value)> = map.iter().collect();
    parts.sort_by_key(|(key, _)| order(key));
    for (key, value) in parts {
        let entries = || -> Result<Vec<(String, Value)>> {
            match value {
                Value::Null => Ok(Vec::new()),
                Value::Object(map) => Ok(map.clone().into_iter().collect()),
                // A list of names, or one name, as some write it.
                Value::String(one) => Ok(vec![(one.clone(), Value::Null)]),
                _ => bail!("group {name}: {key}: expected a map"),
            }
        };
        match key.as_str() {
            "hosts" => {
                for (pattern, vars) in entries()? {
                    let vars = match vars {
                        Value::Null => Map::new(),
                        Value::Object(vars) => vars,
                        _ => bail!("host {pattern}: expected a map of variables"),
                    };
                    let (pattern, port) = port_of(&pattern);
                    for host in range(pattern)? {
                        let known = &mut to.hosts.entry(host.clone()).or_default().vars.inline;
                        known.extend(port.map(|port| ("ansible_port".to_owned(), port.into())));
                        known.extend(vars.clone());
                        if name != "all" {
                            add_word(to, name, host);
                        }
                    }
                }
            }
            "vars" => vars_of(to, name).extend(entries()?),
            "children" => {
                for (child, value) in entries()? {
                    yaml_group(&child, &value, to, depth + 1)?;
                    put_in(to, name, &child);
                }
            }
            other => bail!("group {name}: {other:?} is none of hosts, vars and children"),
        }
    }
    Ok(())
}

/// Reads what a program gives for `--list`. False: the hosts' variables are to be asked for.
pub(super) fn listed(top: &Map<String, Value>, to: &mut Inventory) -> Result<bool> {
    for (name, value) in top.iter().filter(|(name, _)| *name != "_meta") {
        group(to, name);
        let (hosts, vars, children) = match value {
            Value::Array(_) => (Some(value), None, None),
            Value::Object(map) => (map.get("hosts"), map.get("vars"), map.get("children")),
            _ => bail!("group {name}: expected an object or a list of hosts"),
        };
        for host in strings(hosts).with_context(|| format!("group {name}: hosts"))? {
            to.hosts.entry(plain(host)?.to_owned()).or_default();
            if name != "all" {
                add_word(to, name, host.to_owned());
            }
        }
        if let Some(Value::Object(vars)) = vars {
            vars_of(to, name).extend(vars.clone());
        }
        for child in strings(children).with_context(|| format!("group {name}: children"))? {
            group(to, child);
            put_in(to, name, child);
        }
    }
    let told = top.get("_meta").and_then(|meta| meta.get("hostvars")).and_then(Value::as_object);
    for (host, vars) in told.into_iter().flatten() {
        if let Value::Object(vars) = vars {
            to.hosts.entry(plain(host)?.to_owned()).or_default().vars.inline.extend(vars.clone());
        }
    }
    finish(to);
    Ok(told.is_some())
}

/// A name that is no word for something else: what a cloud's tags say is not read as such.
fn plain(name: &str) -> Result<&str> {
    if name.is_empty() || name.starts_with(['@', '!', '&', '-']) || name.contains(['*', '?', '[', '\n']) {
        bail!("{name:?} is not the name of a host");
    }
    Ok(name)
}

fn strings(list: Option<&Value>) -> Result<Vec<&str>> {
    match list {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().context("expected a list of names")).collect()
        }
        Some(_) => bail!("expected a list of names"),
    }
}

/// A group that there may be already; `all` is none of ours.
fn group(to: &mut Inventory, name: &str) {
    if name != "all" {
        to.groups.entry(name.to_owned()).or_default();
    }
}

/// A group as a member of another.
fn put_in(to: &mut Inventory, name: &str, child: &str) {
    if name != "all" {
        add_word(to, name, format!("@{child}"));
    }
}

fn add_word(to: &mut Inventory, name: &str, word: String) {
    let words = &mut to.groups.entry(name.to_owned()).or_default().words;
    words.push(word);
}

fn vars_of<'a>(to: &'a mut Inventory, name: &str) -> &'a mut Map<String, Value> {
    match name {
        "all" => &mut to.vars.inline,
        name => &mut to.groups.entry(name.to_owned()).or_default().vars.inline,
    }
}

/// What groups say of themselves, and members that are named twice.
fn finish(to: &mut Inventory) {
    // Who is in a group is ungrouped no more.
    let others = to.groups.iter().filter(|(name, _)| *name != "ungrouped");
    let grouped: std::collections::HashSet<String> =
        others.flat_map(|(_, group)| group.words.clone()).collect();
    if let Some(ungrouped) = to.groups.get_mut("ungrouped") {
        ungrouped.words.retain(|host| !grouped.contains(host));
    }
    for group in to.groups.values_mut() {
        let mut seen = std::collections::HashSet::new();
        group.words.retain(|word| seen.insert(word.clone()));
        let priority = group.vars.inline.get("ansible_group_priority");
        group.priority =
            priority.and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok())).unwrap_or(1);
    }
}
