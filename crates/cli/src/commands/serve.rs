//! `legwork hub` and `legwork run`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use legwork_dialout::config::{self, Config, Flags, LogFormat, Source};
use legwork_dialout::{Service, Shutdown};
use legwork_hub::{Hub, Tls};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::{HubServeArgs, RunArgs};
use crate::{context, logging};

/// `legwork hub`
pub(crate) async fn hub(args: HubServeArgs) -> Result<u8> {
    let json = std::env::var("LEGWORK_LOG_FORMAT").is_ok_and(|f| f == "json");
    logging::start(&log_level(), if json { LogFormat::Json } else { LogFormat::Text });
    legwork_process::raise_open_files();
    let (hub, admin) = Hub::open(&args.data).await?;
    if let Some(path) = admin {
        println!("wrote the admin token to {}", path.display());
    }
    let tls = args.tls_cert.zip(args.tls_key).map(|(cert, key)| Tls { cert, key });
    let listening = legwork_hub::listen(hub, args.listen, tls.as_ref()).await?;
    let scheme = if listening.tls { "https" } else { "http" };
    println!("hub listening on {scheme}://{}", listening.address);
    let stop = watch::Sender::new(false);
    let serving = listening.serve(stop.subscribe());
    tokio::select! {
        () = serving => Ok(0),
        code = async {
            let code = terminated().await;
            stop.send_replace(true);
            // The second signal ends us at once.
            tokio::select! {
                _ = terminated() => {}
                () = tokio::time::sleep(std::time::Duration::from_secs(3)) => {}
            }
            code
        } => Ok(if code.is_ok() { 0 } else { crate::exit::ERROR }),
    }
}

fn log_level() -> String {
    std::env::var("LEGWORK_LOG_LEVEL").ok().filter(|l| !l.is_empty()).unwrap_or_else(|| "info".into())
}

/// Waits for SIGINT or SIGTERM; returns the status that stands for it.
pub(crate) async fn terminated() -> Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => { result?; Ok(130) }
        _ = terminate.recv() => Ok(143),
    }
}

/// `legwork run`
pub(crate) async fn runner(args: RunArgs) -> Result<u8> {
    let source = find_config(args.config.as_deref())?;
    let flags =
        Flags { token: args.token, url: args.url, workspace: args.workspace, log_level: args.log_level };
    let env = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    let config = config::load(&source, &env, &flags, &context::home())?;
    logging::start(&config.log_level, config.log_format);
    legwork_process::raise_open_files();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!("sandbox: off (no walls around commands but the policy)");
    let service = open(config).await?;
    let how = watch::Sender::new(None);
    let serving = legwork_dialout::serve(service, how.subscribe());
    tokio::pin!(serving);
    let mut detach = signal(SignalKind::user_defined2())?;
    tokio::select! {
        () = &mut serving => return Ok(0),
        code = terminated() => {
            code?;
            how.send_replace(Some(Shutdown::Drain));
        }
        _ = detach.recv() => {
            tracing::info!("detaching: running commands go on and are adopted by the next process");
            how.send_replace(Some(Shutdown::Detach));
        }
    }
    tokio::select! {
        () = &mut serving => Ok(0),
        // A second signal ends us at once.
        code = terminated() => code,
    }
}

/// Opens a runner that uses this very program as its helper.
pub(crate) async fn open(config: Config) -> Result<Service> {
    // The link, not its target: it stays good when the program is replaced.
    let program = Path::new("/proc/self/exe");
    Service::open(config, program, std::env::vars_os()).await.map_err(|e| anyhow!(e))
}

/// Reads the config file; the default ones may be absent.
fn find_config(given: Option<&Path>) -> Result<Source> {
    let home = context::home();
    let candidates: Vec<(PathBuf, bool)> = match given {
        Some(path) => vec![(path.to_owned(), path.to_string_lossy().contains(".flashduty-runner"))],
        None => vec![
            (home.join(".legwork/config.yaml"), false),
            (home.join(".flashduty-runner/config.yaml"), true),
        ],
    };
    for (path, original) in candidates {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                check_mode(&path, &text)?;
                return Ok(Source { path, text, original });
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && given.is_none() => {}
            Err(e) => {
                return Err(anyhow!(e)).with_context(|| {
                    format!("failed to load config: failed to read config file: {}", path.display())
                });
            }
        }
    }
    Ok(Source::default())
}

/// Who can change a policy can run anything; who can read a token can be us.
fn check_mode(path: &Path, text: &str) -> Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o022 != 0 {
        bail!("{} can be changed by others: run chmod 0600 {}", path.display(), path.display());
    }
    let has_secret =
        text.lines().any(|l| l.trim_start().starts_with("token:") || l.trim_start().starts_with("api_key:"));
    if has_secret && mode & 0o044 != 0 {
        eprintln!(
            "Warning: {} holds a secret and can be read by others: run chmod 0600 {}",
            path.display(),
            path.display()
        );
    }
    Ok(())
}
