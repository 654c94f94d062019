//! The invariants of ARCHITECTURE.md that the dependency graph shows, and texts
//! that must agree with the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Direct dependencies of each workspace crate, those for tests left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|d| d["kind"].is_null())
                .map(|d| d["name"].as_str().unwrap().to_owned())
                .collect();
            (package["name"].as_str().unwrap().to_owned(), dependencies)
        })
        .collect()
}

#[test]
fn arrows_point_downwards_only() {
    let all = dependencies();
    let network = ["axum", "hyper", "reqwest", "tokio-tungstenite", "tokio-rustls"];
    for (krate, banned) in [
        ("legwork-proto", vec!["tokio", "rustix", "legwork-runner", "legwork-policy"]),
        (
            "legwork-policy",
            vec!["tokio", "rustix", "libc", "legwork-proto", "legwork-process", "legwork-workspace"],
        ),
        ("legwork-workspace", vec!["tokio", "legwork-proto", "legwork-process", "legwork-policy"]),
        (
            "legwork-sandbox",
            vec!["tokio", "legwork-proto", "legwork-policy", "legwork-process", "legwork-workspace"],
        ),
        ("legwork-process", vec!["legwork-proto", "legwork-workspace"]),
        ("legwork-runner", vec!["legwork-proto", "legwork-dialout", "legwork-hub"]),
        ("legwork-mcp", vec!["legwork-proto", "legwork-policy", "legwork-process", "legwork-runner"]),
        ("legwork-release", vec!["legwork-proto", "legwork-policy", "legwork-process", "legwork-runner"]),
        (
            "legwork-micro",
            vec!["tokio", "libc", "legwork-policy", "legwork-process", "legwork-runner", "legwork-workspace"],
        ),
        ("legwork-remote", vec!["legwork-micro", "legwork-process", "legwork-runner", "legwork-workspace"]),
        ("legwork-dialout", vec!["legwork-hub", "axum", "reqwest"]),
        ("legwork-serve", vec!["legwork-hub", "legwork-dialout", "legwork-task", "legwork-sandbox"]),
        (
            "legwork-task",
            vec!["legwork-hub", "legwork-dialout", "legwork-serve", "legwork-sandbox", "axum", "hyper"],
        ),
        ("legwork-executor", vec!["tokio", "rustix", "libc", "legwork-process", "legwork-runner"]),
        ("legwork-terminal", vec!["rustix", "libc", "legwork-process", "legwork-runner", "legwork-socketio"]),
        (
            "legwork-socketio",
            vec![
                "legwork-serve",
                "legwork-terminal",
                "legwork-process",
                "legwork-runner",
                "legwork-workspace",
            ],
        ),
        ("legwork-yaml", vec!["tokio", "rustix", "legwork-proto"]),
        ("legwork-store", vec!["legwork-hub", "legwork-proto", "legwork-runner"]),
        ("legwork-http", vec!["legwork-hub", "legwork-serve", "legwork-proto", "legwork-runner"]),
        ("legwork-messages", vec!["legwork-task", "legwork-hub", "legwork-runner", "legwork-process"]),
        ("legwork-net", vec!["tokio", "legwork-proto", "legwork-policy"]),
        ("legwork-base", vec!["tokio", "rustix", "libc", "legwork-proto"]),
        (
            "legwork-api",
            vec!["rusqlite", "rustix", "legwork-proto", "legwork-hub", "legwork-runner", "legwork-process"],
        ),
        (
            "legwork-hub",
            vec![
                // What it keeps is the store's.
                "rusqlite",
                "legwork-dialout",
                "legwork-task",
                "legwork-runner",
                "legwork-process",
                "legwork-policy",
            ],
        ),
    ] {
        let has = &all[krate];
        for name in banned {
            assert!(!has.contains(name), "{krate} must not depend on {name}");
        }
        // These ask others over HTTP, and serve nobody.
        let asks = matches!(
            krate,
            "legwork-api"
                | "legwork-runner"
                | "legwork-mcp"
                | "legwork-messages"
                | "legwork-net"
                | "legwork-release"
                | "legwork-task"
        );
        if !matches!(
            krate,
            "legwork-dialout" | "legwork-http" | "legwork-hub" | "legwork-serve" | "legwork-socketio"
        ) {
            for name in network.into_iter().filter(|name| !(asks && *name == "reqwest")) {
                assert!(!has.contains(name), "{krate} must not depend on {name}");
            }
        }
    }
    for (krate, has) in &all {
        assert!(
            !has.contains("legwork-e2e") || krate == "legwork-bench",
            "{krate} depends on the tests' harness"
        );
    }
}

fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(workspace()).unwrap().display().to_string();
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn unsafe_is_in_one_file_and_every_file_is_of_a_readable_length() {
    let mut found = Vec::new();
    sources(&workspace().join("crates"), &mut found);
    assert!(found.len() > 50);
    for (name, text) in found {
        let has_unsafe = text.lines().any(|l| l.contains("unsafe {") || l.contains("unsafe fn"));
        assert_eq!(has_unsafe, name == "crates/process/src/sys.rs", "{name}");
        assert!(text.lines().count() <= 700 || name.contains("/tests/"), "{name} is longer than 700 lines");
    }
}

#[test]
fn the_documents_name_what_there_is() {
    let read = |name: &str| std::fs::read_to_string(workspace().join(name)).unwrap();
    let hub = read("docs/hub.md");
    for state in [
        "queued",
        "delivered",
        "accepted",
        "running",
        "succeeded",
        "failed",
        "denied",
        "cancelled",
        "timed_out",
        "expired",
        "lost",
    ] {
        assert!(hub.contains(&format!("`{state}`")), "docs/hub.md does not name {state}");
    }
    let dialout = read("docs/dialout.md");
    let config = read("crates/dialout/src/config.rs");
    for key in
        ["max_tasks", "max_read_bytes", "token_in", "stream_output", "state_dir", "workspace_root", "sandbox"]
    {
        assert!(config.contains(key) && dialout.contains(&format!("`{key}`")), "{key}");
    }
    let workspace_page = read("docs/workspace.md");
    let settings = read("crates/serve/src/settings.rs");
    for part in settings.split("vars.").flat_map(|part| part.split("self.")).skip(1) {
        let name = part.split('"').nth(1).unwrap_or_default();
        let is_name =
            name.len() > 3 && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit());
        assert!(!is_name || workspace_page.contains(name), "docs/workspace.md does not name {name}");
    }
    let task_page = read("docs/task.md");
    for part in read("crates/task/src/settings.rs").split("env.").skip(1) {
        let name = part.split('"').nth(1).unwrap_or_default();
        let is_name = name.len() > 3 && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        assert!(!is_name || task_page.contains(name), "docs/task.md does not name {name}");
    }
    for text in [
        read("README.md"),
        read("ARCHITECTURE.md"),
        read("docs/api.md"),
        hub,
        dialout,
        workspace_page,
        task_page,
    ] {
        for target in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            let path = target.split('#').next().unwrap();
            let known = ["", "docs/", "./"].iter().any(|base| workspace().join(base).join(path).exists());
            assert!(known || path.starts_with("http"), "a link leads nowhere: {target}");
        }
    }
}
