//! The world of a seed: what happens in it, and what must be so at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use legwork_api::NewTask;
use legwork_store::{Lane, Sqlite, State, Step, Store, Tasks, Token};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::runner::{Runner, Wire};
use crate::clock::seeded;
use crate::engine::{self, Hub, Seat, Settings};
use crate::events::Kind;
use crate::fleet::{Link, LiveRun, ToRunner};
use crate::model::Role;
use crate::session::heard;

/// What happened, of one world or of many.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) runs: u64,
    pub(super) succeeded: u64,
    pub(super) cuts: u64,
    pub(super) crashes: u64,
    pub(super) reboots: u64,
    pub(super) full_disks: u64,
    pub(super) gave_up: u64,
    pub(super) gaps: u64,
    pub(super) events: u64,
    pub(super) held: u64,
    pub(super) said: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.succeeded += other.succeeded;
        self.cuts += other.cuts;
        self.crashes += other.crashes;
        self.reboots += other.reboots;
        self.full_disks += other.full_disks;
        self.gave_up += other.gave_up;
        self.gaps += other.gaps;
        self.events += other.events;
        self.held += other.held;
        self.said += other.said;
    }
}

const SETTINGS: Settings = Settings {
    grace: Duration::from_secs(60),
    max_output: 64 << 20,
    keep: None,
    keep_bytes: None,
    approval_wait: Duration::from_secs(120),
};

pub(super) struct World {
    seed: u64,
    loud: bool,
    dir: tempfile::TempDir,
    hub: Option<(Arc<Hub>, Arc<Sqlite>)>,
    runners: Vec<Runner>,
    /// What clients ask for.
    asking: JoinSet<Option<String>>,
    /// What was promised to clients.
    promised: BTreeSet<String>,
    cancelled: BTreeSet<String>,
    /// The hub forgets that a connection is gone only later.
    half_open: Vec<(String, u64)>,
    /// What was heard on connections that are gone.
    hearing: Vec<tokio::task::JoinHandle<()>>,
    seen: Seen,
}

fn chance(of: u64) -> u64 {
    seeded::next().expect("seeded") % of.max(1)
}

fn client() -> Token {
    Token {
        id: "tok_client".into(),
        name: "client".into(),
        role: Role::Operator,
        runner_id: None,
        created_at_ms: 0,
        expires_at_ms: None,
        revoked: false,
    }
}

impl World {
    pub(super) async fn new(seed: u64, loud: bool) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let mut world = Self {
            seed,
            loud,
            dir: dir.expect("tempdir"),
            hub: None,
            runners: Vec::new(),
            asking: JoinSet::new(),
            promised: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            half_open: Vec::new(),
            hearing: Vec::new(),
            seen: Seen::default(),
        };
        world.start_hub(false).await;
        let count = if seed.is_multiple_of(25) { 100 } else { 1 + chance(5) };
        for i in 0..count {
            let (hub, _) = world.hub();
            let new = engine::NewToken { name: format!("r{i}"), role: Role::Runner, expires_at_ms: None };
            let token = hub.new_token(new).await.expect("token").0;
            let id = token.runner_id.expect("a runner's");
            hub.fleet.lock().change(&id, |r| {
                r.own_labels = vec!["sim".into()];
                r.join_labels();
            });
            world.runners.push(Runner::new(id, format!("r{i}")));
        }
        world.hub().1.hold();
        world
    }

    fn hub(&self) -> (Arc<Hub>, Arc<Sqlite>) {
        self.hub.clone().expect("a hub")
    }

    fn say(&self, what: impl std::fmt::Display) {
        if self.loud {
            println!("{:>8} {what}", engine_ms());
        }
    }

    async fn start_hub(&mut self, hold: bool) {
        let data = self.dir.path();
        let lock = engine::lock(data).expect("nobody else has it");
        let store = Arc::new(Sqlite::open(&data.join("hub.db"), Lane::Caller).expect("store"));
        let shared: Arc<dyn Store> = store.clone();
        let hub = Hub::put_together(data, SETTINGS, shared, Lane::Caller, lock).await.expect("hub");
        if hold {
            store.hold();
        }
        self.hub = Some((hub, store));
    }

    /// Lets everything go on that waits for nothing.
    async fn breathe(&mut self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        while let Some(asked) = self.asking.try_join_next() {
            if let Ok(Some(id)) = asked {
                self.promised.insert(id);
            }
        }
    }

    /// For a while everything happens that can.
    pub(super) async fn disturb(&mut self) {
        let tasks = 3 + chance(12) + if self.runners.len() > 20 { 60 } else { 0 };
        let mut left = tasks;
        for _ in 0..tasks * 40 {
            match chance(100) {
                0..8 if left > 0 => {
                    left -= 1;
                    self.submit();
                }
                0..10 => self.cancel(),
                10..16 => self.connect_some().await,
                16..34 => self.carry().await,
                34..52 => self.hear(),
                52..54 => self.decide(false),
                54..62 => self.work(),
                62..76 => self.commit(),
                76..88 => {
                    let (hub, _) = self.hub();
                    hub.log.step(usize::try_from(1 + chance(6)).unwrap_or(1));
                }
                88..92 => self.pass(chance(2500)).await,
                92..93 => self.pass(chance(90_000)).await,
                93..95 => self.cut_one(),
                95..96 if chance(3) == 0 => self.reboot_one(),
                96..97 => self.crash().await,
                97..98 => self.forget_half_open(),
                98 => {
                    let (hub, _) = self.hub();
                    hub.logs.pack().expect("pack");
                    self.decide(false);
                }
                _ => self.disk(),
            }
            self.breathe().await;
        }
    }

    fn submit(&mut self) {
        let count = 1 + chance(self.runners.len().min(3) as u64);
        let select = match chance(3) {
            0 => {
                json!({ "runner": self.runners[usize::try_from(chance(self.runners.len() as u64)).unwrap_or(0)].name })
            }
            _ => json!({ "labels": ["sim"], "count": count }),
        };
        let key = (chance(4) == 0).then(|| format!("key-{}", chance(3)));
        let expires_s = if chance(5) == 0 { 30 } else { 3600 };
        self.submit_to(&select, expires_s, key);
    }

    fn submit_to(&mut self, select: &Value, expires_s: u64, key: Option<String>) {
        let (hub, _) = self.hub();
        let new = json!({
            "select": select, "operation": "bash", "args": { "command": "sim" }, "timeout_s": 600,
            "expires_s": expires_s, "idempotency_key": key,
        });
        self.say(format_args!("submit {new}"));
        let new: NewTask = serde_json::from_value(new).expect("a task");
        self.asking.spawn(async move { hub.submit(new, &client()).await.ok() });
    }

    fn cancel(&mut self) {
        let nth = chance(self.promised.len() as u64);
        let Some(id) = self.promised.iter().nth(usize::try_from(nth).unwrap_or(0)).cloned() else { return };
        if chance(3) > 0 {
            return;
        }
        self.say(format_args!("cancel {id}"));
        self.cancelled.insert(id.clone());
        let (hub, _) = self.hub();
        self.asking.spawn(async move {
            let _ = hub.cancel(&id).await;
            None
        });
    }

    /// People answer, some of them at the same time; in the end all say yes or no.
    fn decide(&mut self, all: bool) {
        let (hub, _) = self.hub();
        let waits = |run: &LiveRun| {
            let approval =
                run.approval.as_ref().filter(|approval| !approval.given && run.state == State::Held)?;
            Some(approval.id.to_string())
        };
        let waiting: Vec<String> = hub.fleet.lock().runs.values().filter_map(waits).collect();
        for id in waiting {
            if !all && chance(3) > 0 {
                continue;
            }
            for person in 0..=chance(2) {
                let by = Token { id: format!("tok_p{person}"), role: Role::Approver, ..client() };
                let said = engine::Said { yes: chance(4) > 0, ..engine::Said::default() };
                let (hub, id) = (hub.clone(), id.clone());
                self.seen.said += 1;
                self.asking.spawn(async move {
                    let _ = hub.decide(&id, said, &by).await;
                    None
                });
            }
        }
    }

    async fn connect_some(&mut self) {
        for i in 0..self.runners.len() {
            if self.runners[i].wire.is_none() && chance(2) == 0 {
                self.connect(i);
            }
        }
    }

    fn connect(&mut self, i: usize) {
        let (hub, _) = self.hub();
        let runner = &mut self.runners[i];
        // An older connection that the hub still believes in does not answer its ping.
        let older = hub.fleet.lock().runners.get(&runner.id).and_then(|r| r.link.clone());
        if let Some(older) = older {
            let _ = older.sender.send(ToRunner::Close { code: 1001, reason: "replaced" });
            hub.fleet.lock().unlink(&runner.id, older.number);
        }
        #[expect(clippy::disallowed_methods, reason = "as in the session")]
        let (sender, queue) = tokio::sync::mpsc::unbounded_channel();
        let number = hub.fleet.lock().next_link();
        let link = Link { number, sender, ready: false, ack: false, output: false };
        let seat = Seat { runner_id: runner.id.clone(), name: runner.name.clone() };
        hub.sit_down(&seat, link).expect("its seat");
        runner.wire = Some(Wire {
            number,
            queue,
            to_runner: Default::default(),
            to_hub: Default::default(),
            hearing: None,
        });
        runner.greet();
        let name = runner.name.clone();
        self.say(format_args!("{name} connects as {number}"));
    }

    /// The hub writes what it has queued, and messages arrive at runners.
    async fn carry(&mut self) {
        let (hub, _) = self.hub();
        for i in 0..self.runners.len() {
            if chance(2) == 0 {
                continue;
            }
            self.write(&hub, i).await;
            let runner = &mut self.runners[i];
            while let Some(text) = runner.wire.as_mut().and_then(|w| w.to_runner.pop_front()) {
                runner.take(&text, chance(u64::MAX));
                if chance(3) == 0 {
                    break;
                }
            }
        }
    }

    async fn write(&mut self, hub: &Arc<Hub>, i: usize) {
        loop {
            let runner = &mut self.runners[i];
            let Some(wire) = runner.wire.as_mut() else { return };
            match wire.queue.try_recv() {
                Ok(ToRunner::Text(text)) => wire.to_runner.push_back(text),
                Ok(ToRunner::Request(run)) => {
                    // In memory or in the store, which answers at once.
                    if let Some(request) = hub.request_of(&run).await.expect("request") {
                        let args = std::str::from_utf8(&request.args).expect("text");
                        wire.to_runner
                            .push_back([request.head.as_str(), args, request.tail.as_str()].concat());
                    }
                }
                Ok(ToRunner::Deliver) => {
                    let (hub, id) = (hub.clone(), runner.id.clone());
                    self.asking.spawn(async move {
                        hub.deliver_waiting(&id).await;
                        None
                    });
                }
                Ok(ToRunner::Probe(_)) => {}
                Ok(ToRunner::Close { .. }) => return self.cut(i),
                Err(_) => return,
            }
        }
    }

    /// Messages arrive at the hub: of each connection one at a time.
    fn hear(&mut self) {
        let (hub, _) = self.hub();
        for runner in &mut self.runners {
            let Some(wire) = runner.wire.as_mut() else { continue };
            if wire.hearing.as_ref().is_some_and(|h| !h.is_finished()) || chance(2) == 0 {
                continue;
            }
            let mut texts = Vec::new();
            for _ in 0..=chance(3) {
                texts.extend(wire.to_hub.pop_front());
            }
            let (hub, id, number) = (hub.clone(), runner.id.clone(), wire.number);
            wire.hearing = Some(tokio::spawn(async move {
                for text in texts {
                    heard(&hub, &id, number, &text).await;
                }
            }));
        }
    }

    fn work(&mut self) {
        for runner in &mut self.runners {
            runner.work(chance);
            if chance(10) == 0 {
                runner.tell_unasked();
            }
        }
    }

    fn commit(&mut self) {
        let (_, store) = self.hub();
        store.step(usize::try_from(1 + chance(8)).unwrap_or(1), Step::Make);
    }

    /// Time passes, and the hub looks at its clock.
    async fn pass(&mut self, ms: u64) {
        seeded::pass(Duration::from_millis(ms));
        let (hub, _) = self.hub();
        let ticking = tokio::spawn(async move { hub.tick().await });
        for _ in 0..200 {
            if ticking.is_finished() {
                return;
            }
            // What it ends waits for the store.
            self.breathe().await;
            self.commit();
            self.hub().0.log.step(4);
        }
        ticking.abort();
    }

    fn cut_one(&mut self) {
        let i = usize::try_from(chance(self.runners.len() as u64)).unwrap_or(0);
        self.cut(i);
    }

    fn cut(&mut self, i: usize) {
        let Some(wire) = self.runners[i].wire.take() else { return };
        self.seen.cuts += 1;
        // What was begun to be heard is heard to its end.
        self.hearing.extend(wire.hearing);
        let id = self.runners[i].id.clone();
        self.say(format_args!("{} is cut off", self.runners[i].name));
        match chance(2) {
            0 => self.hub().0.fleet.lock().unlink(&id, wire.number),
            _ => self.half_open.push((id, wire.number)),
        }
    }

    fn forget_half_open(&mut self) {
        let (hub, _) = self.hub();
        for (id, number) in self.half_open.drain(..) {
            hub.fleet.lock().unlink(&id, number);
        }
    }

    fn reboot_one(&mut self) {
        let i = usize::try_from(chance(self.runners.len() as u64)).unwrap_or(0);
        self.cut(i);
        self.runners[i].reboot();
        self.seen.reboots += 1;
        self.say(format_args!("{} is restarted", self.runners[i].name));
    }

    /// The disk is full for a moment, or the store's writes fail.
    fn disk(&mut self) {
        self.seen.full_disks += 1;
        let (hub, store) = self.hub();
        match chance(2) {
            0 => {
                store.step(usize::try_from(1 + chance(4)).unwrap_or(1), Step::Fail);
            }
            _ => {
                hub.logs.full_disk.store(true, Ordering::Relaxed);
                hub.log.step(usize::try_from(1 + chance(4)).unwrap_or(1));
                hub.logs.full_disk.store(false, Ordering::Relaxed);
            }
        }
    }

    /// The hub is gone, in the middle of whatever it did, and comes back.
    async fn crash(&mut self) {
        self.seen.crashes += 1;
        self.say("the hub crashes");
        if chance(2) == 0 {
            let (_, store) = self.hub();
            store.step(usize::try_from(chance(6)).unwrap_or(1), Step::Crash);
        }
        let wires = self.runners.iter_mut().filter_map(|runner| runner.wire.take());
        self.hearing.extend(wires.filter_map(|wire| wire.hearing));
        for hearing in self.hearing.drain(..) {
            hearing.abort();
            let _ = hearing.await;
        }
        self.half_open.clear();
        self.asking.shutdown().await;
        let (hub, store) = self.hub();
        store.step(usize::MAX, Step::Lose);
        hub.log.lose();
        drop((hub, store));
        self.hub = None;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.start_hub(true).await;
    }

    /// Nothing fails any more: all comes to its end.
    pub(super) async fn settle(&mut self) {
        self.say("peace");
        for round in 0..400 {
            self.forget_half_open();
            for i in 0..self.runners.len() {
                if self.runners[i].wire.is_none() {
                    self.connect(i);
                }
            }
            let (hub, store) = self.hub();
            for _ in 0..6 {
                self.hear();
                self.breathe().await;
                store.step(usize::MAX, Step::Make);
                hub.log.step(usize::MAX);
                self.breathe().await;
                self.carry().await;
                self.work();
                self.decide(true);
            }
            self.pass(if round < 100 { 100 } else { 1500 }).await;
            if round > 20 && round % 10 == 0 {
                self.runners.iter_mut().for_each(Runner::tell_unasked);
            }
            let quiet = self.runners.iter().all(Runner::is_quiet) && self.asking.is_empty();
            if quiet && hub.fleet.lock().runs.is_empty() {
                break;
            }
        }
        let (hub, store) = self.hub();
        store.step(usize::MAX, Step::Make);
        hub.log.step(usize::MAX);
        self.breathe().await;
        let open: Vec<String> = hub.fleet.lock().runs.values().map(|run| self.standing(run)).collect();
        assert!(open.is_empty(), "seed {}: these never end: {open:#?}", self.seed);
    }

    /// Where a run stands, by the hub and by its runner.
    fn standing(&self, run: &LiveRun) -> String {
        let command = self.runners.iter().find_map(|runner| runner.commands.get(&run.id));
        format!(
            "{} of {} is {:?} since {:?}, heard of {:?} ago; unsent {}, closing {}, stalled {}, held {}, cancelled {}; \
             its runner has {command:?}",
            run.id,
            run.runner_name,
            run.state,
            run.delivered.elapsed(),
            run.heard.elapsed(),
            run.unsent,
            run.closing,
            run.stalled,
            run.held.is_some(),
            run.cancel_requested.is_some(),
        )
    }

    /// Output of a run that is under way: what it costs the store, and what the log.
    pub(super) async fn output_costs(&mut self, pieces: u64) -> (usize, usize) {
        self.runners.truncate(1);
        self.runners[0].asks_nobody = true;
        self.connect(0);
        self.submit_to(&json!({ "runner": self.runners[0].name }), 3600, None);
        let (hub, store) = self.hub();
        let mut run = None;
        while run.is_none() {
            self.hear();
            self.breathe().await;
            store.step(usize::MAX, Step::Make);
            hub.log.step(usize::MAX);
            self.breathe().await;
            self.carry().await;
            run =
                hub.fleet.lock().runs.values().find(|run| run.state == State::Running).map(|r| r.id.clone());
        }
        let run = run.unwrap_or_default();
        self.breathe().await;
        store.step(usize::MAX, Step::Make);
        hub.log.step(usize::MAX);
        let runner = &self.runners[0];
        let number = runner.wire.as_ref().expect("connected").number;
        for i in 0..pieces {
            let said = json!({ "task_id": run, "stream": "stdout", "offset": i * 4, "data": "line" });
            let said = json!({ "id": "m", "type": "task.output", "payload": said, "timestamp": 0 });
            heard(&hub, &runner.id, number, &said.to_string()).await;
        }
        (store.step(usize::MAX, Step::Make), hub.log.step(usize::MAX))
    }

    /// What must be so.
    pub(super) async fn check(mut self) -> Seen {
        let (hub, store) = self.hub();
        for runner in &self.runners {
            for (run, times) in &runner.started {
                assert!(*times == 1, "seed {}: {run} was started {times} times", self.seed);
            }
        }
        self.seen.held += self.runners.iter().map(|runner| runner.asks.len() as u64).sum::<u64>();
        let words: BTreeMap<String, (Option<&'static str>, String)> = self
            .runners
            .iter()
            .flat_map(|r| r.commands.iter().map(|(id, c)| (id.clone(), (c.end(), c.output.clone()))))
            .collect();
        let all =
            store.list(legwork_store::Filter { limit: 10_000, ..Default::default() }).await.expect("list");
        let kept: BTreeSet<&str> = all.iter().map(|t| t.id.as_str()).collect();
        for id in &self.promised {
            assert!(kept.contains(id.as_str()), "seed {}: {id} was promised, and is gone", self.seed);
        }
        for task in all {
            hub.repair_events(&task.id).await.expect("repair");
            let frames = hub.logs.read(&task.id, 0, usize::MAX).expect("events");
            self.seen.events += frames.len() as u64;
            let last = frames.last().map(|f| f.kind);
            assert_eq!(last, Some(Kind::End), "seed {}: {} has no end", self.seed, task.id);
            assert_eq!(frames.iter().filter(|f| f.kind == Kind::End).count(), 1);
            for run in &task.runs {
                self.check_run(run, &frames, words.get(&run.id));
            }
        }
        self.seen
    }

    fn check_run(
        &mut self,
        run: &legwork_store::Run,
        frames: &[crate::events::Frame],
        word: Option<&(Option<&'static str>, String)>,
    ) {
        let seed = self.seed;
        let of = |kind: Kind| frames.iter().filter(move |f| f.kind == kind && f.run == run.ordinal);
        let states: Vec<String> = of(Kind::State)
            .map(|f| {
                serde_json::from_slice::<Value>(&f.payload).expect("JSON")["state"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned()
            })
            .collect();
        assert!(run.state.is_final(), "seed {seed}: {} is {:?}", run.id, run.state);
        if states.last().map(String::as_str) != Some(run.state.as_str()) {
            for frame in frames {
                let text = String::from_utf8_lossy(&frame.payload).chars().take(150).collect::<String>();
                println!("{:?} of {} to {}: {text}", frame.kind, frame.run, frame.end);
            }
        }
        assert_eq!(
            states.last().map(String::as_str),
            Some(run.state.as_str()),
            "seed {seed}: {} {states:?}",
            run.id
        );
        let ends = states.iter().filter(|s| State::parse(s).is_some_and(State::is_final)).count();
        let again = states
            .windows(2)
            .filter(|w| State::parse(&w[0]).is_some_and(State::is_final) && w[1] == "running")
            .count();
        assert_eq!(ends, 1 + again, "seed {seed}: {} has one end: {states:?}", run.id);
        self.seen.runs += 1;
        self.seen.gave_up += again as u64;
        // The runner's word is what counts.
        let Some((word, output)) = word else {
            let unheard =
                matches!(run.state, State::Expired | State::Cancelled | State::Lost | State::Denied);
            let refused = run.error.as_deref().unwrap_or_default();
            assert!(run.state != State::Denied || refused.contains("said no"), "seed {seed}: {refused}");
            assert!(unheard, "seed {seed}: {} is {:?}, and nobody did it", run.id, run.state);
            return;
        };
        let word = word.expect("it ended");
        assert_eq!(run.state.as_str(), word, "seed {seed}: {} {states:?} {:?}", run.id, run.error);
        self.seen.succeeded += u64::from(run.state == State::Succeeded);
        let mut told = Vec::new();
        for frame in of(Kind::Stdout) {
            assert_eq!(frame.offset, told.len() as u64, "seed {seed}: output of {} is in its place", run.id);
            told.extend_from_slice(&frame.payload);
        }
        let gaps = of(Kind::Gap).count();
        self.seen.gaps += gaps as u64;
        assert!(
            output.as_bytes().starts_with(&told),
            "seed {seed}: output of {} is what was written",
            run.id
        );
        if matches!(word, "succeeded" | "failed") && gaps == 0 {
            assert_eq!(told.len(), output.len(), "seed {seed}: output of {} is whole", run.id);
        }
    }
}

fn engine_ms() -> u64 {
    crate::clock::now_ms() - 1_700_000_000_000
}
