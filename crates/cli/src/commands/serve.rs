//! `legwork hub` and `legwork run`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use legwork_dialout::config::{self, Config, Flags, LogFormat, Source};
use legwork_dialout::{Service, Shutdown};
use legwork_hub::{Hub, Settings, Tls};
use legwork_process::trial::Trier;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::{HubArgsOrToken, HubCommand, HubServeArgs, RunArgs};
use crate::update::{Found, Wish};
use crate::{context, logging, reload, update};

/// How often a runner looks for a newer version by itself.
const LOOK_EVERY: Duration = Duration::from_secs(6 * 3600);

/// `legwork hub` and `legwork hub token`
pub(crate) async fn hub(args: HubArgsOrToken) -> Result<u8> {
    match (args.command, args.serve) {
        (Some(HubCommand::Token { data, name }), _) => {
            let token = Hub::make_token_offline(&data, &name)
                .with_context(|| format!("no token was made in {}", data.display()))?;
            println!("{token}");
            eprintln!("this is shown once; keep it safe. A running hub takes it in within a second.");
            Ok(0)
        }
        (None, Some(args)) => serve_hub(args).await,
        (None, None) => bail!("say where the hub keeps its data: --data DIR"),
    }
}

async fn serve_hub(args: HubServeArgs) -> Result<u8> {
    let json = std::env::var("LEGWORK_LOG_FORMAT").is_ok_and(|f| f == "json");
    logging::start(&log_level(), if json { LogFormat::Json } else { LogFormat::Text });
    legwork_process::raise_open_files();
    let settings = Settings {
        grace: Duration::from_secs(args.grace),
        max_output: args.max_output,
        keep: args.keep_days.map(|days| Duration::from_secs(days.saturating_mul(86_400))),
        keep_bytes: args.keep_bytes,
        approval_wait: Duration::from_secs(args.approval_wait),
    };
    let (hub, admin) = Hub::open(&args.data, settings).await?;
    if let Some(path) = admin {
        println!("wrote the admin token to {}", path.display());
    }
    let tls = args.tls_cert.zip(args.tls_key).map(|(cert, key)| Tls { cert, key });
    let listening = legwork_hub::listen(hub, args.listen, tls.as_ref(), args.public_url).await?;
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
                () = tokio::time::sleep(Duration::from_secs(3)) => {}
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

/// Reads the config of this machine's runner.
pub(crate) fn load(file: Option<&Path>) -> Result<Config> {
    load_with(file, &Flags::default())
}

fn load_with(file: Option<&Path>, flags: &Flags) -> Result<Config> {
    let source = find_config(file)?;
    let env = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    Ok(config::load(&source, &env, flags, &context::home())?)
}

/// Why a runner ended.
enum End {
    Status(u8),
    /// To make place for a new version.
    Update(legwork_release::Staged, String),
}

/// `legwork run`
pub(crate) async fn runner(args: RunArgs) -> Result<u8> {
    // Asked for first: if we are being tried, whoever tries must not wait in vain.
    let trier = Trier::find();
    // Whether or not updates are configured: the signal must never end us.
    let asked = signal(SignalKind::user_defined1())?;
    let flags =
        Flags { token: args.token, url: args.url, workspace: args.workspace, log_level: args.log_level };
    let config = load_with(args.config.as_deref(), &flags)?;
    logging::start(&config.log_level, config.log_format);
    legwork_process::raise_open_files();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let service = open(config.clone()).await?;
    let state = service.state().to_owned();
    let connected = service.connected();
    if let Some(address) = config.health {
        crate::health::serve(address, connected.clone()).await?;
    }
    let how = watch::Sender::new(None);
    let file = find_config(args.config.as_deref())?.path;
    let reload = || load_with(args.config.as_deref(), &flags);
    let following = reload::follow(&file, service.runner(), config.clone(), reload);
    let serving = legwork_dialout::serve(service, how.subscribe());
    tokio::pin!(serving);
    let end = tokio::select! {
        () = &mut serving => return Ok(0),
        Err(error) = following => return Err(error),
        () = marked(&state, connected.clone()) => End::Status(0),
        () = tried(trier, connected.clone()) => {
            how.send_replace(Some(Shutdown::Detach));
            End::Status(0)
        }
        end = ending(&how) => end?,
        update = newer(&config, &state, connected.clone(), asked) => {
            tracing::info!(version = %update.1, "a new version is ready: running commands go on under it");
            how.send_replace(Some(Shutdown::Detach));
            End::Update(update.0, update.1)
        }
    };
    let status = match &end {
        End::Status(status) => *status,
        End::Update(..) => 0,
    };
    tokio::select! {
        () = &mut serving => {}
        // A second signal ends us at once.
        code = terminated() => return code,
    }
    match end {
        End::Status(_) => Ok(status),
        End::Update(staged, version) => Err(update::hand_over(staged, &version, &state)),
    }
}

/// Waits for a signal, and tells the service what it means.
async fn ending(how: &watch::Sender<Option<Shutdown>>) -> Result<End> {
    let mut detach = signal(SignalKind::user_defined2())?;
    tokio::select! {
        code = terminated() => {
            code?;
            how.send_replace(Some(Shutdown::Drain));
        }
        _ = detach.recv() => {
            tracing::info!("detaching: running commands go on and are adopted by the next process");
            how.send_replace(Some(Shutdown::Detach));
        }
    }
    Ok(End::Status(0))
}

/// Leaves word of the first connection, for who replaced this program from outside.
async fn marked(state: &Path, mut connected: watch::Receiver<bool>) {
    let _ = connected.wait_for(|c| *c).await.map(|_| ());
    update::mark_connected(state);
    std::future::pending().await
}

/// For a version that is being tried: reports the first connection, and returns when
/// nobody waits for it any more.
async fn tried(trier: Option<Trier>, mut connected: watch::Receiver<bool>) {
    let Some(mut trier) = trier else { return std::future::pending().await };
    tokio::select! {
        found = connected.wait_for(|c| *c) => { let _ = found.is_ok(); }
        () = trier.gone() => return,
    }
    trier.works().await;
    trier.gone().await;
}

/// Waits until a newer version lies ready to be tried: found by itself, or asked for
/// by `legwork update`.
async fn newer(
    config: &Config,
    state: &Path,
    mut connected: watch::Receiver<bool>,
    mut asked: tokio::signal::unix::Signal,
) -> (legwork_release::Staged, String) {
    let source = match &config.update {
        Some(settings) => update::fetcher(config, settings).map(|fetcher| (fetcher, settings.auto)),
        None => Err(anyhow!("this runner was started without update_url and update_public_key: restart it")),
    };
    let (fetcher, auto) = match source {
        Ok(source) => source,
        Err(error) => loop {
            asked.recv().await;
            if update::take_wish(state).is_some() {
                update::write_report(state, "failed", "", &format!("{error:#}"));
            }
        },
    };
    // Who can't reach the hub has other worries, and would be no judge of a new version.
    let _ = connected.wait_for(|c| *c).await.map(|_| ());
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Who asks waits for a report; a look by itself is nobody's business but the log's.
        let asked_for = tokio::select! {
            _ = asked.recv() => match update::take_wish(state) {
                Some(wish) => Some(wish),
                None => continue,
            },
            _ = look.tick(), if auto => None,
        };
        match find(&fetcher, asked_for.as_ref(), state).await {
            Ok(Some(found)) => return found,
            Ok(None) if asked_for.is_some() => {
                update::write_report(state, "failed", "", "the running runner found nothing newer");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("no update: {error:#}");
                if asked_for.is_some() {
                    update::write_report(state, "failed", "", &format!("{error:#}"));
                }
            }
        }
    }
}

async fn find(
    fetcher: &legwork_release::Fetcher,
    asked_for: Option<&Wish>,
    state: &Path,
) -> Result<Option<(legwork_release::Staged, String)>> {
    let wish = asked_for.cloned().unwrap_or_default();
    let Found::Other(manifest) = update::look(fetcher, &wish).await? else { return Ok(None) };
    let version = manifest.version.to_string();
    if asked_for.is_none() && update::last_report(state).refused.contains(&version) {
        tracing::debug!("{version} did not work here before: waiting for a newer one");
        return Ok(None);
    }
    tracing::info!("downloading {version}");
    let staged = update::prepare(fetcher, &wish, &manifest, state, &mut |_, _| {}).await?;
    Ok(Some((staged, version)))
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
        Some(path) => vec![(path.to_owned(), context::is_originals(path))],
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
    Ok(Source { original: context::called_as_original(), ..Source::default() })
}

/// Who can change a policy can run anything; who can read a token can be us.
pub(crate) fn check_mode(path: &Path, text: &str) -> Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o022 != 0 {
        bail!("{} can be changed by others: run chmod 0600 {}", path.display(), path.display());
    }
    let has_secret =
        text.lines().any(|l| l.trim_start().starts_with("token:") || l.trim_start().starts_with("api_key:"));
    // systemd's credentials are private by their folder.
    let is_credential = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| path.starts_with(dir));
    if has_secret && mode & 0o044 != 0 && !is_credential {
        eprintln!(
            "Warning: {} holds a secret and can be read by others: run chmod 0600 {}",
            path.display(),
            path.display()
        );
    }
    Ok(())
}
