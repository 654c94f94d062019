//! Giving tasks to runners, and taking them back.

use std::sync::Arc;
use std::time::Duration;

use legwork_proto::task::{Assigned, Register, Registered, TaskId};
use legwork_store::{Assignment, PoolRunner, StoreError};
use serde_json::Value;
use serde_json::value::RawValue;

use super::messages::TOKEN_MS;
use super::{LiveTask, MAX_ATTEMPTS, MAX_UNHEARD, NAMELESS, PodRunner};
use crate::auth::hash;
use crate::clock::{now_ms, secret, steady_ms};
use crate::engine::{Ending, Hub};
use crate::model::State;
use crate::secrets::against;

/// The longest that an answer is held back.
const MAX_WAIT: Duration = Duration::from_secs(25);
/// Most bytes of a runner's name and address.
const MAX_NAME: usize = 253;

/// Why a runner is not registered.
#[derive(Debug)]
pub(crate) enum RegisterError {
    Invalid(&'static str),
    Store(StoreError),
}

impl From<StoreError> for RegisterError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A registered runner, with what it is to do.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) answer: Registered,
    /// For the callback's address.
    pub(crate) key: Option<String>,
    /// The runner is one of ours.
    pub(crate) is_ours: bool,
}

impl Hub {
    /// Registers a runner and gives it a task, now or within the time it waits.
    pub(crate) async fn register_pod(self: &Arc<Self>, said: Register) -> Result<Ready, RegisterError> {
        let too_long =
            |text: &str| text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control);
        if too_long(&said.pod_name) {
            return Err(RegisterError::Invalid("Missing pod_name"));
        }
        if too_long(&said.pod_ip) {
            return Err(RegisterError::Invalid("Missing pod_ip"));
        }
        let runner_id = self.upsert(&said).await?;
        self.settle_former(&said.pod_name).await?;
        let wait = said.wait_s.map(|s| Duration::from_secs(s).min(MAX_WAIT)).filter(|w| !w.is_zero());
        let until = wait.map(|wait| tokio::time::Instant::now() + wait);
        let mut wakes = self.pods.wake.subscribe();
        loop {
            wakes.borrow_and_update();
            if let Some((task, key)) = self.assign(&said.pod_name).await? {
                let answer = Registered {
                    runner_id: Some(runner_id),
                    task: Some(task),
                    callback_url: None,
                    // It is known by this that heartbeats are held back, too.
                    waited: until.is_some(),
                };
                return Ok(Ready { answer, key: Some(key), is_ours: said.version.is_some() });
            }
            let more = async {
                match until {
                    Some(until) => tokio::time::timeout_at(until, wakes.changed()).await.is_ok(),
                    None => false,
                }
            };
            if !more.await {
                let answer = Registered {
                    runner_id: Some(runner_id),
                    task: None,
                    callback_url: None,
                    waited: until.is_some(),
                };
                self.seen(&said.pod_name);
                return Ok(Ready { answer, key: None, is_ours: false });
            }
        }
    }

    fn seen(&self, name: &str) {
        if let Some(runner) = self.pods.lock().runners.get_mut(name) {
            runner.seen_ms = steady_ms();
        }
    }

    async fn upsert(&self, said: &Register) -> Result<i64, StoreError> {
        let version = said.version.clone().unwrap_or_default();
        {
            let mut live = self.pods.lock();
            if let Some(runner) = live.runners.get_mut(&said.pod_name) {
                runner.seen_ms = steady_ms();
                let same = runner.ip == said.pod_ip
                    && runner.version == version
                    && runner.capabilities == said.capabilities;
                if same {
                    return Ok(runner.id);
                }
            }
        }
        let row = PoolRunner {
            id: 0,
            name: said.pod_name.clone(),
            ip: said.pod_ip.clone(),
            version: version.clone(),
            capabilities: said.capabilities.clone(),
            seen_at_ms: now_ms(),
        };
        let id = self.store.keep_pool_runner(row).await?;
        let mut live = self.pods.lock();
        let runner = live.runners.entry(said.pod_name.clone()).or_insert_with(|| PodRunner {
            id,
            name: said.pod_name.clone(),
            ip: String::new(),
            version: String::new(),
            capabilities: Vec::new(),
            seen_ms: steady_ms(),
            task: None,
        });
        runner.ip.clone_from(&said.pod_ip);
        runner.version = version;
        runner.capabilities.clone_from(&said.capabilities);
        runner.seen_ms = steady_ms();
        Ok(id)
    }

    /// A runner that registers works on nothing: what it was given is done otherwise, or it
    /// never got it.
    async fn settle_former(self: &Arc<Self>, name: &str) -> Result<(), StoreError> {
        if name == NAMELESS {
            // Somebody else's, perhaps.
            return Ok(());
        }
        let former = {
            let live = self.pods.lock();
            live.runners.get(name).and_then(|runner| runner.task)
        };
        match former {
            Some(id) => self.give_up(id, "its runner was started anew").await,
            None => Ok(()),
        }
    }

    /// Takes a task from its runner: it goes to another one if it can have done nothing yet,
    /// else its end is unknown.
    pub(crate) async fn give_up(self: &Arc<Self>, id: u32, why: &str) -> Result<(), StoreError> {
        let (run_id, attempts) = {
            let mut live = self.pods.lock();
            let Some(task) = live.tasks.get_mut(&id).filter(|task| !task.closing) else { return Ok(()) };
            let attempts = if task.has_effects {
                Err(format!("{why} after the task had begun to act: its end is unknown"))
            } else if task.cancel {
                Err(String::new())
            } else if task.attempts >= if task.has_begun { MAX_ATTEMPTS } else { MAX_UNHEARD } {
                Err(format!("{why}, as the {} before it", task.attempts - 1))
            } else {
                // From here on the runner is not listened to: what it would tell now, the
                // next one would do again.
                task.old_keys.extend(task.key.take());
                Ok(task.attempts)
            };
            (task.run_id.clone(), attempts)
        };
        let attempts = match attempts {
            Ok(attempts) => attempts,
            Err(reason) if reason.is_empty() => {
                return self.finish_pod_task(id, Ending::new(State::Cancelled, None)).await;
            }
            Err(reason) => return self.finish_pod_task(id, Ending::new(State::Lost, Some(&reason))).await,
        };
        self.store.requeue(run_id).await?;
        tracing::info!(task = id, attempts, "a task goes back to the queue: {why}");
        let mut live = self.pods.lock();
        let live = &mut *live;
        if let Some(task) = live.tasks.get_mut(&id) {
            if let Some(runner) = task.runner.take().and_then(|name| live.runners.get_mut(&name)) {
                runner.task = None;
            }
            task.state = State::Queued;
            task.tell_state(State::Queued, &format!("queued again: {why}"));
            task.has_begun = false;
            task.last.clear();
        }
        self.pods.wake();
        Ok(())
    }

    /// Gives the oldest task that fits to a runner.
    async fn assign(&self, name: &str) -> Result<Option<(Assigned, String)>, StoreError> {
        let key = secret().map_err(|e| StoreError::new(e.to_string()))?;
        let hashed = hash(&key);
        let (id, before) = {
            let mut live = self.pods.lock();
            let live = &mut *live;
            let Some(runner) = live.runners.get_mut(name) else { return Ok(None) };
            // Two at once would each know half of what was said.
            let busy: Vec<String> = live
                .tasks
                .values()
                .filter(|task| task.state != State::Queued)
                .filter_map(|task| task.session_id.clone())
                .collect();
            let fits = |task: &&mut LiveTask| {
                task.state == State::Queued
                    && !task.closing
                    && !task.cancel
                    && !task.session_id.as_ref().is_some_and(|session| busy.contains(session))
                    && task.wanted.as_ref().is_none_or(|wanted| wanted == name)
                    && against(&task.bounds.runners, name).is_none()
                    && match runner.capabilities.is_empty() {
                        true => !task.needs_ours,
                        false => runner.capabilities.contains(&task.kind),
                    }
            };
            let Some((id, task)) = live.tasks.iter_mut().map(|(id, task)| (*id, task)).find(|(_, t)| fits(t))
            else {
                return Ok(None);
            };
            // Nobody else takes it from here on.
            task.state = State::Delivered;
            task.runner = Some(name.to_owned());
            task.key = Some(hashed.clone());
            task.attempts += 1;
            (task.heard_ms, task.given_ms) = (steady_ms(), steady_ms());
            runner.task = Some(id);
            let assigned = Assigned {
                id: TaskId::Number(i64::from(id)),
                kind: Some(task.kind.clone()),
                config: RawValue::NULL.to_owned(),
                session_id: task.session_id.clone(),
                secrets: std::collections::BTreeMap::new(),
                agent_token: None,
                persistence_url: None,
            };
            (id, (assigned, task.run_id.clone(), task.attempts, !runner.version.is_empty()))
        };
        let (mut assigned, run_id, attempts, is_ours) = before;
        // The original would not know what to do with it.
        let token = match (&assigned.session_id, is_ours) {
            (Some(_), true) => Some(secret().map_err(|e| StoreError::new(e.to_string()))?),
            _ => None,
        };
        let at_ms = now_ms();
        let session = assigned.session_id.clone().zip(token.as_deref().map(hash));
        let to = Assignment {
            runner: name.to_owned(),
            key: hashed,
            attempts,
            at_ms,
            session: session.map(|(session, token)| (token, session, at_ms + TOKEN_MS)),
        };
        // Kept on disk alone: a queue of large tasks costs no memory.
        let written = self.store.assign(run_id, to).await;
        let mut live = self.pods.lock();
        let live = &mut *live;
        let Some(task) = live.tasks.get_mut(&id) else { return Ok(None) };
        let config = match written {
            Ok(config) => config,
            Err(error) => {
                task.state = State::Queued;
                task.runner = None;
                task.key = None;
                if let Some(runner) = live.runners.get_mut(name) {
                    runner.task = None;
                }
                return Err(error);
            }
        };
        // It was JSON when it was taken.
        assigned.config = RawValue::from_string(config).unwrap_or_else(|_| RawValue::NULL.to_owned());
        task.tell_state(State::Delivered, &format!("given to {name}"));
        assigned.agent_token = token;
        Ok(Some((assigned, key)))
    }

    /// The same; the answer is held back, for at most so long, until there is something to end, or to
    /// hear that was not `seen`.
    pub(crate) async fn heartbeat_until(
        &self,
        name: &str,
        seen: Option<u64>,
        wait: Duration,
    ) -> (Vec<u32>, Vec<Value>) {
        let until = tokio::time::Instant::now() + wait.min(MAX_WAIT);
        let mut wakes = self.pods.wake.subscribe();
        loop {
            wakes.borrow_and_update();
            let cancel = self.heartbeat(name);
            let inputs = seen.map(|seen| self.inputs_for(name, seen)).unwrap_or_default();
            if !cancel.is_empty() || !inputs.is_empty() {
                return (cancel, inputs);
            }
            match tokio::time::timeout_at(until, wakes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return (Vec::new(), Vec::new()),
            }
        }
    }

    /// A runner is alive; what of its work is to be ended.
    pub(crate) fn heartbeat(&self, name: &str) -> Vec<u32> {
        let mut live = self.pods.lock();
        let live = &mut *live;
        let Some(runner) = live.runners.get_mut(name) else { return Vec::new() };
        runner.seen_ms = steady_ms();
        runner.task.filter(|id| live.tasks.get(id).is_some_and(|task| task.cancel)).into_iter().collect()
    }
}
