//! The profiles.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How strong the wall is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// No wall.
    #[default]
    Off,
    /// File rights by Landlock, system calls by seccomp.
    Landlock,
    /// Namespaces of its own: files, processes, network.
    Namespaces,
    /// A kernel of its own: `runsc`.
    Gvisor,
}

impl Profile {
    /// Its name in configs, labels and audit records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Landlock => "landlock",
            Self::Namespaces => "namespaces",
            Self::Gvisor => "gvisor",
        }
    }

    /// Whether commands have no network but the proxy.
    pub fn holds_network(self) -> bool {
        matches!(self, Self::Namespaces | Self::Gvisor)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
