//! The user's application, if `START_COMMAND` says how to start it.

use std::sync::Arc;

use legwork_executor::{Executor, Io, Process, Signal};
use legwork_process::sandbox::Profile;
use legwork_runner::{Command, What};

use crate::shells::{Shells, own};

/// An application that was started. It is not started again.
pub(crate) struct App(Arc<dyn Process>);

/// Starts the application; its output goes to `app.log` among the temporary files.
pub(crate) fn start(shells: &Shells, line: String) -> Option<App> {
    let log = std::env::temp_dir().join("app.log").to_string_lossy().into_owned();
    let redirected = "exec /bin/sh -c \"$1\" >\"$0\" 2>&1";
    let argv = vec!["/bin/sh".into(), "-c".into(), redirected.into(), log.clone(), line.clone()];
    let command =
        Command { what: What::Program(argv), subject: line, walls: Some(Profile::Off), ..Command::default() };
    match shells.start(&own("app", command), Io::Journal) {
        Ok(process) => {
            tracing::info!("started the application; its output is in {log}");
            Some(App(process))
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
        let _ = self.0.signal(Signal::End);
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        self.0.ended().await;
    }
}
