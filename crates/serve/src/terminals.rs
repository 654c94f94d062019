//! All terminals of a workspace: the shared one, and those that are opened.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use legwork_executor::{Executor, Io, NotStarted, Size};
use legwork_process::sandbox::Profile;
use legwork_runner::{Asked, Command, What};
use legwork_socketio::{Room, payload};
use legwork_terminal::{Exit, Start, Terminal};
use serde_json::{Value, json};

use crate::member::{Client, Presence};
use crate::settings::Settings;
use crate::shells::{NoShell, Shells, own, requester};
use crate::viewing::Viewing;

/// The size of a terminal that nobody has looked at.
const SIZE: Size = Size { cols: 80, rows: 24 };
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// There are too many.
    #[error("the limit is {0} terminals")]
    Limit(usize),
    /// The shell that was asked for can't be had.
    #[error(transparent)]
    NoShell(#[from] NoShell),
    /// What was asked for can't be judged.
    #[error("the rules here are about lines of bash, not of {0}")]
    NotJudged(String),
    /// It could not be started.
    #[error(transparent)]
    NotStarted(#[from] NotStarted),
}

/// The terminals of a workspace. Whoever looks at one hears how what ran in it ended; whoever
/// has subscribed hears which there are.
pub(crate) struct Terminals {
    pub(crate) main: Arc<Terminal>,
    pub(crate) shells: Arc<Shells>,
    presence: Arc<Presence>,
    opened: Mutex<HashMap<String, Arc<Terminal>>>,
    count: AtomicU64,
    most: usize,
    timeout: Option<Duration>,
    sandbox: Profile,
    history: usize,
    /// Itself, for what happens in a terminal.
    this: Weak<Self>,
}

impl Terminals {
    pub(crate) fn new(shells: Arc<Shells>, presence: Arc<Presence>, settings: &Settings) -> Arc<Self> {
        let shell = shells.shell(None).unwrap_or_else(|_| "/bin/sh".into());
        let walls = Some(settings.sandbox);
        let command = Command { what: What::Shell(vec![shell]), walls, ..Command::default() };
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            main: Terminal::new(
                MAIN.into(),
                true,
                ("Terminal".into(), SIZE),
                starting(shells.clone(), own(MAIN, command)),
                settings.scrollback,
                telling(this.clone()),
            ),
            shells,
            presence,
            opened: Mutex::default(),
            count: AtomicU64::new(1),
            most: settings.max_terminals,
            timeout: settings.terminal_timeout,
            sandbox: settings.sandbox,
            history: settings.scrollback,
            this: this.clone(),
        })
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

    /// Opens a terminal, in which what was asked for runs already.
    pub(crate) fn open(&self, opening: Opening) -> Result<Arc<Terminal>, Refused> {
        let id = format!("t{}", self.count.fetch_add(1, Ordering::Relaxed));
        let (asked, size, title) = self.asked(opening, &id)?;
        let terminal = Terminal::new(
            id.clone(),
            false,
            (title, size),
            starting(self.shells.clone(), asked),
            self.history,
            telling(self.this.clone()),
        );
        self.keep(&terminal)?;
        if let Err(error) = terminal.ensure_started() {
            self.forget(&id);
            return Err(error.into());
        }
        Ok(terminal)
    }

    /// What is to be run in a terminal, its size, and what it is called.
    fn asked(&self, opening: Opening, id: &str) -> Result<(Asked, Size, String), Refused> {
        let shell = self.shells.shell(opening.shell.as_deref())?;
        let plain = shell.rsplit('/').next().unwrap_or("shell").to_owned();
        let what = match &opening.command {
            // Lines are judged as bash reads them.
            Some(_) if self.shells.judges() && !matches!(&*plain, "bash" | "sh") => {
                return Err(Refused::NotJudged(plain));
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
        let command = Command {
            what,
            workdir: opening.cwd,
            env: opening.env,
            timeout,
            subject,
            walls: Some(sandbox),
            ..Command::default()
        };
        let asked = Asked { command, requester: requester(&opening.who, id) };
        Ok((asked, opening.size.unwrap_or(SIZE), title))
    }

    /// Gives a terminal a place among the others.
    fn keep(&self, terminal: &Arc<Terminal>) -> Result<(), Refused> {
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
        opened.insert(terminal.id.clone(), terminal.clone());
        Ok(())
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

    /// Shows the shared terminal to a client: what it has shown before, then what it does.
    pub(crate) fn show_main(&self, client: &Client, room: Room, replay: bool) {
        client.unfollow(&self.main.id);
        let mut from = self.main.end();
        if replay && from > 0 {
            let (text, offset) = self.main.replay();
            client.answer(room, "terminal:data", payload(&json!({ "data": text })));
            from = offset;
        }
        Viewing::start(client, self.main.clone(), from, false);
    }

    /// What is told of each terminal.
    pub(crate) fn described(&self) -> Vec<Value> {
        self.list().iter().map(|t| describe(t)).collect()
    }

    /// Tells those who asked for it which terminals there are.
    pub(crate) fn tell_all(&self) {
        let said = payload(&json!({ "terminals": self.described() }));
        self.presence.tell("terminal:list", &said, |m| m.watches.terminals.is_on());
    }

    /// Tells one client which terminals there are.
    pub(crate) fn tell(&self, client: &Client) {
        client.tell("terminal:list", payload(&json!({ "terminals": self.described() })));
    }

    fn ended(&self, terminal: &Terminal, exit: Exit) {
        let mut said = json!({ "code": exit.code });
        if !terminal.lasting {
            said["id"] = terminal.id.clone().into();
            said["timed_out"] = exit.timed_out.into();
        }
        let said = payload(&said);
        for client in self.presence.all() {
            if client.follows(&terminal.id) {
                client.tell("terminal:exit", said.clone());
            }
        }
        self.tell_all();
    }
}

/// Starts what was asked for in a terminal, as often as that is wanted.
fn starting(shells: Arc<Shells>, asked: Asked) -> Start {
    Box::new(move |size| shells.start(&asked, Io::Terminal(size)))
}

/// Tells that what ran in a terminal has ended.
fn telling(terminals: Weak<Terminals>) -> legwork_terminal::OnExit {
    Box::new(move |terminal, exit| {
        if let Some(terminals) = terminals.upgrade() {
            terminals.ended(terminal, exit);
        }
    })
}

/// What is told of a terminal.
pub(crate) fn describe(terminal: &Terminal) -> Value {
    let (running, exit) = terminal.state();
    let size = terminal.size();
    json!({
        "id": terminal.id,
        "title": terminal.title(),
        "cols": size.cols,
        "rows": size.rows,
        "running": running,
        "exit_code": exit.map(|e| e.code),
        "timed_out": exit.is_some_and(|e| e.timed_out),
        "viewers": terminal.viewer_count(),
        "offset": terminal.end(),
    })
}
