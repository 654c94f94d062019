//! Scanners that are installed: gitleaks and trivy.

use std::collections::BTreeMap;
use std::time::Duration;

use legwork_process::sandbox::Profile;
use serde_json::Value;

use super::finding::{Finding, Report};
use super::rules::masked;
use crate::command::{self, Failed, Tool};
use crate::files::Files;
use crate::shells::Shells;

const TIMEOUT: Duration = Duration::from_secs(300);
const MAX_OUTPUT: usize = 32 << 20;

/// Runs what is installed, and adds what it finds.
pub(super) async fn run(files: &Files, shells: &Shells, report: &mut Report) {
    if let Some(gitleaks) = shells.find("gitleaks") {
        let argv = [&gitleaks, "dir", "--no-banner", "--exit-code", "0", "--report-format", "json"];
        let argv = argv.into_iter().chain(["--report-path", "/dev/stdout", "."]);
        add((files, shells), report, "gitleaks", argv.map(str::to_owned).collect(), gitleaks_findings).await;
    }
    if let Some(trivy) = shells.find("trivy") {
        let argv = [&trivy, "fs", "--quiet", "--format", "json", "--scanners", "vuln,misconfig,secret", "."];
        add((files, shells), report, "trivy", argv.map(str::to_owned).to_vec(), trivy_findings).await;
    }
}

async fn add(
    (files, shells): (&Files, &Shells),
    report: &mut Report,
    name: &'static str,
    argv: Vec<String>,
    read: fn(&Files, &Value) -> Vec<Finding>,
) {
    match output(shells, argv).await {
        Ok(json) => {
            report.tools.push(name.to_owned());
            report.findings.extend(read(files, &json));
        }
        Err(error) => report.warnings.push(format!("{name}: {error}")),
    }
}

/// Why there is no report of a scanner.
#[derive(Debug, thiserror::Error)]
enum NoReport {
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error("its report can't be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

async fn output(shells: &Shells, argv: Vec<String>) -> Result<Value, NoReport> {
    let tool = Tool { argv, env: BTreeMap::new(), sandbox: Profile::Off, timeout: TIMEOUT, most: MAX_OUTPUT };
    let out = command::output(shells, tool).await?;
    Ok(serde_json::from_slice(&out)?)
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn gitleaks_findings(files: &Files, report: &Value) -> Vec<Finding> {
    let all = report.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .map(|leak| Finding {
            rule: text(leak, "RuleID"),
            severity: "high".into(),
            description: text(leak, "Description"),
            path: files.names.absolute(text(leak, "File").trim_start_matches("./")),
            line: leak.get("StartLine").and_then(Value::as_u64),
            found: Some(masked(&text(leak, "Secret"))),
            by: "gitleaks",
        })
        .collect()
}

fn trivy_findings(files: &Files, report: &Value) -> Vec<Finding> {
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for target in list(report, "Results") {
        let path = files.names.absolute(&text(&target, "Target"));
        for (kind, id) in
            [("Vulnerabilities", "VulnerabilityID"), ("Misconfigurations", "ID"), ("Secrets", "RuleID")]
        {
            for problem in list(&target, kind) {
                found.push(Finding {
                    rule: text(&problem, id),
                    severity: text(&problem, "Severity").to_lowercase(),
                    description: text(&problem, "Title"),
                    path: path.clone(),
                    line: problem.get("StartLine").and_then(Value::as_u64),
                    found: problem.get("PkgName").and_then(Value::as_str).map(str::to_owned),
                    by: "trivy",
                });
            }
        }
    }
    found
}
