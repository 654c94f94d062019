//! Looking for what should not be in a workspace: secrets, dangerous modes, bad patterns.

mod rules;
mod tools;

use std::io::Read;
use std::sync::Arc;

use serde::Serialize;

use crate::room::Room;
pub(crate) use rules::Rules;

/// Files beyond this size are not searched.
const MAX_FILE: u64 = 5 << 20;
/// Most findings of one scan.
const MAX_FINDINGS: usize = 1000;

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) rule: String,
    pub(crate) severity: String,
    pub(crate) description: String,
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
    /// What was found, made unusable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<String>,
    /// Who found it.
    pub(crate) by: &'static str,
}

/// What a scan found.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    pub(crate) files: u64,
    /// Files that were too large to be searched.
    pub(crate) skipped: u64,
    pub(crate) truncated: bool,
    /// Programs that were used as well, and what was wrong with those that failed.
    pub(crate) tools: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Scans the whole workspace.
pub(crate) async fn run(room: &Arc<Room>) -> Result<Report, String> {
    let scanning = room.clone();
    let mut report = tokio::task::spawn_blocking(move || {
        let rules = Rules::load(scanning.settings.scan_rules.as_deref())?;
        look(&scanning, &rules)
    })
    .await
    .map_err(|e| e.to_string())??;
    tools::run(room, &mut report).await;
    report.findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    if report.findings.len() > MAX_FINDINGS {
        report.findings.truncate(MAX_FINDINGS);
        report.truncated = true;
    }
    Ok(report)
}

fn look(room: &Room, rules: &Rules) -> Result<Report, String> {
    let mut report = Report::default();
    // Hidden and ignored files are where secrets are.
    let exclude = &room.settings.exclude;
    let walked = room.root.each_file("", exclude, &mut |path, file, meta| {
        if report.findings.len() > MAX_FINDINGS {
            return;
        }
        report.files += 1;
        let shown = room.names.absolute(path);
        for (bits, rule, severity, description) in [
            (0o4000, "mode-setuid", "high", "runs with its owner's rights"),
            (0o2000, "mode-setgid", "medium", "runs with its group's rights"),
            (0o0002, "mode-world-writable", "medium", "can be changed by everybody"),
        ] {
            if meta.mode & bits != 0 {
                report.findings.push(Finding {
                    rule: rule.into(),
                    severity: severity.into(),
                    description: description.into(),
                    path: shown.clone(),
                    line: None,
                    found: Some(format!("{:04o}", meta.mode)),
                    by: "legwork",
                });
            }
        }
        if meta.size > MAX_FILE {
            report.skipped += 1;
            return;
        }
        let mut data = Vec::new();
        if file.take(MAX_FILE).read_to_end(&mut data).is_ok() && !data.contains(&0) {
            rules.search(path, &shown, &data, &mut report.findings);
        }
    });
    walked.map_err(|e| e.to_string())?;
    Ok(report)
}
