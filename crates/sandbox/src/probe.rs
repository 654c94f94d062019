//! What this machine offers walls to be built of.

use std::path::PathBuf;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};

use crate::cgroup::Groups;
use crate::library::find;

/// What this machine offers.
#[derive(Debug, Clone, Default)]
pub struct Abilities {
    /// Landlock's version; 0 for none. Versions above 6 change nothing here.
    pub landlock_abi: u32,
    /// Where `runsc` is.
    pub runsc: Option<PathBuf>,
    /// Control groups.
    pub groups: Groups,
}

/// Looks. Whether namespaces can be made is seen only by making them.
pub fn probe(path: &str) -> Abilities {
    Abilities { landlock_abi: landlock_abi(), runsc: find("runsc", path), groups: Groups::find() }
}

impl Abilities {
    /// Why Landlock can't be used, if it can't.
    pub fn landlock_lacks(&self) -> Option<String> {
        match self.landlock_abi {
            0 => Some("this kernel has no Landlock, or it is not enabled (lsm=landlock,…)".into()),
            abi if abi < crate::ruleset::LEAST_ABI => Some(format!(
                "this kernel's Landlock is version {abi}; files can be truncated past it before 3"
            )),
            _ => None,
        }
    }

    /// What Landlock does not hold here although newer kernels do.
    pub fn landlock_gaps(&self) -> Option<String> {
        (self.landlock_abi < crate::ruleset::SCOPE_ABI).then(|| {
            format!(
                "Landlock {} does not keep signals from processes of the same user (6 does): use run_as",
                self.landlock_abi
            )
        })
    }
}

fn landlock_abi() -> u32 {
    let known = |abi: ABI| {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let Ok(mut ruleset) = ruleset.handle_access(AccessFs::from_all(abi)) else { return false };
        let net = AccessNet::from_all(abi);
        if !net.is_empty() {
            match ruleset.handle_access(net) {
                Ok(with) => ruleset = with,
                Err(_) => return false,
            }
        }
        let scope = Scope::from_all(abi);
        if !scope.is_empty() {
            match ruleset.scope(scope) {
                Ok(with) => ruleset = with,
                Err(_) => return false,
            }
        }
        ruleset.create().is_ok()
    };
    [(ABI::V6, 6), (ABI::V5, 5), (ABI::V4, 4), (ABI::V3, 3), (ABI::V2, 2), (ABI::V1, 1)]
        .into_iter()
        .find(|(abi, _)| known(*abi))
        .map_or(0, |(_, version)| version)
}
