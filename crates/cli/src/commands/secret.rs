//! `legwork secret`.

use std::io::{IsTerminal, Read};

use anyhow::{Context as _, Result, bail};
use legwork_api::{ListSecrets, NewSecret, NoId, NoQuery, RemoveSecret, SecretName, SetSecret};

use super::lists::{table, visible};
use crate::args::task::SecretCommand;
use crate::client;

/// The largest secret that a hub takes, and one byte more.
const MOST: u64 = 32 * 1024 + 1;

pub(crate) async fn run(command: SecretCommand) -> Result<u8> {
    match command {
        SecretCommand::Set { name, file, token, task, runner, hub } => {
            let value = value(file.as_deref())?;
            let new = NewSecret { name, value, tokens: token, tasks: task, runners: runner };
            let set = client::from_args(&hub)?.send::<SetSecret>(&NoId, &NoQuery {}, &new).await?;
            eprintln!("legwork: the secret {} is set", visible(&set.name));
        }
        SecretCommand::Ls(args) => {
            let listed = client::from_args(&args.hub)?.list::<ListSecrets>(&NoQuery {}).await?;
            for file in &listed.damaged {
                eprintln!(
                    "legwork: the hub can't read its file secrets/{}: set again the secret that is missing here, or bring the file back",
                    visible(file)
                );
            }
            if args.json {
                println!("{}", serde_json::to_string_pretty(&listed.items)?);
                return Ok(0);
            }
            let all = |list: &[String]| if list.is_empty() { "all".to_owned() } else { list.join(", ") };
            let rows: Vec<Vec<String>> = listed
                .items
                .iter()
                .map(|s| {
                    let (tokens, tasks, runners) = (all(&s.tokens), all(&s.tasks), all(&s.runners));
                    [s.name.as_str(), &tokens, &tasks, &runners, &s.set_by].map(visible).to_vec()
                })
                .collect();
            table(&["NAME", "TOKENS", "TASKS", "RUNNERS", "SET BY"], &rows);
        }
        SecretCommand::Rm { name, hub } => {
            client::from_args(&hub)?.ask::<RemoveSecret>(&SecretName(name.clone())).await?;
            println!("removed {}", visible(&name));
        }
    }
    Ok(0)
}

/// The secret, which stands in no command line: that anybody on the machine can read.
fn value(file: Option<&std::path::Path>) -> Result<String> {
    let mut text = String::new();
    match file {
        Some(path) => {
            let file =
                std::fs::File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
            file.take(MOST)
                .read_to_string(&mut text)
                .with_context(|| format!("failed to read {}", path.display()))?;
        }
        None => {
            if std::io::stdin().is_terminal() {
                eprintln!(
                    "legwork: type the secret, and end with Ctrl-D (it is shown as you type; or use < FILE)"
                );
            }
            std::io::stdin().take(MOST).read_to_string(&mut text)?;
            // What `echo` and a terminal add is not meant.
            if text.ends_with('\n') && text.matches('\n').count() == 1 {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
            }
        }
    }
    if text.is_empty() {
        bail!("the secret is empty");
    }
    Ok(text)
}
