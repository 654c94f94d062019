//! The user's application, if `START_COMMAND` says how to start it.

use std::collections::BTreeMap;

use legwork_process::sandbox::Profile;
use legwork_process::{Progress, Running, Size};

use crate::room::Room;
use crate::terminal::Launch;

/// An application that was started. It is not started again.
pub(crate) struct App(Running);

/// Starts the application; its output goes to `app.log` among the temporary files.
pub(crate) fn start(room: &Room) -> Option<App> {
    let command = room.settings.start_command.clone()?;
    let log = std::env::temp_dir().join("app.log").to_string_lossy().into_owned();
    let redirected = "exec /bin/sh -c \"$1\" >\"$0\" 2>&1";
    let launch = Launch {
        argv: vec!["/bin/sh".into(), "-c".into(), redirected.into(), log.clone(), command],
        cwd: String::new(),
        env: BTreeMap::new(),
        size: Size { cols: 80, rows: 24 },
        timeout: None,
        sandbox: Profile::Off,
    };
    match room.terminals.shells.run(&launch) {
        Ok(running) => {
            tracing::info!("started the application; its output is in {log}");
            Some(App(running))
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
        self.0.cancel();
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        while !matches!(self.0.progress().await, Progress::Ended) {}
    }
}
