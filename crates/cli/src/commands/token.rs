//! `legwork token`.

use anyhow::Result;
use serde_json::json;

use super::lists::{table, visible};
use crate::args::TokenCommand;
use crate::client::Client;

pub(crate) async fn run(command: TokenCommand) -> Result<u8> {
    match command {
        TokenCommand::Create { name, role, expires, json, hub } => {
            let client = Client::from_args(&hub)?;
            let mut body = json!({ "name": name, "role": role });
            if let Some(expires) = expires {
                body["expires_s"] = expires.into();
            }
            let answer = client.post("/tokens", &body).await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&answer)?);
            } else {
                println!("{}", answer["token"].as_str().unwrap_or_default());
                eprintln!("this is shown once; keep it safe");
            }
        }
        TokenCommand::List(args) => {
            let client = Client::from_args(&args.hub)?;
            let page = client.get("/tokens").await?;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            if args.json {
                println!("{}", serde_json::to_string_pretty(&items)?);
                return Ok(0);
            }
            let text = |v: &serde_json::Value| visible(v.as_str().unwrap_or_default());
            let rows: Vec<Vec<String>> = items
                .iter()
                .map(|t| {
                    let state = match (t["revoked"] == true, t["expired"] == true) {
                        (true, _) => "revoked",
                        (false, true) => "expired",
                        (false, false) => "valid",
                    };
                    vec![text(&t["id"]), text(&t["name"]), text(&t["role"]), state.into()]
                })
                .collect();
            table(&["ID", "NAME", "ROLE", "STATE"], &rows);
        }
        TokenCommand::Revoke { id, hub } => {
            Client::from_args(&hub)?.delete(&format!("/tokens/{id}")).await?;
            println!("revoked {id}");
        }
    }
    Ok(0)
}
