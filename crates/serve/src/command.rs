//! Programs that the server runs to answer a request.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use legwork_process::sandbox::Profile;
use legwork_process::{Cursor, Progress, Size, Stream};

use crate::room::Room;
use crate::terminal::Launch;

/// What to run, in the workspace's root.
pub(crate) struct Command {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) sandbox: Profile,
    pub(crate) timeout: Duration,
    /// Most bytes that it may say.
    pub(crate) most: usize,
}

/// Runs a command to its end; returns what it has printed, or why it failed.
pub(crate) async fn output(room: &Arc<Room>, command: Command) -> Result<Vec<u8>, String> {
    let launch = Launch {
        argv: command.argv,
        cwd: String::new(),
        env: command.env,
        size: Size { cols: 80, rows: 24 },
        timeout: Some(command.timeout),
        sandbox: command.sandbox,
    };
    let running = room.terminals.shells.run(&launch)?;
    while !matches!(running.progress().await, Progress::Ended) {}
    let file = running.path().to_owned();
    tokio::task::spawn_blocking(move || {
        let result = read(&file, command.most);
        let _ = std::fs::remove_file(&file);
        result
    })
    .await
    .map_err(|e| e.to_string())?
}

fn read(file: &Path, most: usize) -> Result<Vec<u8>, String> {
    let status = legwork_process::status(file).map_err(|e| e.to_string())?;
    let mut cursor = Cursor::open(file, 0, 0).map_err(|e| e.to_string())?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = cursor.next(64 * 1024).map_err(|e| e.to_string())? {
        let into = if chunk.stream == Stream::Stdout { &mut out } else { &mut err };
        into.extend(chunk.data);
        if out.len() + err.len() > most {
            return Err("it says too much".into());
        }
    }
    if status.exit_code != Some(0) {
        let said = String::from_utf8_lossy(&err);
        let last = said.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no reason given");
        return Err(format!("it failed: {}", last.chars().take(300).collect::<String>()));
    }
    Ok(out)
}
