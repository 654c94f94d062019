//! A runner as the protocol has it: it takes a task once, keeps it until it is acknowledged, and tells
//! what it is asked for.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::fleet::ToRunner;

/// A connection as both ends see it.
pub(super) struct Wire {
    pub(super) number: u64,
    /// What the hub has queued.
    pub(super) queue: mpsc::UnboundedReceiver<ToRunner>,
    pub(super) to_runner: VecDeque<String>,
    pub(super) to_hub: VecDeque<String>,
    /// What the runner says on it is being heard: one message at a time.
    pub(super) hearing: Option<tokio::task::JoinHandle<()>>,
}

/// A command, as the runner's journal has it.
#[derive(Debug, Clone)]
pub(super) struct Command {
    /// All that it will write.
    pub(super) output: String,
    written: usize,
    /// How much was told on this connection; `None` until the hub has said what it has.
    told: Option<usize>,
    ended: Option<&'static str>,
    exit_code: i32,
    /// The result was told on this connection.
    reported: bool,
    acknowledged: bool,
}

impl Command {
    fn new(run: &str, chance: u64) -> Self {
        let lines = usize::try_from(chance % 7).unwrap_or(0);
        // Some write more than a small log holds.
        let width = if chance.is_multiple_of(11) { 5000 } else { 10 };
        let output = (0..lines).map(|i| format!("{run} {i} {}\n", "x".repeat(width))).collect();
        let exit_code = if chance.is_multiple_of(5) { 3 } else { 0 };
        Self {
            output,
            written: 0,
            told: Some(0),
            ended: None,
            exit_code,
            reported: false,
            acknowledged: false,
        }
    }

    /// The state that the hub should come to, by the runner's word.
    pub(super) fn end(&self) -> Option<&'static str> {
        match self.ended {
            Some("exited") if self.exit_code == 0 => Some("succeeded"),
            Some("exited") => Some("failed"),
            other => other,
        }
    }
}

pub(super) struct Runner {
    pub(super) id: String,
    pub(super) name: String,
    boot: u64,
    pub(super) wire: Option<Wire>,
    pub(super) commands: BTreeMap<String, Command>,
    /// How often each was started.
    pub(super) started: BTreeMap<String, u32>,
    /// Which need people's yes; how often each was held, and with which digest.
    pub(super) asks: BTreeMap<String, u32>,
    /// On which connection the hub was told last.
    held_on: BTreeMap<String, u64>,
    /// It asks nobody.
    pub(super) asks_nobody: bool,
}

impl Runner {
    pub(super) fn new(id: String, name: String) -> Self {
        Self {
            id,
            name,
            boot: 1,
            wire: None,
            commands: BTreeMap::new(),
            started: BTreeMap::new(),
            asks: BTreeMap::new(),
            held_on: BTreeMap::new(),
            asks_nobody: false,
        }
    }

    fn say(&mut self, kind: &str, payload: &Value, id: &str) {
        if let Some(wire) = &mut self.wire {
            let message = json!({ "id": id, "type": kind, "payload": payload, "timestamp": 0 });
            wire.to_hub.push_back(message.to_string());
        }
    }

    /// The first words on a new connection. What ended waits for the hub to say what it has.
    pub(super) fn greet(&mut self) {
        for command in self.commands.values_mut() {
            (command.told, command.reported) = (None, false);
        }
        let said = json!({
            "name": self.name, "labels": ["sim"], "version": "1", "features": ["output", "ack", "outcome", "approval"],
            "boot_id": format!("boot-{}", self.boot), "environment": {},
        });
        self.say("heartbeat", &said, "");
    }

    /// Takes a message of the hub.
    pub(super) fn take(&mut self, text: &str, chance: u64) {
        let message: Value = serde_json::from_str(text).expect("the hub's JSON");
        let payload = &message["payload"];
        let run = payload["task_id"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str().unwrap_or_default() {
            "task.request" if self.holds(&run, &payload["approval"], chance) => {}
            "task.request" => self.request(run, chance),
            "task.resume" => self.resume(&run, payload),
            "task.cancel" => {
                if let Some(command) = self.commands.get_mut(&run).filter(|c| c.ended.is_none()) {
                    command.ended = Some("cancelled");
                }
            }
            "ack" => {
                let id = payload["id"].as_str().unwrap_or_default();
                if let Some(command) = id.strip_prefix("result-").and_then(|run| self.commands.get_mut(run)) {
                    command.acknowledged = true;
                }
            }
            _ => {}
        }
    }

    /// Whether a request is held: some need people's yes, and now and then the rules change in between.
    fn holds(&mut self, run: &str, yes: &Value, chance: u64) -> bool {
        let asks = self.asks.contains_key(run) || chance.is_multiple_of(4);
        if self.commands.contains_key(run) || !asks || self.asks_nobody {
            return false;
        }
        let times = self.asks.entry(run.to_owned()).or_default();
        let digest = format!("{times:064x}");
        let changed = chance.is_multiple_of(5) && *times < 3;
        if !changed && yes["digest"] == digest {
            assert_eq!(yes["ticket"], format!("{run} {digest}"), "the ticket comes back as it went");
            assert!(yes["by"].as_array().is_some_and(|by| !by.is_empty()), "somebody said so");
            return false;
        }
        *times += u32::from(changed || *times == 0);
        let digest = format!("{times:064x}");
        let said = json!({
            "task_id": run, "ticket": format!("{run} {digest}"), "digest": digest, "command": "sim", "part": "sim",
            "rule": "sim", "persons": 1,
        });
        self.say("task.held", &said, "");
        self.held_on.extend(self.wire.as_ref().map(|wire| (run.to_owned(), wire.number)));
        true
    }

    fn request(&mut self, run: String, chance: u64) {
        self.say("task.accepted", &json!({ "task_id": run }), "");
        if self.commands.contains_key(&run) {
            // It came twice: the first one counts.
            return;
        }
        *self.started.entry(run.clone()).or_default() += 1;
        self.commands.insert(run.clone(), Command::new(&run, chance));
    }

    fn resume(&mut self, run: &str, payload: &Value) {
        let here = self.wire.as_ref().map(|wire| wire.number);
        if !self.commands.contains_key(run) && self.held_on.get(run).copied() == here {
            return;
        }
        let Some(command) = self.commands.get_mut(run) else {
            let said = json!({ "task_id": run, "success": false, "error": "nothing is known of it", "exit_code": 1, "outcome": "lost" });
            return self.say("task.result", &said, &format!("result-{run}"));
        };
        command.told = payload["stdout"].as_u64().and_then(|n| usize::try_from(n).ok());
        command.reported = false;
    }

    /// Commands go on for a while, and what there is to tell is told.
    pub(super) fn work(&mut self, mut chance: impl FnMut(u64) -> u64) {
        let runs: Vec<String> = self.commands.keys().cloned().collect();
        for run in runs {
            let Some(command) = self.commands.get_mut(&run) else { continue };
            if command.ended.is_none() {
                match chance(3) {
                    0 if command.written == command.output.len() => command.ended = Some("exited"),
                    0 => {}
                    _ => {
                        let rest = command.output.len() - command.written;
                        let step = usize::try_from(chance(rest as u64 + 1)).unwrap_or(rest);
                        command.written += if chance(2) == 0 { rest } else { step };
                    }
                }
            }
            if self.wire.is_some() {
                self.tell(&run);
            }
        }
    }

    fn tell(&mut self, run: &str) {
        let Some(command) = self.commands.get_mut(run).filter(|c| !c.acknowledged) else { return };
        let Some(told) = command.told else { return };
        if told < command.written {
            let data = &command.output[told..command.written];
            let said = json!({ "task_id": run, "stream": "stdout", "offset": told, "data": data });
            command.told = Some(command.written);
            self.say("task.output", &said, "");
        }
        let Some(command) = self.commands.get_mut(run).filter(|c| !c.reported) else { return };
        let Some(ended) = command.ended else { return };
        command.reported = true;
        let said = match ended {
            "lost" => {
                json!({ "task_id": run, "success": false, "error": "the machine was restarted", "exit_code": 1, "outcome": "lost" })
            }
            outcome => {
                let text = &command.output[..command.written];
                // A long one is shortened, as runners do.
                let shown = if text.len() > 8000 { &text[..100] } else { text };
                json!({
                    "task_id": run, "success": true, "outcome": outcome,
                    "result": {
                        "stdout": shown, "stderr": "", "exit_code": if outcome == "exited" { command.exit_code } else { -1 },
                        "truncated": shown.len() < text.len(), "total_size": text.len(),
                    },
                })
            }
        };
        self.say("task.result", &said, &format!("result-{run}"));
    }

    /// The machine is restarted: what ran is gone, what ended is told later.
    pub(super) fn reboot(&mut self) {
        self.boot += 1;
        self.asks.retain(|run, _| self.commands.contains_key(run));
        for command in self.commands.values_mut().filter(|c| c.ended.is_none()) {
            command.ended = Some("lost");
        }
    }

    /// A run whose end waits for the hub's question gets it after a while without one.
    pub(super) fn tell_unasked(&mut self) {
        for command in self.commands.values_mut().filter(|c| c.ended.is_some() && c.told.is_none()) {
            command.told = Some(command.written);
        }
    }

    /// Whether neither it nor the hub has anything to say.
    pub(super) fn is_quiet(&self) -> bool {
        let is_idle = |wire: &Wire| {
            let heard = wire.hearing.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
            heard && wire.to_hub.is_empty() && wire.to_runner.is_empty() && wire.queue.is_empty()
        };
        if !self.wire.as_ref().is_none_or(is_idle) {
            return false;
        }
        let open = |c: &Command| c.ended.is_none() || !c.acknowledged;
        !self.commands.values().any(open)
    }
}
