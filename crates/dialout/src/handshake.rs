//! Who we are to the hub: name, labels, environment, heartbeats.

use std::sync::Mutex;

use legwork_base::clock::now_ms;
use legwork_proto::dialout::{Environment, Heartbeat, Metrics, Welcome, feature};
use legwork_runner::process::sandbox::Profile;
use legwork_runner::{Machine, Metering, Runner};

use crate::clock::{offset_text, rfc3339};
use crate::config::{Config, Credential};

/// The name of the user that we run as, by the user database: services have no `USER`.
fn user_name() -> Option<String> {
    name_in(&std::fs::read_to_string("/etc/passwd").ok()?, rustix::process::getuid().as_raw())
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// What the hub and the configuration say this runner is.
#[derive(Debug)]
pub(crate) struct Identity {
    machine: Machine,
    /// The configured name, or the host's.
    pub(crate) name: String,
    /// Configured and built-in labels.
    own_labels: Vec<String>,
    /// The wall in force, not the one asked for; for hubs that are not the original's.
    sandbox_label: String,
    /// Generation T: the hub's labels are ours.
    hub_labels: bool,
    workspace: String,
    boot_id: String,
    welcome: Mutex<Welcome>,
    metering: Mutex<Metering>,
}

impl Identity {
    pub(crate) fn new(config: &Config, sandbox: Profile) -> Self {
        let machine = Machine::detect();
        let name = if config.name.is_empty() { machine.hostname.clone() } else { config.name.clone() };
        let mut own_labels = config.labels.clone();
        own_labels.push(format!("os:{}", machine.os));
        own_labels.push(format!("arch:{}", machine.arch));
        own_labels.push(format!("hostname:{}", machine.hostname));
        Self {
            name,
            own_labels,
            sandbox_label: format!("sandbox:{sandbox}"),
            hub_labels: matches!(config.credential, Credential::Token(_)),
            workspace: config.workspace.to_string_lossy().into_owned(),
            boot_id: legwork_runner::process::boot_id(),
            welcome: Mutex::default(),
            metering: Mutex::default(),
            machine,
        }
    }

    /// Takes over what the hub says.
    pub(crate) fn welcomed(&self, welcome: Welcome) {
        *self.welcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = welcome;
    }

    /// A heartbeat; the first of a connection carries the environment.
    pub(crate) fn heartbeat(&self, first: bool, runner: &Runner) -> Heartbeat {
        let welcome = self.welcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let speaks_legwork = !welcome.features.is_empty();
        let mut labels = if self.hub_labels { Vec::new() } else { self.own_labels.clone() };
        for label in welcome.labels {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        // A Legwork hub takes what we know of ourselves into account as well.
        if speaks_legwork {
            let own: &[String] = if self.hub_labels { &self.own_labels } else { &[] };
            let standing = runner.gate();
            let gate = (!standing.name().is_empty()).then(|| format!("gate:{}", standing.name()));
            for label in own.iter().chain(&gate).chain([&self.sandbox_label]) {
                if !labels.contains(label) {
                    labels.push(label.clone());
                }
            }
        }
        let features: Vec<String> =
            if first { feature::ALL.iter().map(|f| (*f).to_owned()).collect() } else { Vec::new() };
        Heartbeat {
            worknode_id: welcome.worknode_id,
            name: if self.hub_labels && !welcome.name.is_empty() { welcome.name } else { self.name.clone() },
            labels,
            version: legwork_release::version().to_owned(),
            environment: first.then(|| self.environment()),
            metrics: Some(self.metrics(runner)),
            features,
            boot_id: if first { self.boot_id.clone() } else { String::new() },
        }
    }

    fn environment(&self) -> Environment {
        let machine = &self.machine;
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        Environment {
            os: machine.os.into(),
            os_version: machine.os_version.clone(),
            arch: machine.arch.into(),
            hostname: machine.hostname.clone(),
            shell: var("SHELL").unwrap_or_else(|| "/bin/sh".into()),
            home_dir: var("HOME").unwrap_or_default(),
            workspace_root: self.workspace.clone(),
            username: var("USER").or_else(|| var("LOGNAME")).or_else(user_name).unwrap_or_default(),
            num_cpu: machine.num_cpu,
            total_memory_mb: machine.total_memory_mb,
            current_time: rfc3339(now_ms(), machine.utc_offset_minutes),
            timezone: machine.timezone.clone(),
            utc_offset: offset_text(machine.utc_offset_minutes),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
    fn metrics(&self, runner: &Runner) -> Metrics {
        let usage = self.metering.lock().unwrap_or_else(std::sync::PoisonError::into_inner).usage();
        let disk = runner
            .root()
            .disk()
            .filter(|(_, total)| *total > 0)
            .map(|(free, total)| ((total - free) as f64 * 1000.0 / total as f64).round() / 10.0);
        Metrics { cpu_percent: usage.cpu, memory_percent: usage.memory, disk_percent: disk }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_user_has_the_name_of_the_user_database() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n\nlegwork:x:998:998::/var/lib/legwork:/usr/sbin/nologin\n";
        assert_eq!(name_in(passwd, 998).as_deref(), Some("legwork"));
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 7), None);
    }
}
