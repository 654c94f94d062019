//! The workspace server, beside a Node server of the original's design: the drivers are in
//! Node, as clients of such servers are.

use std::path::Path;
use std::process::Command;

/// Runs the drivers; they print a line of JSON a figure.
pub(crate) fn workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("workspace");
    if !dir.join("node_modules").exists() {
        let installed =
            Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&dir).status();
        assert!(installed.is_ok_and(|s| s.success()), "npm ci in bench/workspace failed");
    }
    let target = root.parent().unwrap().join("target");
    for driver in ["run.mjs", "files.mjs"] {
        let status = Command::new("node")
            .arg(driver)
            .current_dir(&dir)
            .env("LEGWORK_BIN", target.join("release/legwork"))
            .env("VERSITYGW", target.join("tools/versitygw"))
            .status();
        assert!(status.is_ok_and(|s| s.success()), "{driver} failed");
    }
}
