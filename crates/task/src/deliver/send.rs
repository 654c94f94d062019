//! The sender: one request after the other, retried by the protocol's rules.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use legwork_net::cause;
use legwork_proto::task::{Body, Event};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cursor::{Cursor, Store};
use super::spool::{Record, Spool, joins};

/// Further attempts for events of these kinds.
const CRITICAL_RETRIES: u32 = 10;
const RETRIES: u32 = 5;
/// Most text of one token event.
const MAX_TEXT: usize = 64 * 1024;
const FIRST_DELAY: f64 = 0.5;
const MAX_DELAY: f64 = 30.0;

/// Where events go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    /// Headers with the credentials of each request.
    pub(crate) headers: HeaderMap,
    pub(crate) batch: Duration,
}

/// What is known of the other end, for the one who waits for the delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// A terminal event was answered with 200.
    pub(crate) terminal_delivered: bool,
    /// The hub wants the task ended.
    pub(crate) cancel: bool,
}

pub(crate) struct Sender {
    target: Target,
    spool: Arc<Spool>,
    store: Store,
    cursor: Cursor,
    route: watch::Sender<Route>,
}

/// What came of a request.
enum Answer {
    Taken,
    /// Worth another attempt, after so long if the server said so.
    Again {
        counts: bool,
        after: Option<Duration>,
        why: String,
    },
    Refused(String),
}

impl Sender {
    /// Opens the spool of a task in `dir`, with what an earlier process left in it.
    pub(crate) fn open(dir: &Path, target: Target, most: u64) -> std::io::Result<(Self, Arc<Spool>)> {
        let (store, mut cursor) = Store::open(&dir.join("cursor"))?;
        let spool = Arc::new(Spool::open(&dir.join("events"), cursor.sent, most)?);
        if spool.position() != cursor.sent {
            // The spool was emptied, and the note of it got lost.
            (cursor.sent, cursor.ahead) = (spool.position(), spool.position());
        }
        let route = Route { terminal_delivered: cursor.is_over, cancel: false };
        let sender = Self { target, spool: spool.clone(), store, cursor, route: watch::Sender::new(route) };
        Ok((sender, spool))
    }

    /// Tells what is known of the other end.
    pub(crate) fn route(&self) -> watch::Receiver<Route> {
        self.route.subscribe()
    }

    /// Sends until the spool is closed and empty.
    pub(crate) async fn run(mut self) {
        while self.spool.wait().await {
            if !self.target.batch.is_zero() && self.cursor.ahead <= self.cursor.sent {
                tokio::time::sleep(self.target.batch).await;
            }
            let Some((event, end)) = self.next() else { continue };
            self.deliver(&event).await;
            if end > 0 {
                self.cursor.sent = self.spool.sent(end);
                self.cursor.ahead = self.cursor.sent;
                // What comes next is noted together with what was sent.
                if self.cursor.sent == 0 || self.spool.is_empty() {
                    self.save();
                }
            }
        }
        self.save();
    }

    fn save(&self) {
        if let Err(error) = self.store.save(&self.cursor) {
            tracing::warn!(error = %error, "the place in the spool of events can't be noted");
        }
    }

    /// The next event to send: tokens that wait one after the other make one.
    fn next(&mut self) -> Option<(Event, u64)> {
        let Record { mut event, mut end } = self.spool.take()?;
        // After a crash the very same events make the request again.
        let repeated = self.cursor.ahead > self.cursor.sent;
        let ahead = self.cursor.ahead;
        while let Body::Token { text, .. } = &event.body {
            let len = text.len();
            let more = self.spool.take_if(|record| {
                let within = if repeated { record.end != 0 && record.end <= ahead } else { len < MAX_TEXT };
                within && joins(&event, &record.event)
            });
            let Some(more) = more else { break };
            if let (Body::Token { text, .. }, Body::Token { text: added, .. }) =
                (&mut event.body, more.event.body)
            {
                text.push_str(&added);
            }
            end = end.max(more.end);
        }
        if let Body::Token { message_id, token_index, .. } = &mut event.body {
            if self.cursor.message != *message_id {
                self.cursor.message.clone_from(message_id);
                self.cursor.next_index = 0;
            }
            *token_index =
                if repeated { self.cursor.next_index.saturating_sub(1) } else { self.cursor.next_index };
            self.cursor.next_index = *token_index + 1;
        }
        if end > 0 {
            self.cursor.ahead = end;
            self.save();
        }
        Some((event, end))
    }

    async fn deliver(&mut self, event: &Event) {
        let Ok(body) = serde_json::to_vec(event) else { return };
        let body = bytes::Bytes::from(body);
        let most = if event.body.is_critical() { CRITICAL_RETRIES } else { RETRIES };
        let (mut tries, mut failures) = (0u32, 0u32);
        let mut told = None::<Instant>;
        loop {
            match self.post(body.clone()).await {
                Answer::Taken => {
                    if event.body.is_terminal() {
                        self.cursor.is_over = true;
                        self.route.send_modify(|route| route.terminal_delivered = true);
                    }
                    if told.is_some() {
                        tracing::info!(failures, "the callback takes events again");
                    }
                    return;
                }
                Answer::Refused(why) => {
                    tracing::error!(error = %why, event = kind(event), "the callback refused an event: dropped");
                    return;
                }
                Answer::Again { counts, after, why } => {
                    if counts && tries >= most && !event.body.is_critical() {
                        tracing::error!(error = %why, event = kind(event), "no answer to an event: dropped");
                        return;
                    }
                    // Once a minute is enough for who reads along.
                    if told.is_none_or(|at| at.elapsed() > Duration::from_secs(60)) {
                        tracing::warn!(error = %why, event = kind(event), attempt = failures + 1, "an event could not be delivered: retrying");
                        told = Some(Instant::now());
                    }
                    tokio::time::sleep(after.unwrap_or_else(|| delay(failures))).await;
                    failures += 1;
                    tries += u32::from(counts);
                }
            }
        }
    }

    async fn post(&self, body: bytes::Bytes) -> Answer {
        let request = self
            .target
            .http
            .post(&self.target.url)
            .headers(self.target.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => return Answer::Refused(cause(&error)),
            Err(error) => {
                return Answer::Again { counts: !error.is_connect(), after: None, why: cause(&error) };
            }
        };
        let status = response.status();
        let after = retry_after(response.headers());
        // An answer is read for the connection's sake, and for a word of a hub of ours.
        let text = body_of(response).await;
        if status == StatusCode::OK {
            if text.as_deref().is_some_and(|t| t.contains("\"cancel\":true")) {
                self.route.send_modify(|route| route.cancel = true);
            }
            return Answer::Taken;
        }
        let why = format!("the callback answered {status}");
        let again = status.is_server_error()
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            );
        if again { Answer::Again { counts: true, after, why } } else { Answer::Refused(why) }
    }
}

/// A short answer's text; a long one is left.
async fn body_of(mut response: reqwest::Response) -> Option<String> {
    const MOST: usize = 16 * 1024;
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        text.extend_from_slice(&chunk);
        if text.len() > MOST {
            return None;
        }
    }
    String::from_utf8(text).ok()
}

/// `Retry-After` in seconds; a server can't make us wait for ever.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(300.0)))
}

/// `min(0.5 × 2^n, 30)` s and up to a quarter more.
pub(crate) fn delay(failures: u32) -> Duration {
    let base = (FIRST_DELAY * 2f64.powi(failures.min(16).cast_signed())).min(MAX_DELAY);
    Duration::from_secs_f64(base * (1.0 + 0.25 * crate::random::fraction()))
}

fn kind(event: &Event) -> String {
    serde_json::to_value(&event.body)
        .ok()
        .and_then(|v| v["type"].as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_the_protocols() {
        for (n, base) in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0].into_iter().enumerate() {
            let delay = delay(u32::try_from(n).expect("small")).as_secs_f64();
            assert!((base..=base * 1.25).contains(&delay), "{n}: {delay}");
        }
    }
}
