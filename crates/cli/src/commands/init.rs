//! `legwork init`: enrol this machine and write its config.

use std::io::{BufRead, IsTerminal, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use legwork_api::{ClientError, Enrolment, NoId, NoQuery};
use legwork_dialout::config::{Source, rules_of};

use crate::args::InitArgs;
use crate::client;
use crate::context;

/// What a new runner may do: look. Everything else is for the operator to add.
const READING: &[&str] = &[
    "uname *", "hostname", "uptime *", "date", "whoami", "id *", "pwd", "ls *", "cat *", "head *", "tail *",
    "wc *", "stat *", "du *", "df *", "free *", "ps *", "grep *", "true", "false", "echo *",
];

pub(crate) async fn run(args: InitArgs) -> Result<u8> {
    let path = args.config.unwrap_or_else(|| context::home().join(".legwork/config.yaml"));
    if path.exists() {
        bail!("{} exists already; move it away first, or give --config", path.display());
    }
    let enrolment = match args.enroll_token_file {
        Some(file) => {
            std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?
        }
        None => match std::env::var("LEGWORK_ENROLL_TOKEN") {
            Ok(token) => token,
            Err(_) => {
                if std::io::stdin().is_terminal() {
                    eprint!("one-time enrolment token: ");
                }
                let mut text = String::new();
                std::io::stdin().lock().take(1024).read_line(&mut text)?;
                text
            }
        },
    };
    let ca_file = context::ca_file(args.ca_file);
    // The runner reads it from another folder.
    let ca_file = match ca_file {
        Some(path) => {
            Some(std::path::absolute(&path).with_context(|| format!("no such path: {}", path.display()))?)
        }
        None => None,
    };
    let client = client::connect(&args.hub_url, enrolment.trim().to_owned(), ca_file.as_deref())?;
    let enrol = async |name: Option<String>| {
        client.send::<legwork_api::Enroll>(&NoId, &NoQuery {}, &Enrolment { name }).await
    };
    let answer = match enrol(args.name.clone()).await {
        // A hub of an earlier version wants to be told.
        Err(ClientError::Refused(problem))
            if args.name.is_none() && problem.detail.contains("missing field `name`") =>
        {
            enrol(Some(legwork_runner::Machine::detect().hostname)).await?
        }
        answered => answered?,
    };
    // The hub's word: what the enrolment token is called, unless we said otherwise.
    let (name, token) = (answer.name.clone(), answer.token.as_str());
    let url = format!("{}/runner/ws", args.hub_url.trim_end_matches('/').replacen("http", "ws", 1));
    // A config of the whole machine is that of a service (`legwork install-service`).
    let is_service = path.starts_with("/etc");
    let workspace = is_service.then(|| Path::new("/var/lib/legwork/workspace"));
    let mut text = config_text(&url, token, Some(&name), workspace, ca_file.as_deref());
    if is_service {
        text.push_str("\nstate_dir: /var/lib/legwork/state\n");
    }
    context::write_private(&path, &text)?;
    println!("enrolled as {name}; wrote {}", path.display());
    println!("next: legwork run");
    Ok(0)
}

/// A config whose ordered rules allow reading and nothing else.
pub(crate) fn config_text(
    url: &str,
    token: &str,
    name: Option<&str>,
    workspace: Option<&Path>,
    ca_file: Option<&Path>,
) -> String {
    // JSON strings are YAML strings.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = format!(
        "# A Legwork runner. docs/dialout.md describes each key.\napi_url: {}\ntoken: {}\n",
        quoted(url),
        quoted(token)
    );
    if let Some(name) = name {
        text.push_str(&format!("name: {}\n", quoted(name)));
    }
    if let Some(workspace) = workspace {
        text.push_str(&format!("workspace_root: {}\n", quoted(&workspace.to_string_lossy())));
    }
    if let Some(ca_file) = ca_file {
        text.push_str(&format!("tls:\n  ca_file: {}\n", quoted(&ca_file.to_string_lossy())));
    }
    // The wall that needs no rights and no preparation, if this kernel has it.
    let path = std::env::var("PATH").unwrap_or_default();
    text.push_str(&match legwork_process::sandbox::probe(&path).landlock_lacks() {
        None => {
            "\n# The wall around what runs (docs/security.md): off, landlock, namespaces, gvisor or auto.\n\
                 # credentials: rules lets the programs that rules name read what they sign in with\n\
                 # (kubectl ~/.kube/config, aws ~/.aws, git ~/.gitconfig, …; legwork policy tables lists all).\n\
                 sandbox:\n  profile: landlock\n  credentials: rules\n"
                .to_owned()
        }
        Some(reason) => format!(
            "\n# No wall around what runs: {reason}.\n# docs/security.md names the others.\nsandbox: off\n"
        ),
    });
    text.push_str(
        "\n# What may run. The last rule that matches a command decides; docs/policy.md says how.\n\
         permission:\n  bash:\n    \"*\": deny\n",
    );
    for pattern in READING {
        text.push_str(&format!("    {}: allow\n", quoted(pattern)));
    }
    text
}

/// Fails with a place and a reason if the rules can't be read.
pub(crate) fn load_rules_only(path: &Path, text: &str) -> Result<()> {
    rules_of(&Source { path: path.to_owned(), text: text.to_owned(), original: false })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_config_allows_reading_and_nothing_else() {
        let text = config_text("ws://h/runner/ws", "secret", Some("a: \"b\""), None, None);
        let policy = rules_of(&Source { path: "c".into(), text, original: false }).expect("valid").bash;
        for (line, allowed) in [
            ("uname -a", true),
            ("cat /etc/hostname | wc -l", true),
            ("ls; rm -rf x", false),
            ("echo x > y", false),
            ("curl http://x", false),
        ] {
            assert_eq!(policy.judge(line).message().is_none(), allowed, "{line}");
        }
        assert!(policy.notes().is_empty());
    }
}
