//! What a host is, as JSON: asked by one script of plain `sh`, read here. Nothing in it waits for
//! a name server or a file system that is not there.

use std::collections::BTreeMap;

use legwork_remote::{Call, Error, Exec};
use serde_json::{Map, Value, json};

use super::connected::{Connected, bytes_of};

/// Each section begins with a line `@@ NAME`.
const SCRIPT: &str = r#"
LC_ALL=C; export LC_ALL; PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
exec 2>/dev/null </dev/null
s() { printf '\n@@ %s\n' "$1"; }
s uname; uname -s; uname -r; uname -m; uname -n
s user; id -un; id -u; printf '%s\n' "$HOME" "$SHELL"
s os; cat /etc/os-release || cat /usr/lib/os-release
s cpus; grep -c '^processor' /proc/cpuinfo
s memory; cat /proc/meminfo
s address; ip -o addr || ifconfig
s route; ip route show default
s uptime; cat /proc/uptime
s boot; cat /proc/sys/kernel/random/boot_id
s machine; cat /etc/machine-id
s vendor; cat /sys/class/dmi/id/sys_vendor
s product; cat /sys/class/dmi/id/product_name
s virtual; systemd-detect-virt
s init; [ -d /run/systemd/system ] && echo systemd || cat /proc/1/comm
s selinux; getenforce
s python; command -v python3
s packages; for p in apt-get dnf5 dnf yum zypper apk pacman; do command -v $p && break; done
s disks; while read -r d m t r; do case $t in ext?|xfs|btrfs|vfat|zfs|f2fs|overlay|bcachefs)
printf '%s %s ' "$d" "$t"; df -Pk "$m" | tail -n 1;; esac; done </proc/mounts
:
"#;

/// Asks a host.
pub(crate) async fn gather(on: &Connected<'_>) -> Result<Value, Error> {
    let exec = Exec {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), SCRIPT.into()],
        capture_out: true,
        ..Default::default()
    };
    let result = on.client.run(&exec, Call::within(on.timeout)).await?;
    let text = result.stdout.unwrap_or_default();
    let bytes = bytes_of(text.as_bytes(), result.stdout_base64.as_deref())?;
    Ok(read(&String::from_utf8_lossy(&bytes)))
}

fn read(text: &str) -> Value {
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        match line.strip_prefix("@@ ") {
            Some(next) => name = next,
            None => sections.entry(name).or_default().push(line.trim_end()),
        }
    }
    let lines = |name: &str| sections.get(name).map(Vec::as_slice).unwrap_or_default();
    let line = |name: &str, at: usize| lines(name).get(at).copied().unwrap_or_default();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let memory = |key: &str| {
        let found = lines("memory").iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.and_then(|rest| number(rest.trim().trim_end_matches("kB"))).map(|kb| kb / 1024)
    };
    let interfaces = addresses(lines("address"));
    let route: Vec<&str> = line("route", 0).split_whitespace().collect();
    let after = |word: &str| route.iter().position(|found| *found == word).and_then(|at| route.get(at + 1));
    let gateway_of = after("dev").copied();
    let address = gateway_of.and_then(|name| interfaces.get(name)?.get("ipv4")?.get(0).cloned());
    let manager = line("packages", 0).rsplit('/').next().unwrap_or_default();
    let all: Vec<&Value> = interfaces
        .values()
        .flat_map(|interface| [&interface["ipv4"], &interface["ipv6"]])
        .filter_map(Value::as_array)
        .flatten()
        .filter(|address| address.as_str().is_some_and(|address| address != "127.0.0.1" && address != "::1"))
        .collect();
    let host = line("uname", 3);
    let mut facts = json!({
        "hostname": host.split('.').next(), "nodename": host,
        "kernel": { "name": line("uname", 0), "release": line("uname", 1), "machine": line("uname", 2) },
        "user": { "name": line("user", 0), "uid": number(line("user", 1)), "home": line("user", 2), "shell": line("user", 3) },
        "os": os(lines("os")),
        "cpus": number(line("cpus", 0)),
        "memory_mb": memory("MemTotal"), "memory_available_mb": memory("MemAvailable"), "swap_mb": memory("SwapTotal"),
        "addresses": all, "interfaces": interfaces,
        "default_interface": gateway_of, "default_gateway": after("via"), "default_address": address,
        "disks": lines("disks").iter().filter_map(|line| disk(line)).collect::<Vec<_>>(),
        "uptime_s": line("uptime", 0).split('.').next().and_then(number),
        "package_manager": if manager == "apt-get" { "apt" } else { manager },
    });
    for (name, section) in [
        ("boot_id", "boot"),
        ("machine_id", "machine"),
        ("vendor", "vendor"),
        ("product", "product"),
        ("virtualization", "virtual"),
        ("init", "init"),
        ("selinux", "selinux"),
        ("python", "python"),
    ] {
        facts[name] = match line(section, 0) {
            "" => Value::Null,
            text => text.into(),
        };
    }
    facts
}

/// `os-release`: words of a shell, as NAME=VALUE.
fn os(lines: &[&str]) -> Value {
    let value = |name: &str| -> String {
        let found = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let (id, like) = (value("ID"), value("ID_LIKE"));
    let like: Vec<&str> = like.split_whitespace().collect();
    let family = [id.as_str()].into_iter().chain(like.iter().copied()).find_map(|name| match name {
        "debian" | "ubuntu" => Some("debian"),
        "rhel" | "fedora" | "centos" | "rocky" | "almalinux" | "amzn" | "ol" => Some("redhat"),
        "suse" | "opensuse" | "sles" => Some("suse"),
        "arch" => Some("arch"),
        "alpine" => Some("alpine"),
        _ => None,
    });
    json!({
        "id": id, "version": value("VERSION_ID"), "name": value("PRETTY_NAME"), "codename": value("VERSION_CODENAME"),
        "like": like, "family": family.unwrap_or(&id),
    })
}

/// Of `ip -o addr`, or of `ifconfig`.
fn addresses(lines: &[&str]) -> Map<String, Value> {
    let mut found: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    let mut current = String::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_ip = words
            .first()
            .is_some_and(|word| word.ends_with(':') && word[..word.len() - 1].parse::<u32>().is_ok());
        if is_ip {
            current = words.get(1).map(|name| name.trim_end_matches(':').to_owned()).unwrap_or_default();
        } else if !line.starts_with([' ', '\t']) && !words.is_empty() {
            current = words[0].trim_end_matches(':').to_owned();
        }
        let value = |at: usize| {
            let word = words.get(at + 1)?;
            let word = if *word == "addr:" { words.get(at + 2)? } else { word };
            let word = word.strip_prefix("addr:").unwrap_or(word);
            Some(word.split(['/', '%']).next().unwrap_or_default().to_owned())
        };
        for (at, word) in words.iter().enumerate() {
            let of = found.entry(current.clone()).or_default();
            match *word {
                "inet" => of.0.extend(value(at)),
                "inet6" => of.1.extend(value(at)),
                _ => {}
            }
        }
    }
    found
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, (four, six))| (name, json!({ "ipv4": four, "ipv6": six })))
        .collect()
}

/// `DEVICE TYPE` and a line of `df -Pk`.
fn disk(line: &str) -> Option<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [device, kind, .., size, _, free, _, path] = words[..] else { return None };
    let mb = |text: &str| text.parse::<u64>().ok().map(|kb| kb / 1024);
    Some(json!({ "path": path, "device": device, "type": kind, "size_mb": mb(size)?, "free_mb": mb(free)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_say_is_read() {
        let text = "\n@@ uname\nLinux\n6.1.0\nx86_64\nweb1.example.com\n\n@@ user\nme\n1000\n/home/me\n/bin/fish\n\
                    \n@@ os\nPRETTY_NAME=\"Rocky Linux 9\"\nID=\"rocky\"\nID_LIKE=\"rhel centos\"\nVERSION_ID=\"9.3\"\n\n@@ cpus\n4\n\
                    \n@@ memory\nMemTotal:        2048000 kB\nSwapTotal: 0 kB\n\
                    \n@@ address\n1: lo    inet 127.0.0.1/8 scope host lo\n2: eth0    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0\n\
                    2: eth0    inet6 fe80::1/64 scope link \n\n@@ route\ndefault via 10.0.0.1 dev eth0 proto dhcp\n\
                    \n@@ uptime\n123.45 99\n\n@@ packages\n/usr/bin/dnf\n\n@@ disks\n/dev/vda1 ext4 /dev/vda1 2048000 1024000 1024000 50% /\n";
        let facts = read(text);
        assert_eq!(facts["hostname"], "web1");
        assert_eq!((&facts["os"]["id"], &facts["os"]["family"]), (&json!("rocky"), &json!("redhat")));
        assert_eq!(
            (&facts["cpus"], &facts["memory_mb"], &facts["swap_mb"]),
            (&json!(4), &json!(2000), &json!(0))
        );
        assert_eq!(
            (&facts["default_address"], &facts["default_gateway"]),
            (&json!("10.0.0.5"), &json!("10.0.0.1"))
        );
        assert_eq!(facts["addresses"], json!(["10.0.0.5", "fe80::1"]));
        assert_eq!(
            facts["disks"][0],
            json!({ "path": "/", "device": "/dev/vda1", "type": "ext4", "size_mb": 2000, "free_mb": 1000 })
        );
        assert_eq!((&facts["package_manager"], &facts["selinux"]), (&json!("dnf"), &Value::Null));
        // A host that says nothing of itself has facts all the same.
        assert_eq!(read("")["cpus"], Value::Null);
    }

    #[test]
    fn busyboxs_ifconfig_is_read() {
        let text = [
            "eth0      Link encap:Ethernet  HWaddr 02:42",
            "          inet addr:172.17.0.2  Bcast:172.17.255.255",
            "          inet6 addr: fe80::2/64 Scope:Link",
            "",
            "lo        Link encap:Local Loopback",
        ];
        let found = addresses(&text);
        assert_eq!(found["eth0"], json!({ "ipv4": ["172.17.0.2"], "ipv6": ["fe80::2"] }));
    }
}
