//! `legwork up`: a hub with a local runner, in one process.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use legwork_api::{
    Client, CreateToken, ListRunners, NewToken, NoId, NoQuery, Role, RunnerFilter, RunnerStatus,
};
use legwork_dialout::Shutdown;
use legwork_dialout::config::{self, Flags, Source};
use legwork_hub::{Hub, Settings};
use tokio::sync::watch;

use super::init::{config_text, load_rules_only};
use super::serve::{open, terminated};
use crate::args::UpArgs;
use crate::client;
use crate::context::{self, Context};
use crate::{logging, reload};

/// How long the local runner may take to connect.
const CONNECT: Duration = Duration::from_secs(20);

pub(crate) async fn run(args: UpArgs) -> Result<u8> {
    logging::start("warn", config::LogFormat::Text);
    legwork_process::raise_open_files();
    let data = args.data.unwrap_or_else(context::data_dir);
    let (hub, _) = Hub::open(&data.join("hub"), Settings::default()).await?;
    let listening = legwork_hub::listen(hub.clone(), args.listen, None, None).await?;
    let url = format!("http://{}", listening.address);
    let address = listening.address;
    let stop = watch::Sender::new(false);
    let serving = tokio::spawn(listening.serve(stop.subscribe()));

    let token_file = data.join("hub/admin.token");
    let token = admin_token(&hub, &token_file, &url).await?;
    let client = client::connect(&url, token.clone(), None)?;
    let config_path = data.join("runner.yaml");
    let ws = format!("ws://{address}/runner/ws");
    let config = runner_config(&client, &config_path, &data, &ws).await?;
    let rules = config.policy.rules().len();
    let service = open(config.clone()).await?;
    let sandbox = service.runner().sandbox();
    let following = {
        let (path, data, ws, runner) = (config_path.clone(), data.clone(), ws.clone(), service.runner());
        tokio::spawn(
            async move { reload::follow(&path, runner, config, || read_config(&path, &data, &ws)).await },
        )
    };
    let how = watch::Sender::new(None);
    let runner = tokio::spawn(legwork_dialout::serve(service, how.subscribe()));
    let name = wait_online(&client).await?;
    let context_path = context::save(&Context { hub_url: url.clone(), token })?;

    println!("hub      {url}  (data in {})", data.display());
    println!("runner   {name} is connected, sandbox {sandbox}; {rules} rules in {}", config_path.display());
    println!("         (change them there: they take effect at once)");
    println!("context  {}  (so that the commands below know hub and token)", context_path.display());
    println!();
    let me = own_name();
    println!("In another terminal, type:");
    println!("  {me} exec -l os:linux -- uname -a");
    println!("  {me} exec -l os:linux -- 'ls; rm -rf x'     # refused, with the rule that refused it");
    println!("  {me} runners");
    let place = if token_file.exists() { token_file.clone() } else { context_path.clone() };
    println!("Dashboard: {url}  (token: {})", place.display());
    println!("Ctrl-C stops both.");

    terminated().await?;
    following.abort();
    println!("stopping; Ctrl-C again to stop at once");
    how.send_replace(Some(Shutdown::Drain));
    tokio::select! {
        _ = runner => {}
        _ = terminated() => return Ok(crate::exit::INTERRUPTED),
    }
    stop.send_replace(true);
    let _ = tokio::time::timeout(Duration::from_secs(3), serving).await;
    Ok(0)
}

/// A token that opens this hub: the first one, which people may have removed, else the saved
/// one, else a new one, which is saved.
async fn admin_token(hub: &Arc<Hub>, first: &Path, url: &str) -> Result<String> {
    let first = match std::fs::read_to_string(first) {
        Ok(token) => Some(token.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("failed to read {}", first.display())),
    };
    let saved = context::load().filter(|saved| saved.hub_url == url).map(|saved| saved.token);
    match [first, saved].into_iter().flatten().find(|token| hub.admits_admin(token)) {
        Some(token) => Ok(token),
        None => Ok(hub.local_admin("up").await?),
    }
}

/// The local runner's config; made, with a credential, on the first start.
async fn runner_config(client: &Client, path: &Path, data: &Path, url: &str) -> Result<config::Config> {
    if !path.exists() {
        let new = NewToken { name: "local".into(), role: Role::Runner.into(), expires_s: None };
        let made = client.send::<CreateToken>(&NoId, &NoQuery {}, &new).await?;
        let text = config_text(url, &made.token, None, Some(&data.join("workspace")), None);
        context::write_private(path, &text)?;
    }
    read_config(path, data, url)
}

fn read_config(path: &Path, data: &Path, url: &str) -> Result<config::Config> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    load_rules_only(path, &text)?;
    let source = Source { path: path.to_owned(), text, original: false };
    // Only what concerns this very runner: a hub of the environment is another one.
    let env = [("LEGWORK_STATE_DIR".to_owned(), data.join("state").to_string_lossy().into_owned())].into();
    let flags = Flags { url: Some(url.to_owned()), ..Flags::default() };
    Ok(config::load(&source, &env, &flags, &context::home())?)
}

/// What to type for this program: its name if the shell finds it, else its path.
fn own_name() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = legwork_base::programs::find("legwork", &path).is_some();
    match std::env::current_exe() {
        Ok(exe) if !found => exe.display().to_string(),
        _ => "legwork".into(),
    }
}

async fn wait_online(client: &Client) -> Result<String> {
    let start = Instant::now();
    loop {
        let runners = client.list::<ListRunners>(&RunnerFilter::default()).await?.into_inner();
        if let Some(online) = runners.items.into_iter().find(|runner| runner.status == RunnerStatus::Online) {
            return Ok(online.name);
        }
        if start.elapsed() > CONNECT {
            bail!("the local runner did not connect within {} s", CONNECT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
