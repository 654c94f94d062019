//! Rule sets to begin with.

/// A rule set with a name.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Its name, as in `permission.include`.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Its rules, in order.
    pub rules: &'static [(&'static str, &'static str)],
}

/// All presets.
pub const PRESETS: &[Preset] = &[
    Preset { name: "strict", purpose: "nothing runs but what you add", rules: &[("*", "deny")] },
    Preset {
        name: "read-only",
        purpose: "looking at a machine: files, processes, logs, network",
        rules: &[
            ("*", "deny"),
            ("[ *", "allow"),
            ("awk *", "allow"),
            ("basename *", "allow"),
            ("cat *", "allow"),
            ("cd *", "allow"),
            ("cut *", "allow"),
            ("date *", "allow"),
            ("df *", "allow"),
            ("diff *", "allow"),
            ("dirname *", "allow"),
            ("dmesg *", "allow"),
            ("du *", "allow"),
            ("echo *", "allow"),
            ("egrep *", "allow"),
            ("file *", "allow"),
            ("find *", "allow"),
            ("free *", "allow"),
            ("grep *", "allow"),
            ("head *", "allow"),
            ("hostname", "allow"),
            ("id *", "allow"),
            ("ip addr *", "allow"),
            ("ip link show *", "allow"),
            ("ip route show *", "allow"),
            ("journalctl *", "allow"),
            ("jq *", "allow"),
            ("last *", "allow"),
            ("ls *", "allow"),
            ("lsblk *", "allow"),
            ("lscpu *", "allow"),
            ("lsof *", "allow"),
            ("md5sum *", "allow"),
            ("nproc *", "allow"),
            ("pgrep *", "allow"),
            ("printf *", "allow"),
            ("ps *", "allow"),
            ("pwd *", "allow"),
            ("read *", "allow"),
            ("readlink *", "allow"),
            ("realpath *", "allow"),
            ("sed *", "allow"),
            ("seq *", "allow"),
            ("sha256sum *", "allow"),
            ("sleep *", "allow"),
            ("sort *", "allow"),
            ("ss *", "allow"),
            ("stat *", "allow"),
            ("systemctl cat *", "allow"),
            ("systemctl is-active *", "allow"),
            ("systemctl is-enabled *", "allow"),
            ("systemctl list-timers *", "allow"),
            ("systemctl list-units *", "allow"),
            ("systemctl show *", "allow"),
            ("systemctl status *", "allow"),
            ("tail *", "allow"),
            ("tar -t*", "allow"),
            ("test *", "allow"),
            ("tr *", "allow"),
            ("tree *", "allow"),
            ("true", "allow"),
            ("false", "allow"),
            ("uname *", "allow"),
            ("uniq *", "allow"),
            ("uptime", "allow"),
            ("vmstat *", "allow"),
            ("wc *", "allow"),
            ("which *", "allow"),
            ("who *", "allow"),
            ("xargs *", "allow"),
        ],
    },
    Preset {
        name: "kubernetes-read-only",
        purpose: "looking at a cluster; secrets stay unread",
        rules: &[
            ("*", "deny"),
            ("kubectl api-resources *", "allow"),
            ("kubectl api-versions", "allow"),
            ("kubectl cluster-info", "allow"),
            ("kubectl config current-context", "allow"),
            ("kubectl config get-contexts *", "allow"),
            ("kubectl describe *", "allow"),
            ("kubectl events *", "allow"),
            ("kubectl explain *", "allow"),
            ("kubectl get *", "allow"),
            ("kubectl logs *", "allow"),
            ("kubectl rollout history *", "allow"),
            ("kubectl rollout status *", "allow"),
            ("kubectl top *", "allow"),
            ("kubectl version *", "allow"),
            ("kubectl * secret*", "deny"),
            ("kubectl *,secret*", "deny"),
            ("kubectl *--raw*", "deny"),
            ("kubectl get -f *", "deny"),
            ("awk *", "allow"),
            ("cut *", "allow"),
            ("echo *", "allow"),
            ("grep *", "allow"),
            ("head *", "allow"),
            ("jq *", "allow"),
            ("sed *", "allow"),
            ("sort *", "allow"),
            ("tail *", "allow"),
            ("tr *", "allow"),
            ("uniq *", "allow"),
            ("wc *", "allow"),
        ],
    },
    Preset {
        name: "trust",
        purpose: "everything runs: for machines that are themselves the wall",
        rules: &[("*", "allow")],
    },
];

/// The preset of a name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Policy};

    fn decision(name: &str, line: &str) -> Decision {
        let rules = preset(name).expect("a preset").rules;
        Policy::from_pairs(rules.iter().copied()).expect("rules").judge(line).decision
    }

    #[test]
    fn presets_do_what_they_say_and_hold_no_dead_rule() {
        for preset in PRESETS {
            let policy = Policy::from_pairs(preset.rules.iter().copied()).expect("rules");
            assert_eq!(policy.notes(), [], "{}", preset.name);
        }
        for (name, line, decision_wanted) in [
            ("strict", "true", Decision::Deny),
            ("trust", "rm -rf x", Decision::Allow),
            ("read-only", "ps aux | grep nginx | awk '{print $2}'", Decision::Allow),
            ("read-only", "find . -name x -exec grep y {} \\;", Decision::Allow),
            ("read-only", "find . -exec rm {} \\;", Decision::Deny),
            ("read-only", "while read -r l; do echo \"$l\"; done < a", Decision::Allow),
            ("read-only", "read -r PATH < a; ls", Decision::Deny),
            ("read-only", "read -r OPTIND <<< 'a[$(id)]'", Decision::Deny),
            ("read-only", "ip link set eth0 down", Decision::Deny),
            ("read-only", "tar -xf x", Decision::Deny),
            (
                "kubernetes-read-only",
                "kubectl get pods -o json | jq '.items[].metadata.name'",
                Decision::Allow,
            ),
            ("kubernetes-read-only", "kubectl get secret x -o yaml", Decision::Deny),
            ("kubernetes-read-only", "kubectl get pods,secrets -o yaml", Decision::Deny),
            ("kubernetes-read-only", "kubectl get $X", Decision::Deny),
            ("kubernetes-read-only", "kubectl delete pod x", Decision::Deny),
            ("kubernetes-read-only", "kubectl exec x -- id", Decision::Deny),
        ] {
            assert_eq!(decision(name, line), decision_wanted, "{name}: {line}");
        }
    }
}
