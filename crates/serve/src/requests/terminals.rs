//! Events about terminals.

use std::sync::Arc;
use std::time::Duration;

use legwork_process::Size;
use serde_json::{Value, json};

use super::{Data, Fields, may};
use crate::client::{Client, Payload, payload};
use crate::paths::Trouble;
use crate::room::Room;
use crate::settings::profile;
use crate::terminal::{Colours, InputError, MAIN, Opening, REPLAY, Refused, Terminal};

const MAX_SIDE: u64 = 1000;
const MAX_TIMEOUT: u64 = 7 * 24 * 3600;

type Answer = Result<Payload, Trouble>;

/// Takes an event about terminals; gives the payload back if it is another's.
pub(super) fn take(room: &Arc<Room>, client: &Arc<Client>, event: &str, data: Data) -> Taken {
    let answer = match event {
        "terminal:write" | "terminalData" => write(room, client, data),
        "terminal:resize" => resize(room, client, data),
        "requestTerminal" => {
            room.show_main(client, true);
            Ok(success())
        }
        "terminal:open" => open(room, client, data),
        "terminal:list" => Ok(payload(&json!({ "terminals": list(room) }))),
        "terminal:attach" => attach(room, client, data),
        "terminal:detach" => detach(room, client, data),
        "terminal:close" => close(room, client, data),
        "terminal:rename" => rename(room, client, data),
        _ => return Taken::Other(data),
    };
    Taken::Done(answer)
}

/// Whether an event was about terminals.
pub(super) enum Taken {
    Done(Answer),
    Other(Data),
}

impl Taken {
    /// Lets somebody else look at what was not ours.
    pub(super) fn or_else(self, other: impl FnOnce(Data) -> Option<Answer>) -> Option<Answer> {
        match self {
            Self::Done(answer) => Some(answer),
            Self::Other(data) => other(data),
        }
    }
}

fn success() -> Payload {
    payload(&json!({ "success": true }))
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

pub(crate) fn list(room: &Room) -> Vec<Value> {
    room.terminals.list().iter().map(|t| describe(t)).collect()
}

fn find(room: &Room, fields: &mut Fields) -> Result<Arc<Terminal>, Trouble> {
    let id = fields.text("id")?.unwrap_or_else(|| MAIN.to_owned());
    room.terminals.get(&id).ok_or_else(|| Trouble::new("not_found", format!("no such terminal: {id}")))
}

fn write(room: &Room, client: &Client, data: Data) -> Answer {
    let mut fields = data.object("data")?;
    let terminal = find(room, &mut fields)?;
    let bytes = fields.bytes("data")?.ok_or_else(|| Trouble::bad("data is required"))?;
    may(client.rights)?;
    let resized = terminal.write_for(client.id, &bytes).map_err(|error| match error {
        InputError::Busy => Trouble::new("terminal_busy", "terminal is not reading input"),
        InputError::Unavailable(why) => {
            Trouble::new("terminal_unavailable", format!("cannot start shell: {why}"))
        }
    })?;
    if resized {
        room.tell_terminals();
    }
    Ok(success())
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

/// With an `id` it says what this viewer has room for; without, the size of the shared
/// terminal for all.
fn resize(room: &Room, client: &Client, data: Data) -> Answer {
    let mut fields = data.object("size")?;
    let named = fields.has("id");
    let terminal = find(room, &mut fields)?;
    let wanted = size(&mut fields)?.ok_or_else(|| Trouble::bad("cols and rows are required"))?;
    let colours = colours(&mut fields)?;
    may(client.rights)?;
    if !named {
        terminal.resize(wanted);
        return Ok(success());
    }
    let got = terminal.make_room(client.id, wanted, colours);
    room.tell_terminals();
    Ok(payload(&json!({ "success": true, "cols": got.cols, "rows": got.rows })))
}

fn open(room: &Arc<Room>, client: &Arc<Client>, data: Data) -> Answer {
    may(client.rights)?;
    let mut fields = data.object("shell")?;
    let size = size(&mut fields)?;
    let colours = colours(&mut fields)?;
    let given = fields.text("cwd")?.unwrap_or_default();
    let env = match fields.map.remove("env") {
        None | Some(Value::Null) => Default::default(),
        Some(Value::Object(map)) => map
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(value) if is_variable(&name) && !value.contains('\0') => Ok((name, value)),
                _ => Err(Trouble::bad(format!("env: {name:?} must be a variable's name with a text"))),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(Trouble::bad("env must be an object")),
    };
    let sandbox = fields.text("sandbox")?;
    let opening = Opening {
        who: client.sid.clone(),
        size,
        shell: fields.text("shell")?,
        command: fields.text("command")?.filter(|c| !c.contains('\0')),
        cwd: room.names.relative(&given)?,
        env,
        title: fields.text("title")?,
        timeout: fields.number("timeout_s", 1, MAX_TIMEOUT)?.map(Duration::from_secs),
        sandbox: sandbox
            .map(|name| profile(Some(&name)))
            .transpose()
            .map_err(|e| Trouble::bad(e.to_string()))?,
    };
    room.root.open_dir(&opening.cwd).map_err(|e| Trouble::of(&e, &given))?;
    let terminal = room.terminals.open(opening).map_err(|refused| match refused {
        Refused::Limit(most) => Trouble::new("too_many_terminals", format!("the limit is {most} terminals")),
        Refused::Bad(why) => Trouble::bad(why),
        Refused::Failed(why) => Trouble::new("terminal_unavailable", format!("cannot start shell: {why}")),
    })?;
    if let Some(size) = size {
        terminal.make_room(client.id, size, colours);
    }
    client.attach(terminal.clone(), 0, true);
    room.tell_terminals();
    Ok(payload(&describe(&terminal)))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("LEGWORK_")
}

/// `terminal:attach {id, offset?, cols?, rows?}`: from an offset on if few bytes are
/// missing, else from the screen as it is now.
fn attach(room: &Arc<Room>, client: &Arc<Client>, data: Data) -> Answer {
    let mut fields = data.object("id")?;
    let terminal = find(room, &mut fields)?;
    let from = fields.number("offset", 0, u64::MAX)?;
    let size = size(&mut fields)?;
    let colours = colours(&mut fields)?;
    if let Some(size) = size.filter(|_| may(client.rights).is_ok()) {
        terminal.make_room(client.id, size, colours);
    }
    if terminal.lasting
        && let Err(error) = terminal.ensure_started()
    {
        return Err(Trouble::new("terminal_unavailable", format!("cannot start shell: {error}")));
    }
    let few = from.filter(|from| {
        let end = terminal.end();
        *from <= end && end - from <= REPLAY as u64 && terminal.range(*from, end).is_some()
    });
    let how = match few {
        Some(from) => {
            client.attach(terminal.clone(), from, true);
            "bytes"
        }
        None => {
            // What the client has been sent of it so far comes before.
            client.detach(&terminal.id);
            let (text, offset) = terminal.snapshot();
            client.answer(
                "terminal:data",
                payload(&json!({ "id": terminal.id, "data": text, "offset": offset })),
            );
            client.attach(terminal.clone(), offset, true);
            "screen"
        }
    };
    let mut said = describe(&terminal);
    said["replay"] = how.into();
    room.tell_terminals();
    Ok(payload(&said))
}

fn detach(room: &Room, client: &Client, data: Data) -> Answer {
    let mut fields = data.object("id")?;
    let terminal = find(room, &mut fields)?;
    client.detach(&terminal.id);
    terminal.leave_room(client.id);
    room.tell_terminals();
    Ok(success())
}

fn close(room: &Room, client: &Client, data: Data) -> Answer {
    may(client.rights)?;
    let id = data.object("id")?.needed("id")?;
    if id == MAIN {
        return Err(Trouble::bad("the shared terminal can't be closed"));
    }
    if !room.terminals.close(&id) {
        return Err(Trouble::new("not_found", format!("no such terminal: {id}")));
    }
    room.tell_terminals();
    Ok(success())
}

fn rename(room: &Room, client: &Client, data: Data) -> Answer {
    may(client.rights)?;
    let mut fields = data.object("id")?;
    let terminal = find(room, &mut fields)?;
    let title = fields.needed("title")?;
    if title.is_empty() || title.chars().count() > 200 || title.chars().any(char::is_control) {
        return Err(Trouble::bad("title must have 1 to 200 characters, and no control characters"));
    }
    terminal.rename(title);
    room.tell_terminals();
    Ok(success())
}
