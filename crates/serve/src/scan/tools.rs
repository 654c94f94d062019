//! Scanners that are installed: gitleaks and trivy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use legwork_process::sandbox::Profile;
use serde_json::Value;

use super::rules::masked;
use super::{Finding, Report};
use crate::command::{self, Tool};
use crate::room::Room;

const TIMEOUT: Duration = Duration::from_secs(300);
const MAX_OUTPUT: usize = 32 << 20;

/// Runs what is installed, and adds what it finds.
pub(super) async fn run(room: &Arc<Room>, report: &mut Report) {
    let shells = &room.terminals.shells;
    if let Some(gitleaks) = shells.find("gitleaks") {
        let argv = [&gitleaks, "dir", "--no-banner", "--exit-code", "0", "--report-format", "json"];
        let argv = argv.into_iter().chain(["--report-path", "/dev/stdout", "."]);
        add(room, report, "gitleaks", argv.map(str::to_owned).collect(), gitleaks_findings).await;
    }
    if let Some(trivy) = shells.find("trivy") {
        let argv = [&trivy, "fs", "--quiet", "--format", "json", "--scanners", "vuln,misconfig,secret", "."];
        add(room, report, "trivy", argv.map(str::to_owned).to_vec(), trivy_findings).await;
    }
}

async fn add(
    room: &Arc<Room>,
    report: &mut Report,
    name: &'static str,
    argv: Vec<String>,
    read: fn(&Room, &Value) -> Vec<Finding>,
) {
    match output(room, argv).await {
        Ok(json) => {
            report.tools.push(name.to_owned());
            report.findings.extend(read(room, &json));
        }
        Err(error) => report.warnings.push(format!("{name}: {error}")),
    }
}

async fn output(room: &Arc<Room>, argv: Vec<String>) -> Result<Value, String> {
    let tool = Tool { argv, env: BTreeMap::new(), sandbox: Profile::Off, timeout: TIMEOUT, most: MAX_OUTPUT };
    let out = command::output(room, tool).await?;
    serde_json::from_slice(&out).map_err(|e| format!("its report can't be read: {e}"))
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn gitleaks_findings(room: &Room, report: &Value) -> Vec<Finding> {
    let all = report.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .map(|leak| Finding {
            rule: text(leak, "RuleID"),
            severity: "high".into(),
            description: text(leak, "Description"),
            path: room.names.absolute(text(leak, "File").trim_start_matches("./")),
            line: leak.get("StartLine").and_then(Value::as_u64),
            found: Some(masked(&text(leak, "Secret"))),
            by: "gitleaks",
        })
        .collect()
}

fn trivy_findings(room: &Room, report: &Value) -> Vec<Finding> {
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for target in list(report, "Results") {
        let path = room.names.absolute(&text(&target, "Target"));
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
