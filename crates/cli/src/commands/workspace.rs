//! `legwork serve`: the workspace server.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;
use legwork_dialout::config::LogFormat;
use legwork_serve::{Server, Settings};
use tokio::sync::watch;

use crate::args::ServeArgs;
use crate::{exit, logging};

pub(crate) async fn run(args: ServeArgs) -> Result<u8> {
    let json = std::env::var("LEGWORK_LOG_FORMAT").is_ok_and(|f| f == "json");
    let level = std::env::var("LEGWORK_LOG_LEVEL").ok().filter(|l| !l.is_empty());
    logging::start(level.as_deref().unwrap_or("info"), if json { LogFormat::Json } else { LogFormat::Text });
    legwork_process::raise_open_files();
    // The shells are the same user's as we are.
    legwork_process::hide_from_commands();
    let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    // What is said on the command line wins.
    let said = [
        ("WORKSPACE", args.workspace.map(|path| std::path::absolute(&path).unwrap_or(path).into_os_string())),
        ("HOST", args.host.map(OsString::from)),
        ("PORT", args.port.map(|port| port.to_string().into())),
        ("USER_PORT", args.user_port.map(|port| port.to_string().into())),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            environment.retain(|(n, _)| n != name);
            environment.push((name.into(), value));
        }
    }
    let settings = match Settings::read(environment, &std::env::current_dir()?, super::task::policy) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("Error: {error}");
            return Ok(exit::SETTING);
        }
    };
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let workspace = settings.workspace.clone();
    // The link, not its target: it stays good when the program is replaced.
    let server = Server::start(settings, Path::new("/proc/self/exe")).await?;
    println!("serving {workspace} on http://{}", server.address);
    let stop = watch::Sender::new(false);
    let serving = server.serve(stop.subscribe());
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => { served?; return Ok(0); }
        code = super::serve::terminated() => { code?; }
    }
    stop.send_replace(true);
    tokio::select! {
        served = &mut serving => { served?; Ok(0) }
        // The second signal ends us at once.
        code = super::serve::terminated() => code,
    }
}
