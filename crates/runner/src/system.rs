//! What the machine is, and how busy.

use legwork_base::clock::now;

/// The machine a runner is on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Machine {
    pub os: &'static str,
    pub os_version: String,
    /// Go's name of it: `amd64`, `arm64`.
    pub arch: &'static str,
    pub hostname: String,
    pub num_cpu: u32,
    pub total_memory_mb: u64,
    pub timezone: String,
    /// Minutes east of UTC.
    pub utc_offset_minutes: i64,
}

impl Machine {
    /// Looks at this machine.
    pub fn detect() -> Self {
        let uname = rustix::system::uname();
        let os_version = std::fs::read_to_string("/etc/os-release")
            .ok()
            .and_then(|text| {
                let line = text.lines().find_map(|l| l.strip_prefix("VERSION_ID="))?;
                Some(line.trim_matches('"').to_owned())
            })
            .unwrap_or_else(|| uname.release().to_string_lossy().into_owned());
        Self {
            os: match std::env::consts::OS {
                "macos" => "darwin",
                other => other,
            },
            os_version,
            arch: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            hostname: uname.nodename().to_string_lossy().into_owned(),
            num_cpu: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            total_memory_mb: memory().map_or(0, |(_, total)| total / 1024),
            timezone: timezone(),
            utc_offset_minutes: utc_offset_minutes(),
        }
    }
}

/// The zone's IANA name.
fn timezone() -> String {
    std::env::var("TZ")
        .ok()
        .map(|tz| tz.trim_start_matches(':').to_owned())
        .filter(|tz| !tz.is_empty())
        .or_else(|| std::fs::read_to_string("/etc/timezone").ok().map(|t| t.trim().to_owned()))
        .or_else(|| {
            let link = std::fs::read_link("/etc/localtime").ok()?;
            let text = link.to_string_lossy().into_owned();
            text.split_once("zoneinfo/").map(|(_, zone)| zone.to_owned())
        })
        .filter(|zone| !zone.is_empty())
        .unwrap_or_else(|| "UTC".into())
}

/// The offset in force now, by the system's zone file (tzfile(5), version 1 data is
/// enough: it covers the present).
fn utc_offset_minutes() -> i64 {
    let zone = timezone();
    let data =
        std::fs::read(format!("/usr/share/zoneinfo/{zone}")).or_else(|_| std::fs::read("/etc/localtime"));
    data.ok().and_then(|data| offset_in(&data, now().as_secs())).unwrap_or(0) / 60
}

fn offset_in(data: &[u8], at: u64) -> Option<i64> {
    let count = |i: usize| data.get(i..i + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize);
    if data.get(..4)? != b"TZif" {
        return None;
    }
    let (times, types) = (count(32)?, count(36)?);
    let start = 44;
    let mut kind = 0;
    for i in 0..times {
        let b = data.get(start + i * 4..start + i * 4 + 4)?;
        if i64::from(i32::from_be_bytes([b[0], b[1], b[2], b[3]])) <= i64::try_from(at).ok()? {
            kind = usize::from(*data.get(start + times * 4 + i)?);
        }
    }
    if kind >= types {
        return None;
    }
    let b = data.get(start + times * 5 + kind * 6..)?.get(..4)?;
    Some(i64::from(i32::from_be_bytes([b[0], b[1], b[2], b[3]])))
}

/// Memory in KiB: not available, and in all.
fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    let total = field("MemTotal:")?;
    Some((total.saturating_sub(field("MemAvailable:")?), total))
}

/// Load in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Processors, since the look before.
    pub cpu: Option<f64>,
    /// Memory that is not available.
    pub memory: Option<f64>,
}

/// Measures [`Usage`] from one look to the next.
#[derive(Debug, Default)]
pub struct Metering {
    /// Busy and total jiffies at the look before.
    last: Option<(u64, u64)>,
}

impl Metering {
    /// Looks again.
    pub fn usage(&mut self) -> Usage {
        let memory = memory().map(|(used, total)| percent(used, total));
        let now = cpu_times();
        let cpu = self.last.zip(now).map(|((busy0, total0), (busy, total))| {
            percent(busy.saturating_sub(busy0), total.saturating_sub(total0))
        });
        self.last = now;
        Usage { cpu, memory }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 * 1000.0 / whole as f64).round() / 10.0 }
}

fn cpu_times() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let total: u64 = fields.iter().take(8).sum();
    // idle and iowait (proc(5))
    let idle = fields.get(3)? + fields.get(4)?;
    Some((total.saturating_sub(idle), total))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the real bash and date are the judges")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_offset_is_the_systems_own() {
        let date = std::process::Command::new("date").arg("+%z").output().expect("date runs");
        let text = String::from_utf8(date.stdout).expect("text");
        let (sign, digits) = text.trim().split_at(1);
        let minutes = digits[..2].parse::<i64>().expect("h") * 60 + digits[2..].parse::<i64>().expect("m");
        assert_eq!(utc_offset_minutes(), if sign == "-" { -minutes } else { minutes });
        if let Ok(data) = std::fs::read("/usr/share/zoneinfo/Asia/Shanghai") {
            assert_eq!(offset_in(&data, 1_767_225_600), Some(8 * 3600));
        }
    }

    #[test]
    fn usage_is_in_percent() {
        let mut metering = Metering::default();
        metering.usage();
        std::thread::sleep(Duration::from_millis(30));
        let usage = metering.usage();
        assert!(usage.cpu.is_some_and(|p| (0.0..=100.0).contains(&p)));
        assert!(usage.memory.is_some_and(|p| p > 0.0 && p < 100.0));
    }
}
