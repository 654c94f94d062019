//! One runner on one host: commands go out, events and answers come in.

mod judge;
mod reader;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_base::digest::sha256;
use legwork_policy::Policy;
use legwork_proto::micro::{self as wire, Event, MAX_LINE, Message, Ready, kind, signed_text};
use serde_json::value::RawValue;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::transport::{Guard, Transport};
use crate::{Binaries, Call, Command, Error};
use reader::{Shared, Waiting};

/// Added to a command's time, before its answer is given up (§9).
const GRACE: Duration = Duration::from_secs(15);
/// Until a runner must have greeted (§8).
const STARTUP: Duration = Duration::from_secs(10);
/// The longest life that a runner accepts.
const MAX_TTL: Duration = Duration::from_secs(365 * 86_400);
/// How long a runner has to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// Events that wait for their reader; more, and the runner waits.
const EVENTS: usize = 1024;

/// Signs what a command says (§9), with an Ed25519 key that the runner knows.
pub type Signer = Arc<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// How a runner is started and spoken to.
#[derive(Clone, Default)]
pub struct Options {
    /// The life of the runner [default: 10 min].
    pub ttl: Option<Duration>,
    /// Until it must have greeted, once it is on the host [default: 10 s].
    pub startup: Option<Duration>,
    /// The only command types that it is to take [default: all].
    pub allow: Vec<wire::CommandType>,
    /// Signs each command.
    pub signer: Option<Signer>,
    /// Judges each `exec` before it is sent.
    pub policy: Option<Arc<Policy>>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("ttl", &self.ttl).field("allow", &self.allow).finish_non_exhaustive()
    }
}

impl Options {
    fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        if let Some(ttl) = self.ttl {
            flags.extend(["--ttl".to_owned(), format!("{}s", ttl.min(MAX_TTL).as_secs().max(1))]);
        }
        if !self.allow.is_empty() {
            let names: Vec<&str> = self.allow.iter().map(|kind| kind.name()).collect();
            flags.extend(["--allow".to_owned(), names.join(",")]);
        }
        flags
    }

    /// Whether a runner keeps to what it was told: one of another make ignores its flags.
    fn check(&self, ready: &Ready) -> Result<(), Error> {
        if self.allow.is_empty() {
            return Ok(());
        }
        let more = wire::CommandType::ALL.into_iter().find(|kind| {
            !self.allow.contains(kind) && ready.capabilities.get(kind.name()).is_none_or(|can| *can)
        });
        more.map_or(Ok(()), |kind| {
            Err(Error::NotReady(format!(
                "the runner takes {} all the same: it does not know --allow",
                kind.name()
            )))
        })
    }
}

/// A runner that is up.
pub struct Client {
    ready: Ready,
    options: Options,
    shared: Arc<Shared>,
    writer: tokio::sync::Mutex<Option<Box<dyn AsyncWrite + Send + Unpin>>>,
    reader: Mutex<Option<JoinHandle<()>>>,
    /// When all that was sent must be answered.
    busy_until: Mutex<Instant>,
    next: AtomicU64,
    guard: Mutex<Option<Guard>>,
    stays: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("ready", &self.ready).finish_non_exhaustive()
    }
}

impl Client {
    /// Puts a runner on a host, starts it and waits for its greeting.
    pub async fn start(
        transport: &dyn Transport,
        binaries: &Binaries,
        options: Options,
    ) -> Result<Self, Error> {
        let mut link = transport.start(binaries, &options.flags()).await?;
        let stdout = std::mem::replace(&mut link.stdout, Box::new(tokio::io::empty()));
        let mut lines = reader::Lines::new(std::mem::take(&mut link.early), stdout);
        let greeting = tokio::time::timeout(options.startup.unwrap_or(STARTUP), reader::greeting(&mut lines));
        let ready = match greeting.await {
            Err(_) => return Err(Error::ReadyTimeout),
            Ok(Ok(ready)) => ready,
            Ok(Err(Error::NotReady(why))) => {
                let said = link.last_words().await;
                return Err(Error::NotReady(
                    said.map_or_else(|| why.clone(), |said| format!("{why}: {said}")),
                ));
            }
            Ok(Err(error)) => return Err(error),
        };
        options.check(&ready)?;
        let shared = Arc::new(Shared::default());
        let reader = tokio::spawn(reader::run(lines, Arc::clone(&shared)));
        Ok(Self {
            ready,
            options,
            shared,
            writer: tokio::sync::Mutex::new(Some(link.stdin)),
            reader: Mutex::new(Some(reader)),
            busy_until: Mutex::new(Instant::now()),
            next: AtomicU64::new(1),
            guard: Mutex::new(link.guard),
            stays: link.stays,
        })
    }

    /// What the runner said of itself.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Runs a command to its end; its events are dropped.
    pub async fn run<C: Command>(&self, command: &C, call: Call) -> Result<C::Result, Error> {
        let mut left = call.retries;
        loop {
            let result = match self.dispatch(command, &call, None).await {
                Ok(pending) => pending.result().await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if left > 0 && error.retry_after().is_some() => {
                    left -= 1;
                    tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
                }
                result => return result,
            }
        }
    }

    /// Sends a command; it runs once those sent before it have ended. Read its events, or
    /// the runner will wait for you.
    pub async fn send<C: Command>(&self, command: &C, call: Call) -> Result<Pending<'_, C>, Error> {
        let (sender, events) = mpsc::channel(EVENTS);
        let mut pending = self.dispatch(command, &call, Some(sender)).await?;
        pending.events = Some(events);
        Ok(pending)
    }

    async fn dispatch<C: Command>(
        &self,
        command: &C,
        call: &Call,
        events: Option<mpsc::Sender<Event>>,
    ) -> Result<Pending<'_, C>, Error> {
        // What a runner does not know it would ignore, and do something else.
        let mut needs = command.needs();
        needs.extend(call.key.is_some().then_some("idempotency"));
        needs.extend(self.options.signer.is_some().then_some("signature"));
        if let Some(feature) = needs.into_iter().find(|feature| !self.ready.has(feature)) {
            return Err(Error::InvalidCommand(format!("the runner does not offer {feature}")));
        }
        let judged = match (&self.options.policy, command.as_exec()) {
            (Some(policy), Some(exec)) => Some(judge::judge(policy, exec)?),
            _ => None,
        };
        let params = match &judged {
            Some(exec) => serde_json::value::to_raw_value(exec),
            None => serde_json::value::to_raw_value(command),
        };
        let params = params.map_err(|error| Error::InvalidCommand(error.to_string()))?;
        let id = format!("c{}", self.next.fetch_add(1, Ordering::Relaxed));
        let line = self.line(&id, C::KIND.name(), call, &params)?;
        let (sender, answer) = oneshot::channel();
        let mut writer = self.writer.lock().await;
        let to = writer.as_mut().ok_or(Error::Closed)?;
        self.shared.wait_for(Waiting { id: id.clone(), events, answer: sender })?;
        let deadline = {
            let mut busy = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
            *busy = (*busy).max(Instant::now()) + Duration::from_secs(call.seconds());
            *busy + GRACE
        };
        let sent = async {
            to.write_all(&line).await?;
            to.flush().await
        };
        if let Err(error) = sent.await {
            self.shared.fail(&Error::Send(error.to_string()));
        }
        Ok(Pending { client: self, id, answer, events: None, deadline, command: PhantomData })
    }

    /// Sends more input to the command that runs with `stdin`; with `end`, the last of it. It
    /// may wait for as long as the command does not read: go on reading its events meanwhile.
    /// Not to be dropped halfway: half a line would be on its way.
    ///
    /// # Errors
    ///
    /// If the runner takes no more.
    pub async fn feed(&self, id: &str, bytes: &[u8], end: bool) -> Result<(), Error> {
        let params = format!("{{\"input_base64\":\"{}\",\"input_end\":{end}}}", STANDARD.encode(bytes));
        let params =
            RawValue::from_string(params).map_err(|error| Error::InvalidCommand(error.to_string()))?;
        let call = Call::within(Duration::from_secs(1));
        let line = self.line(id, wire::CommandType::Exec.name(), &call, &params)?;
        let mut writer = self.writer.lock().await;
        let to = writer.as_mut().ok_or(Error::Closed)?;
        let sent = async {
            to.write_all(&line).await?;
            to.flush().await
        };
        sent.await.map_err(|error| Error::Send(error.to_string()))
    }

    fn line(&self, id: &str, kind: &str, call: &Call, params: &RawValue) -> Result<Vec<u8>, Error> {
        let timeout = call.seconds();
        let signature = self.options.signer.as_ref().map(|sign| {
            let digest = sha256(params.get());
            STANDARD.encode(sign(signed_text(id, kind, timeout, &digest).as_bytes()))
        });
        let data = wire::Command {
            id,
            kind,
            timeout,
            params,
            idempotency_key: call.key.as_deref(),
            signature: signature.as_deref(),
        };
        let message = Message { kind: kind::CMD.to_owned(), timestamp: None, data };
        let mut line =
            serde_json::to_vec(&message).map_err(|error| Error::InvalidCommand(error.to_string()))?;
        line.push(b'\n');
        if line.len() >= MAX_LINE {
            let (has, most) = (line.len(), MAX_LINE);
            return Err(Error::InvalidCommand(format!(
                "its line has {has} bytes, and must stay below {most}"
            )));
        }
        Ok(line)
    }

    /// Closes the runner's input and ends the connection; waits a moment for the goodbye of
    /// a runner that deletes itself.
    /// Commands that are still waiting are answered with an error.
    pub async fn close(&self) {
        self.writer.lock().await.take();
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            let abort = reader.abort_handle();
            if self.stays || tokio::time::timeout(GOODBYE, reader).await.is_err() {
                abort.abort();
            }
        }
        self.break_off();
    }

    /// Ends the connection at once.
    fn break_off(&self) {
        self.shared.fail(&Error::Closed);
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
            reader.abort();
        }
    }
}

/// A command that was sent.
#[derive(Debug)]
pub struct Pending<'a, C: Command> {
    client: &'a Client,
    id: String,
    answer: oneshot::Receiver<Result<Box<RawValue>, Error>>,
    events: Option<mpsc::Receiver<Event>>,
    deadline: Instant,
    command: PhantomData<fn() -> C>,
}

impl<C: Command> Pending<'_, C> {
    /// Its name, for [`Client::feed`].
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next event; `None` once the answer is there.
    pub async fn next_event(&mut self) -> Option<Event> {
        let events = self.events.as_mut()?;
        tokio::time::timeout_at(self.deadline, events.recv()).await.ok().flatten()
    }

    /// The answer. Events that were not read are dropped.
    pub async fn result(mut self) -> Result<C::Result, Error> {
        self.events = None;
        match tokio::time::timeout_at(self.deadline, &mut self.answer).await {
            Ok(Ok(Ok(result))) => serde_json::from_str(result.get())
                .map_err(|error| Error::Read(format!("bad result: {error}"))),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => {
                self.client.break_off();
                Err(Error::ResponseTimeout)
            }
        }
    }
}
