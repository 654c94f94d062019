//! Events about terminals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use legwork_executor::Size;
use legwork_socketio::{Data, Payload, Room, payload};
use legwork_terminal::{Colours, InputError, REPLAY, Terminal};
use serde_json::{Value, json};

use super::fields::{Fields, may};
use crate::files::Files;
use crate::member::Client;
use crate::paths::Trouble;
use crate::settings::profile;
use crate::terminals::{MAIN, Opening, Refused, Terminals, describe};
use crate::viewing::Viewing;

const MAX_SIDE: u64 = 1000;
const MAX_TIMEOUT: u64 = 7 * 24 * 3600;

type Answer = Result<Payload, Trouble>;

/// A request, and what it is about.
pub(super) struct Asked<'a> {
    pub(super) terminals: &'a Terminals,
    pub(super) files: &'a Files,
    pub(super) client: &'a Client,
    /// For the answers to it.
    pub(super) room: Room,
}

/// Whether an event was about terminals; if not, the payload is somebody else's.
pub(super) enum Taken {
    Done(Answer),
    Other(Data),
}

fn success() -> Payload {
    payload(&json!({ "success": true }))
}

fn size(fields: &mut Fields) -> Result<Option<Size>, Trouble> {
    let cols = fields.number("cols", 1, MAX_SIDE)?;
    let rows = fields.number("rows", 1, MAX_SIDE)?;
    let side = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    match (cols, rows) {
        (None, None) => Ok(None),
        (Some(cols), Some(rows)) => Ok(Some(Size { cols: side(cols), rows: side(rows) })),
        _ => Err(Trouble::bad("cols and rows go together")),
    }
}

/// The colours of a viewer's window, for programs that ask.
fn colours(fields: &mut Fields) -> Result<Option<Colours>, Trouble> {
    let (foreground, background) = (fields.text("foreground")?, fields.text("background")?);
    let (Some(foreground), Some(background)) = (foreground, background) else { return Ok(None) };
    match (Colours::parse(&foreground), Colours::parse(&background)) {
        (Some(foreground), Some(background)) => Ok(Some(Colours { foreground, background })),
        _ => Err(Trouble::bad("foreground and background must be colours like #1a2b3c")),
    }
}

/// The variables of a terminal to be opened.
fn variables(fields: &mut Fields) -> Result<BTreeMap<String, String>, Trouble> {
    match fields.map.remove("env") {
        None | Some(Value::Null) => Ok(BTreeMap::default()),
        Some(Value::Object(map)) => map
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(value) if is_variable(&name) && !value.contains('\0') => Ok((name, value)),
                _ => Err(Trouble::bad(format!("env: {name:?} must be a variable's name with a text"))),
            })
            .collect(),
        Some(_) => Err(Trouble::bad("env must be an object")),
    }
}

fn unavailable(error: &impl std::fmt::Display) -> Trouble {
    Trouble::new("terminal_unavailable", format!("cannot start shell: {error}"))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("LEGWORK_")
}

impl Asked<'_> {
    /// Carries the event out, if it is about terminals.
    pub(super) fn take(&self, event: &str, data: Data) -> Taken {
        Taken::Done(match event {
            "terminal:write" | "terminalData" => self.write(data),
            "terminal:resize" => self.resize(data),
            "requestTerminal" => {
                self.terminals.show_main(self.client, self.room, true);
                Ok(success())
            }
            "terminal:open" => self.open(data),
            "terminal:list" => Ok(payload(&json!({ "terminals": self.terminals.described() }))),
            "terminal:attach" => self.attach(data),
            "terminal:detach" => self.detach(data),
            "terminal:close" => self.close(data),
            "terminal:rename" => self.rename(data),
            _ => return Taken::Other(data),
        })
    }

    fn find(&self, fields: &mut Fields) -> Result<Arc<Terminal>, Trouble> {
        let id = fields.text("id")?.unwrap_or_else(|| MAIN.to_owned());
        self.terminals.get(&id).ok_or_else(|| Trouble::new("not_found", format!("no such terminal: {id}")))
    }

    fn write(&self, data: Data) -> Answer {
        let mut fields = Fields::of(data, "data")?;
        let terminal = self.find(&mut fields)?;
        let bytes = fields.bytes("data")?.ok_or_else(|| Trouble::bad("data is required"))?;
        may(self.client.member.rights)?;
        let resized = terminal.write_for(self.client.id, &bytes).map_err(|error| match error {
            InputError::Busy => Trouble::new("terminal_busy", error.to_string()),
            InputError::Ended(_) | InputError::NotStarted(_) => unavailable(&error),
        })?;
        if resized {
            self.terminals.tell_all();
        }
        Ok(success())
    }

    /// With an `id` it says what this viewer has room for; without, the size of the shared
    /// terminal for all.
    fn resize(&self, data: Data) -> Answer {
        let mut fields = Fields::of(data, "size")?;
        let named = fields.has("id");
        let terminal = self.find(&mut fields)?;
        let wanted = size(&mut fields)?.ok_or_else(|| Trouble::bad("cols and rows are required"))?;
        let colours = colours(&mut fields)?;
        may(self.client.member.rights)?;
        if !named {
            terminal.resize(wanted);
            return Ok(success());
        }
        let got = terminal.make_room(self.client.id, wanted, colours);
        self.terminals.tell_all();
        Ok(payload(&json!({ "success": true, "cols": got.cols, "rows": got.rows })))
    }

    fn open(&self, data: Data) -> Answer {
        may(self.client.member.rights)?;
        let mut fields = Fields::of(data, "shell")?;
        let size = size(&mut fields)?;
        let colours = colours(&mut fields)?;
        let given = fields.text("cwd")?.unwrap_or_default();
        let env = variables(&mut fields)?;
        let sandbox = fields.text("sandbox")?;
        let opening = Opening {
            who: self.client.sid.clone(),
            size,
            shell: fields.text("shell")?,
            command: fields.text("command")?.filter(|c| !c.contains('\0')),
            cwd: self.files.names.relative(&given)?,
            env,
            title: fields.text("title")?,
            timeout: fields.number("timeout_s", 1, MAX_TIMEOUT)?.map(Duration::from_secs),
            sandbox: sandbox
                .map(|name| profile(Some(&name)))
                .transpose()
                .map_err(|e| Trouble::bad(e.to_string()))?,
        };
        self.files.root.open_dir(&opening.cwd).map_err(|e| Trouble::of(&e, &given))?;
        let terminal = self.terminals.open(opening).map_err(|refused| match &refused {
            Refused::Limit(_) => Trouble::new("too_many_terminals", refused.to_string()),
            Refused::NoShell(_) | Refused::NotJudged(_) => Trouble::bad(refused.to_string()),
            Refused::NotStarted(error) => unavailable(error),
        })?;
        if let Some(size) = size {
            terminal.make_room(self.client.id, size, colours);
        }
        Viewing::start(self.client, terminal.clone(), 0, true);
        self.terminals.tell_all();
        Ok(payload(&describe(&terminal)))
    }

    /// `terminal:attach {id, offset?, cols?, rows?}`: from an offset on if few bytes are
    /// missing, else from the screen as it is now.
    fn attach(&self, data: Data) -> Answer {
        let mut fields = Fields::of(data, "id")?;
        let terminal = self.find(&mut fields)?;
        let from = fields.number("offset", 0, u64::MAX)?;
        let size = size(&mut fields)?;
        let colours = colours(&mut fields)?;
        if let Some(size) = size.filter(|_| may(self.client.member.rights).is_ok()) {
            terminal.make_room(self.client.id, size, colours);
        }
        if terminal.lasting
            && let Err(error) = terminal.ensure_started()
        {
            return Err(unavailable(&error));
        }
        let few = from.filter(|from| {
            let end = terminal.end();
            *from <= end && end - from <= REPLAY as u64 && terminal.range(*from, end).is_some()
        });
        let how = match few {
            Some(from) => {
                Viewing::start(self.client, terminal.clone(), from, true);
                "bytes"
            }
            None => {
                // What the client has been sent of it so far comes before.
                self.client.unfollow(&terminal.id);
                let (text, offset) = terminal.snapshot();
                self.client.answer(
                    self.room,
                    "terminal:data",
                    payload(&json!({ "id": terminal.id, "data": text, "offset": offset })),
                );
                Viewing::start(self.client, terminal.clone(), offset, true);
                "screen"
            }
        };
        let mut said = describe(&terminal);
        said["replay"] = how.into();
        self.terminals.tell_all();
        Ok(payload(&said))
    }

    fn detach(&self, data: Data) -> Answer {
        let mut fields = Fields::of(data, "id")?;
        let terminal = self.find(&mut fields)?;
        self.client.unfollow(&terminal.id);
        terminal.leave_room(self.client.id);
        self.terminals.tell_all();
        Ok(success())
    }

    fn close(&self, data: Data) -> Answer {
        may(self.client.member.rights)?;
        let id = Fields::of(data, "id")?.needed("id")?;
        if id == MAIN {
            return Err(Trouble::bad("the shared terminal can't be closed"));
        }
        if !self.terminals.close(&id) {
            return Err(Trouble::new("not_found", format!("no such terminal: {id}")));
        }
        self.terminals.tell_all();
        Ok(success())
    }

    fn rename(&self, data: Data) -> Answer {
        may(self.client.member.rights)?;
        let mut fields = Fields::of(data, "id")?;
        let terminal = self.find(&mut fields)?;
        let title = fields.needed("title")?;
        if title.is_empty() || title.chars().count() > 200 || title.chars().any(char::is_control) {
            return Err(Trouble::bad("title must have 1 to 200 characters, and no control characters"));
        }
        terminal.rename(title);
        self.terminals.tell_all();
        Ok(success())
    }
}
