//! `legwork audit`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use legwork_runner::verify;
use serde_json::json;

use crate::args::AuditCommand;
use crate::{context, exit};

pub(crate) fn run(command: AuditCommand) -> Result<u8> {
    let AuditCommand::Verify { file, json } = command;
    let files = match file {
        Some(file) => vec![file],
        None => own_files(),
    };
    if files.is_empty() {
        bail!("no audit file found below {}; give one", context::state_dir().display());
    }
    let mut code = 0;
    for file in files {
        let result = verify(&file);
        if json {
            let answer = match &result {
                Ok(report) => {
                    json!({
                        "file": file, "ok": true, "records": report.records, "first": report.first,
                        "last_hash": report.last_hash,
                    })
                }
                Err(error) => json!({ "file": file, "ok": false, "error": error.to_string() }),
            };
            println!("{answer}");
        } else {
            match &result {
                Ok(report) => {
                    let from = match report.first {
                        0 => String::new(),
                        first => format!(" from number {first} on (older ones were removed by retention)"),
                    };
                    println!(
                        "{}: {} records{from}, whole; last hash {}",
                        file.display(),
                        report.records,
                        report.last_hash
                    );
                }
                Err(error) => eprintln!("Error: {error}"),
            }
        }
        if result.is_err() {
            code = exit::ERROR;
        }
    }
    Ok(code)
}

/// The audit files of this user's runners, `legwork up`'s included, workspaces and tasks.
pub(crate) fn own_files() -> Vec<PathBuf> {
    let mut folders =
        vec![context::state_dir(), context::state_dir().join("task"), context::data_dir().join("state")];
    // A runner's config may say otherwise. One that can't be read leaves the usual places.
    let configured = super::serve::load(None).ok().map(|config| config.state_dir);
    folders.extend(configured.filter(|dir| !folders.contains(dir)));
    folders
        .into_iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path().join("audit.jsonl"))
        .filter(|path| path.is_file())
        .collect()
}
