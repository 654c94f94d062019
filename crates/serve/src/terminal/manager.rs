//! All terminals of a workspace: the shared one, and those that are opened.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use legwork_process::Size;
use legwork_process::sandbox::Profile;
use legwork_runner::{Command, What};

use super::shell::{SIZE, requester};
use super::{Exit, Launch, Shells, Terminal};

/// The id of the shared terminal.
pub(crate) const MAIN: &str = "main";
/// Most terminals, those that have ended included.
const REMEMBERED: usize = 32;
const MAX_TITLE: usize = 200;

/// A terminal to be opened.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    /// The client that asks, for the audit.
    pub(crate) who: String,
    pub(crate) size: Option<Size>,
    pub(crate) shell: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) cwd: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) title: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) sandbox: Option<Profile>,
}

/// Why a terminal was not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are too many.
    Limit(usize),
    /// What was asked for makes no sense.
    Bad(String),
    /// It could not be started.
    Failed(String),
}

type Listener = Arc<dyn Fn(&Arc<Terminal>, Exit) + Send + Sync>;

/// The terminals of a workspace.
pub(crate) struct Terminals {
    pub(crate) main: Arc<Terminal>,
    pub(crate) shells: Arc<Shells>,
    opened: Mutex<HashMap<String, Arc<Terminal>>>,
    count: AtomicU64,
    most: usize,
    timeout: Option<Duration>,
    sandbox: Profile,
    history: usize,
    on_exit: Listener,
}

impl Terminals {
    pub(crate) fn new(
        shells: Arc<Shells>,
        most: usize,
        timeout: Option<Duration>,
        sandbox: Profile,
        history: usize,
        on_exit: Listener,
    ) -> Self {
        let shell = shells.shell(None).unwrap_or_else(|_| "/bin/sh".into());
        let command = Command { what: What::Shell(vec![shell]), walls: Some(sandbox), ..Command::default() };
        let launch = Launch::own(MAIN, command);
        let told = on_exit.clone();
        let main = Terminal::new(
            MAIN.into(),
            true,
            "Terminal".into(),
            launch,
            shells.clone(),
            history,
            Box::new(move |t, e| told(t, e)),
        );
        let count = AtomicU64::new(1);
        Self { main, shells, opened: Mutex::default(), count, most, timeout, sandbox, history, on_exit }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Terminal>> {
        if id == MAIN {
            return Some(self.main.clone());
        }
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// All, the shared one first.
    pub(crate) fn list(&self) -> Vec<Arc<Terminal>> {
        let mut all: Vec<_> =
            self.opened.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by_key(|t| t.id.trim_start_matches('t').parse::<u64>().unwrap_or(u64::MAX));
        all.insert(0, self.main.clone());
        all
    }

    pub(crate) fn running(&self) -> usize {
        self.list().iter().filter(|t| t.is_running()).count()
    }

    pub(crate) fn open(&self, opening: Opening) -> Result<Arc<Terminal>, Refused> {
        let shell = self.shells.shell(opening.shell.as_deref()).map_err(Refused::Bad)?;
        let plain = shell.rsplit('/').next().unwrap_or("shell").to_owned();
        let what = match &opening.command {
            // Lines are judged as bash reads them.
            Some(_) if self.shells.judges() && !matches!(&*plain, "bash" | "sh") => {
                let why = format!("the rules here are about lines of bash, not of {plain}");
                return Err(Refused::Bad(why));
            }
            Some(line) if self.shells.judges() => What::Line(line.clone()),
            Some(line) => What::Program(vec![shell, "-c".into(), line.clone()]),
            None => What::Shell(vec![shell]),
        };
        let subject = opening.command.clone().unwrap_or_default();
        let mut title = opening.title.or(opening.command).unwrap_or(plain);
        if title.len() > MAX_TITLE {
            let cut = (0..=MAX_TITLE).rev().find(|at| title.is_char_boundary(*at)).unwrap_or(0);
            title.truncate(cut);
        }
        // The strictest of what was asked for and what the operator says.
        let timeout = match (opening.timeout, self.timeout) {
            (Some(asked), Some(most)) => Some(asked.min(most)),
            (asked, most) => asked.or(most),
        };
        let sandbox = match opening.sandbox {
            Some(_) if self.sandbox != Profile::Off => self.sandbox,
            Some(asked) => asked,
            None => self.sandbox,
        };
        let id = format!("t{}", self.count.fetch_add(1, Ordering::Relaxed));
        let command = Command {
            what,
            workdir: opening.cwd,
            env: opening.env,
            timeout,
            subject,
            walls: Some(sandbox),
            ..Command::default()
        };
        let launch =
            Launch { command, requester: requester(&opening.who, &id), size: opening.size.unwrap_or(SIZE) };
        let told = self.on_exit.clone();
        let terminal = Terminal::new(
            id.clone(),
            false,
            title,
            launch,
            self.shells.clone(),
            self.history,
            Box::new(move |t, e| told(t, e)),
        );
        {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            if opened.values().filter(|t| t.is_running()).count() + 1 >= self.most {
                return Err(Refused::Limit(self.most));
            }
            // Those that have ended and that nobody looks at make place.
            if opened.len() >= REMEMBERED {
                opened.retain(|_, t| t.is_running() || t.viewer_count() > 0);
                if opened.len() >= REMEMBERED {
                    return Err(Refused::Limit(REMEMBERED));
                }
            }
            opened.insert(id.clone(), terminal.clone());
        }
        if let Err(error) = terminal.ensure_started() {
            self.forget(&id);
            return Err(Refused::Failed(error));
        }
        Ok(terminal)
    }

    /// Ends a terminal's command, and forgets it.
    pub(crate) fn close(&self, id: &str) -> bool {
        let Some(terminal) = self.forget(id) else { return false };
        terminal.close();
        true
    }

    fn forget(&self, id: &str) -> Option<Arc<Terminal>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }
}
