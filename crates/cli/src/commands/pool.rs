//! `legwork pool`: task runners kept ready on this machine, each for one task, behind walls
//! and in a workspace of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use legwork_process::sandbox::Profile;
use legwork_process::{Limits, Progress, Spawner};
use legwork_runner::{
    Audit, Command, Config, Destinations, Egress, Keep, MCP_CLIENT, Requester, Rules, Runner, Walled, Wanted,
    What, choose,
};
use legwork_task::PROVIDER_SECRETS;
use legwork_workspace::Root;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::pods::register_url;
use crate::args::task::{PoolArgs, PoolSandbox};
use crate::context;

/// Between the word that a task is to end and its end: it still delivers for 20 s.
const GRACE: Duration = Duration::from_secs(25);
/// After a process that failed.
const PAUSE: Duration = Duration::from_secs(5);
/// Given to the process by its stdin: its environment is kept in a file.
const SECRETS: &[&str] = &["AGENT_TOKEN", "INTERNAL_TOKEN", "REGISTER_URL"];
/// Of the person who starts the pool, and none of the tasks' business.
const OWN: &[&str] =
    &["LEGWORK_TOKEN", "LEGWORK_HUB_URL", "LEGWORK_STATE_DIR", "WORKSPACE", "POD_NAME", "MODE", "HOME"];

struct Pool {
    folder: PathBuf,
    env: BTreeMap<String, String>,
    secrets: String,
    profile: PoolSandbox,
    destinations: Arc<Destinations>,
    spawner: Arc<Spawner>,
}

pub(crate) async fn run(args: PoolArgs) -> Result<u8> {
    crate::logging::start_quietly();
    legwork_process::hide_from_commands();
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let url = match args.register_url.clone().or_else(|| set("REGISTER_URL")) {
        Some(url) => url,
        None => register_url(&crate::client::from_args(&args.hub)?).await?,
    };
    let name = match args.name.clone() {
        Some(name) => name,
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
        bail!("--name: '{}' is not made of letters, digits, -, _ and . alone", super::lists::visible(&name));
    }
    let folder = args.data.clone().unwrap_or_else(|| context::state_dir().join("pool")).join(&name);
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    if args.sandbox == PoolSandbox::Gvisor {
        for (what, path) in [("--data", folder.canonicalize()?), ("this program", std::env::current_exe()?)] {
            seen_in_gvisor(what, &path)?;
        }
    }
    let _lock = legwork_base::lock::Lock::take(&folder)?
        .ok_or_else(|| anyhow!("another pool is using {}", folder.display()))?;
    let all_secrets = || SECRETS.iter().chain(PROVIDER_SECRETS);
    let mut secrets: BTreeMap<String, String> =
        all_secrets().filter_map(|name| Some(((*name).to_owned(), set(name)?))).collect();
    secrets.insert("REGISTER_URL".into(), url.clone());
    // Its file is none that a runner behind a wall could read.
    if let Some(path) = set("GOOGLE_APPLICATION_CREDENTIALS") {
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        secrets.entry("LEGWORK_GOOGLE_CREDENTIALS".into()).or_insert(text);
    }
    // Not all of this machine's environment: there are keys in it that are nobody's business.
    let mut env = legwork_task::Environment::new(std::env::vars_os()).for_runner();
    env.retain(|name, _| !all_secrets().any(|secret| secret == name) && !OWN.contains(&name.as_str()));
    let mut reached =
        legwork_task::Environment::new(std::env::vars_os()).reached().map_err(|e| anyhow!(e))?;
    reached.push(url.clone());
    let reached: Vec<&str> = reached.iter().map(String::as_str).collect();
    let destinations = destinations(&reached, set("LEGWORK_EGRESS").as_deref())?;
    let spawner = Spawner::start(Path::new("/proc/self/exe")).context("failed to start supervisors")?;
    let pool = Arc::new(Pool {
        folder,
        env,
        secrets: serde_json::to_string(&secrets)?,
        profile: args.sandbox,
        destinations: Arc::new(destinations),
        spawner: Arc::new(spawner),
    });
    let stop = watch::Sender::new(false);
    let mut slots = JoinSet::new();
    for slot in 1..=args.size {
        let (pool, name, stop) = (pool.clone(), format!("{name}-{slot}"), stop.subscribe());
        slots.spawn(async move { pool.keep(&name, stop).await });
    }
    eprintln!("legwork: {} task runners are kept ready; Ctrl-C ends them", args.size);
    let code = tokio::select! {
        Some(ended) = slots.join_next() => {
            // Only what can't be mended ends a slot.
            ended??;
            0
        }
        code = super::serve::terminated() => code?,
    };
    eprintln!("legwork: ending; a second signal does not wait for tasks");
    stop.send_replace(true);
    tokio::select! {
        () = async { while slots.join_next().await.is_some() {} } => Ok(code),
        code = super::serve::terminated() => code,
    }
}

/// Refuses what a sandbox with a kernel of its own would not see.
fn seen_in_gvisor(what: &str, path: &Path) -> Result<()> {
    const OWN: &[&str] = &["/tmp", "/dev", "/proc", "/sys"];
    match OWN.iter().find(|own| path.starts_with(own)) {
        Some(own) => bail!(
            "{what} lies beneath {own} ({}), which a sandbox of gVisor has for itself: put it somewhere else",
            path.display()
        ),
        None => Ok(()),
    }
}

/// Hub and model, and what the operator adds.
fn destinations(urls: &[&str], more: Option<&str>) -> Result<Destinations> {
    let mut entries = Vec::new();
    for url in urls {
        let url = reqwest::Url::parse(url)
            .with_context(|| format!("no address: {}", url.split('?').next().unwrap_or_default()))?;
        let host = url.host_str().context("an address without a host")?;
        let port = url.port_or_known_default().context("an address without a port")?;
        entries.push(format!("{host}:{port}"));
        if host == "localhost" {
            entries.push(format!("127.0.0.1:{port}"));
        }
    }
    entries.extend(
        more.unwrap_or_default().split(',').map(str::trim).filter(|e| !e.is_empty()).map(str::to_owned),
    );
    Destinations::parse(&entries).map_err(|e| anyhow!("LEGWORK_EGRESS: {e}"))
}

impl Pool {
    /// Keeps one process ready until it is told to stop.
    async fn keep(&self, name: &str, mut stop: watch::Receiver<bool>) -> Result<()> {
        while !*stop.borrow() {
            let good = self.one(name, &mut stop).await?;
            if !good && !*stop.borrow() {
                eprintln!("legwork: {name} failed, see above; the next one starts in {} s", PAUSE.as_secs());
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    _ = stop.wait_for(|s| *s) => {}
                }
            }
        }
        Ok(())
    }

    /// One process, from a fresh folder to the end of its task; whether it ended well.
    async fn one(&self, name: &str, stop: &mut watch::Receiver<bool>) -> Result<bool> {
        let slot = self.folder.join(name);
        match std::fs::remove_dir_all(&slot) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to clear {}", slot.display()));
            }
            _ => {}
        }
        for part in ["workspace", "state", "home", "run"] {
            std::fs::create_dir_all(slot.join(part))?;
        }
        let runner = Arc::new(self.runner(&slot).await?);
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        let path = |part: &str| slot.join(part).to_string_lossy().into_owned();
        let env = [
            ("MODE", "standby".to_owned()),
            ("POD_NAME", name.to_owned()),
            ("POD_IP", "127.0.0.1".to_owned()),
            ("WORKSPACE", path("workspace")),
            ("HOME", path("home")),
            ("LEGWORK_STATE_DIR", path("state")),
            ("LEGWORK_TASKS", "1".to_owned()),
            ("LEGWORK_SECRETS", "stdin".to_owned()),
        ];
        let command = Command {
            what: What::Program(vec![program, "task".into()]),
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            workdir: ".".into(),
            subject: format!("task runner {name}"),
            ..Command::default()
        };
        let requester = Requester { door: "pool", who: String::new(), task_id: name.to_owned() };
        // The name is that of the control group as well.
        let file = slot.join("run").join(format!("{name}-{}", std::process::id()));
        let mut piped = runner.start_piped(&command, &requester, &file).await?;
        piped.stdin.write_all(format!("{}\n", self.secrets).as_bytes()).await?;
        let lines = tokio::spawn(async move {
            let mut lines = BufReader::new(piped.stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                println!("{line}");
            }
        });
        let mut told = false;
        loop {
            tokio::select! {
                progress = piped.running.progress() => match progress {
                    Progress::Output(_) => {}
                    Progress::Door(listener, _) => runner.serve_door(&file, listener),
                    Progress::Ended => break,
                },
                _ = stop.wait_for(|s| *s), if !told => {
                    told = true;
                    piped.running.cancel();
                }
            }
        }
        let _ = lines.await;
        let ended = runner.finish(&command, &requester, &file).await;
        let _ = std::fs::remove_dir_all(&slot);
        match ended {
            Ok(status) => Ok(status.exit_code == Some(0)),
            Err(failure) => {
                eprintln!("legwork: {name}: {failure}");
                Ok(false)
            }
        }
    }

    async fn runner(&self, slot: &Path) -> Result<Runner> {
        let workspace = Root::open(&slot.join("workspace"))?;
        let run = slot.join("run");
        let walled = self.walls(slot, workspace.path(), &run).await?;
        for note in &walled.notes {
            tracing::warn!("{note}");
        }
        let keep = Keep { bytes: 64 << 20, age: Duration::from_secs(90 * 24 * 3600) };
        let runner = Runner::new(Config {
            root: workspace,
            rules: Rules { destinations: self.destinations.clone(), ..Rules::default() },
            walled,
            tmp_dir: run.join("tmp"),
            egress: Egress::default(),
            mcp_dir: run.join("mcp"),
            mcp_client: MCP_CLIENT,
            env: self.env.clone(),
            spawner: self.spawner.clone(),
            audit: Audit::open(&self.folder.join("audit.jsonl"), keep)?,
            max_tasks: 1,
            max_read_bytes: 0,
            limits: Limits { grace: GRACE, ..Limits::default() },
        })?;
        Ok(runner)
    }

    async fn walls(&self, slot: &Path, workspace: &Path, run: &Path) -> Result<Walled> {
        let exe = std::env::current_exe()?;
        let wanted = |profile| Wanted {
            profile: Some(profile),
            read: vec![exe.clone()],
            write: vec![slot.join("workspace"), slot.join("state"), slot.join("home")],
            // The runner within speaks to its own supervisors.
            unix_sockets: true,
            ..Wanted::default()
        };
        let dir = run.join("trial");
        let try_one =
            async |profile| choose(&wanted(profile), &self.spawner, &self.env, workspace, &dir).await;
        let chosen = match self.profile {
            PoolSandbox::Off => try_one(Profile::Off).await,
            PoolSandbox::Landlock => try_one(Profile::Landlock).await,
            PoolSandbox::Gvisor => try_one(Profile::Gvisor).await,
            PoolSandbox::Auto => match try_one(Profile::Landlock).await {
                Ok(walled) => Ok(walled),
                Err(reason) => {
                    eprintln!("legwork: {reason}: task runners have no walls of the pool");
                    Ok(Walled::default())
                }
            },
        };
        match chosen {
            Ok(walled) => Ok(walled),
            Err(reason) => bail!("{reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_beneath_tmp_is_refused_before_it_waits_for_a_minute() {
        let refused = seen_in_gvisor("--data", Path::new("/tmp/clone/target/tmp/x"));
        assert!(refused.is_err_and(|e| e.to_string().contains("--data lies beneath /tmp")));
        assert!(seen_in_gvisor("--data", Path::new("/var/lib/x")).is_ok());
        assert!(seen_in_gvisor("--data", Path::new("/tmpfiles/x")).is_ok());
    }
}
