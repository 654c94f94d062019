//! `legwork config`

use anyhow::Result;
use serde_json::json;

use crate::args::ConfigCommand;
use crate::exit;

pub(crate) fn run(command: ConfigCommand) -> Result<u8> {
    let (args, show) = match command {
        ConfigCommand::Check(args) => (args, false),
        ConfigCommand::Show(args) => (args, true),
    };
    let config = match super::serve::load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            if args.json {
                println!("{}", json!({ "ok": false, "error": error.to_string() }));
            } else {
                eprintln!("Error: {error:#}");
            }
            return Ok(exit::CONFIG);
        }
    };
    if args.json {
        let mut answer = json!({ "ok": true, "warnings": config.warnings });
        if show {
            answer["settings"] = serde_json::to_value(&config.settings)?;
        }
        println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(0);
    }
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    if show {
        let width = |of: fn(&legwork_dialout::config::Setting) -> &str| {
            config.settings.iter().map(|s| of(s).chars().count()).max().unwrap_or(0).min(60)
        };
        let (keys, values) = (width(|s| &s.key), width(|s| &s.value));
        for setting in &config.settings {
            println!("{:keys$}  {:values$}  {}", setting.key, setting.value, setting.source);
        }
    } else {
        println!("ok: {} rules, {} warnings", config.policy.rules().len(), config.warnings.len());
    }
    Ok(0)
}
