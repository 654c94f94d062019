//! `legwork token`.

use anyhow::Result;
use legwork_api::{CreateToken, ListTokens, NewToken, NoId, NoQuery, RevokeToken, TokenId};

use super::lists::{table, visible};
use crate::args::TokenCommand;
use crate::client;

pub(crate) async fn run(command: TokenCommand) -> Result<u8> {
    match command {
        TokenCommand::Create { name, role, expires, json, hub } => {
            let client = client::from_args(&hub)?;
            let new = NewToken { name, role: role.as_str().into(), expires_s: expires };
            let made = client.send::<CreateToken>(&NoId, &NoQuery {}, &new).await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&made)?);
            } else {
                println!("{}", made.token);
                eprintln!("this is shown once; keep it safe");
            }
        }
        TokenCommand::List(args) => {
            let client = client::from_args(&args.hub)?;
            let items = client.list::<ListTokens>(&NoQuery {}).await?.into_items();
            if args.json {
                println!("{}", serde_json::to_string_pretty(&items)?);
                return Ok(0);
            }
            let rows: Vec<Vec<String>> = items
                .iter()
                .map(|t| {
                    let state = match (t.revoked, t.expired) {
                        (true, _) => "revoked",
                        (false, true) => "expired",
                        (false, false) => "valid",
                    };
                    [t.id.as_str(), &t.name, t.role.as_str(), state].map(visible).to_vec()
                })
                .collect();
            table(&["ID", "NAME", "ROLE", "STATE"], &rows);
        }
        TokenCommand::Revoke { id, hub } => {
            let id = TokenId(id);
            client::from_args(&hub)?.ask::<RevokeToken>(&id).await?;
            println!("revoked {id}");
        }
    }
    Ok(0)
}
