//! What every command may read, and what of it it may not.

use std::path::{Path, PathBuf};

/// Programs, libraries, settings and logs of the system. Nobody's home is among them.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/sys",
    "/proc",
    "/nix",
    "/gnu",
    "/snap",
    "/var/log",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/cache/man",
    "/run/log",
    "/run/systemd/resolve",
];

/// Secrets within those.
const HIDDEN: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/security/opasswd",
    "/etc/ssl/private",
    "/etc/pki/tls/private",
    "/etc/letsencrypt",
    "/etc/krb5.keytab",
    "/etc/wireguard",
    "/etc/openvpn",
    "/etc/ipsec.secrets",
    "/etc/ipsec.d",
    "/etc/swanctl",
    "/etc/ppp",
    "/etc/NetworkManager/system-connections",
    "/etc/wpa_supplicant",
    "/etc/kubernetes",
    "/etc/rancher",
    "/etc/cni",
    "/etc/docker",
    "/etc/containers/auth.json",
    "/etc/legwork",
    "/etc/flashduty-runner",
    "/etc/credstore",
    "/etc/credstore.encrypted",
    "/etc/cloud",
    "/etc/vault.d",
    "/etc/consul.d",
    "/etc/nomad.d",
    "/etc/boto.cfg",
    "/etc/mysql/debian.cnf",
    "/etc/postgresql",
    "/etc/exim4/passwd.client",
    "/etc/postfix/sasl",
    "/etc/netrc",
    "/etc/duo",
    "/etc/sssd",
    "/etc/samba/private",
    "/etc/ceph",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
];

/// What programs may write to that is no file of anybody.
pub(crate) const DEVICES: &[&str] =
    &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// The system's folders that this machine has.
pub(crate) fn system() -> Vec<PathBuf> {
    SYSTEM.iter().map(PathBuf::from).filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// The secrets that this machine has, host keys included.
pub(crate) fn hidden() -> Vec<PathBuf> {
    let mut hidden: Vec<PathBuf> =
        HIDDEN.iter().map(PathBuf::from).filter(|p| p.symlink_metadata().is_ok()).collect();
    for entry in std::fs::read_dir("/etc/ssh").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.contains("_key") && !name.ends_with(".pub") {
            hidden.push(entry.path());
        }
    }
    hidden
}

/// Whether this process, with the rights it has now, can read a path.
pub(crate) fn is_readable(path: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let denied = Err(rustix::io::Errno::ACCESS);
    accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS) != denied
        // A folder that can't be listed may still be passed through.
        || path.is_dir() && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) != denied
}

/// The paths that together are `dir` without the hidden ones: `dir` itself if none of
/// them lies in it. Each comes with whether it was found in a folder: a link that was is
/// not to be followed, as it may lead to what nobody granted.
pub(crate) fn without(dir: &Path, hidden: &[PathBuf], out: &mut Vec<(PathBuf, bool)>) {
    if hidden.iter().any(|h| dir.starts_with(h)) {
        return;
    }
    let within: Vec<&Path> = hidden.iter().filter_map(|h| h.strip_prefix(dir).ok()).collect();
    parts(dir, &within, false, out);
}

/// `hidden` are the paths beneath `path`, from there.
fn parts(path: &Path, hidden: &[&Path], found: bool, out: &mut Vec<(PathBuf, bool)>) {
    if hidden.is_empty() {
        out.push((path.to_owned(), found));
        return;
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) => {
            if e.kind() == std::io::ErrorKind::PermissionDenied && is_walled(path, hidden) {
                out.push((path.to_owned(), found));
            }
            return;
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let within: Vec<&Path> = hidden.iter().filter_map(|h| h.strip_prefix(&name).ok()).collect();
        if within.iter().all(|rest| !rest.as_os_str().is_empty()) {
            parts(&entry.path(), &within, true, out);
        }
    }
}

/// Whether a wall already stands around this process that hides what is hidden beneath `path`, as around a task of a
/// pool: the file modes would let it list the folder, the wall does not, and nothing of the hidden can be opened. No
/// wall is ever lifted for what is started within, so the folder may then be granted as a whole; cut into parts that
/// can't be listed it would be lost, and with it the names of users and hosts, the certificates and git's settings.
fn is_walled(path: &Path, hidden: &[&Path]) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let opens = |path: &Path| {
        let flags = rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::NONBLOCK
            | rustix::fs::OFlags::NOCTTY
            | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
        !matches!(opened, Err(rustix::io::Errno::ACCESS | rustix::io::Errno::NOENT))
    };
    accessat(CWD, path, Access::READ_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
        && !hidden.iter().any(|rest| opens(&path.join(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_paths_are_cut_out_and_nothing_else() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |p: &str| root.path().join(p);
        for file in ["a/x", "a/secret/key", "b/y", "c"] {
            let path = at(file);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let mut got = Vec::new();
        without(root.path(), &[at("a/secret"), at("c")], &mut got);
        got.sort();
        assert_eq!(got, [(at("a/x"), true), (at("b"), true)]);
        got.clear();
        without(&at("b"), &[at("a")], &mut got);
        assert_eq!(got, [(at("b"), false)]);
    }
}
