//! Looking for what should not be in a workspace: secrets, dangerous modes, bad patterns.

mod finding;
mod rules;
mod tools;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use crate::files::Files;
use crate::shells::Shells;
use finding::Finding;
pub(crate) use finding::Report;
use rules::Rules;

/// Files beyond this size are not searched.
const MAX_FILE: u64 = 5 << 20;
/// Most findings of one scan.
const MAX_FINDINGS: usize = 1000;

/// Why a workspace can't be scanned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// The rules can't be used.
    #[error(transparent)]
    Rules(#[from] rules::BadRules),
    /// The files can't be read.
    #[error(transparent)]
    Workspace(#[from] legwork_workspace::Error),
    /// The scan itself failed.
    #[error(transparent)]
    Broken(#[from] tokio::task::JoinError),
}

/// Scans the whole workspace.
pub(crate) async fn run(
    files: &Arc<Files>,
    shells: &Shells,
    rules: Option<PathBuf>,
) -> Result<Report, ScanError> {
    let scanning = files.clone();
    let mut report = tokio::task::spawn_blocking(move || {
        let rules = Rules::load(rules.as_deref())?;
        look(&scanning, &rules)
    })
    .await??;
    tools::run(files, shells, &mut report).await;
    report.findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    if report.findings.len() > MAX_FINDINGS {
        report.findings.truncate(MAX_FINDINGS);
        report.truncated = true;
    }
    Ok(report)
}

fn look(files: &Files, rules: &Rules) -> Result<Report, ScanError> {
    let mut report = Report::default();
    // Hidden and ignored files are where secrets are.
    let walked = files.root.each_file("", &files.exclude, &mut |path, file, meta| {
        if report.findings.len() > MAX_FINDINGS {
            return;
        }
        report.files += 1;
        let shown = files.names.absolute(path);
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
    walked?;
    Ok(report)
}
