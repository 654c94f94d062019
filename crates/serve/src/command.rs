//! Programs that the server runs to answer a request.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use legwork_process::sandbox::Profile;
use legwork_process::{Cursor, Status, Stream};
use legwork_runner::{Command, What};

use crate::room::Room;
use crate::terminal::Launch;

/// A program to run in the workspace's root.
pub(crate) struct Tool {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) sandbox: Profile,
    pub(crate) timeout: Duration,
    /// Most bytes that it may say.
    pub(crate) most: usize,
}

/// Runs a program to its end; returns what it has printed, or why it failed.
pub(crate) async fn output(room: &Arc<Room>, tool: Tool) -> Result<Vec<u8>, String> {
    let most = tool.most;
    let command = Command {
        what: What::Program(tool.argv),
        env: tool.env,
        timeout: Some(tool.timeout),
        walls: Some(tool.sandbox),
        ..Command::default()
    };
    let launch = Launch::own("", command);
    let shells = &room.terminals.shells;
    let running = shells.run(&launch).await?;
    shells.ended(&running).await;
    let file = running.path().to_owned();
    let finished = shells.finish(&launch, &file).await;
    tokio::task::spawn_blocking(move || {
        let result = finished.and_then(|status| read(&file, &status, most));
        let _ = std::fs::remove_file(&file);
        result
    })
    .await
    .map_err(|e| e.to_string())?
}

fn read(file: &Path, status: &Status, most: usize) -> Result<Vec<u8>, String> {
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
