//! The user's application, if `START_COMMAND` says how to start it.

use std::sync::Arc;

use legwork_process::Running;
use legwork_process::sandbox::Profile;
use legwork_runner::{Command, What};
use tokio::task::JoinHandle;

use crate::room::Room;
use crate::terminal::Launch;

/// An application that was started. It is not started again.
pub(crate) struct App {
    running: Arc<Running>,
    watcher: JoinHandle<()>,
}

/// Starts the application; its output goes to `app.log` among the temporary files.
pub(crate) async fn start(room: &Room) -> Option<App> {
    let line = room.settings.start_command.clone()?;
    let log = std::env::temp_dir().join("app.log").to_string_lossy().into_owned();
    let redirected = "exec /bin/sh -c \"$1\" >\"$0\" 2>&1";
    let argv = vec!["/bin/sh".into(), "-c".into(), redirected.into(), log.clone(), line.clone()];
    let command =
        Command { what: What::Program(argv), subject: line, walls: Some(Profile::Off), ..Command::default() };
    let launch = Launch::own("app", command);
    let shells = room.terminals.shells.clone();
    match shells.run(&launch).await {
        Ok(running) => {
            tracing::info!("started the application; its output is in {log}");
            let running = Arc::new(running);
            let watched = running.clone();
            let watcher = tokio::spawn(async move {
                shells.ended(&watched).await;
                let _ = shells.finish(&launch, watched.path()).await;
            });
            Some(App { running, watcher })
        }
        Err(error) => {
            tracing::error!("the application was not started: {error}");
            None
        }
    }
}

impl App {
    /// Ends it: SIGTERM, then SIGKILL.
    pub(crate) fn cancel(&self) {
        self.running.cancel();
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(self) {
        let _ = self.watcher.await;
    }
}
