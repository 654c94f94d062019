//! Following a task's events to their end, over any number of broken connections.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::StreamExt;
use serde_json::json;

use super::serve::terminated;
use crate::client::{Client, Refused};
use crate::sse::{Event, Parser};
use crate::{exit, output};

/// Pause before a broken event stream is opened again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a hub may say nothing; it says something every few seconds.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a hub may be away.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows events.
pub(super) trait Show {
    fn event(&mut self, event: &Event) -> Result<()>;
    /// The last one.
    fn end(&mut self, _: &Event) {}
}

/// Shows the events of a task (`/tasks/ID`, `/pods/tasks/ID`).
pub(super) async fn follow(client: &Client, task: &str, show: &mut impl Show, wait: bool) -> Result<()> {
    let mut last: Option<String> = None;
    let mut heard: Option<Instant> = None;
    loop {
        let opened = tokio::time::timeout(SILENCE, client.events(task, last.as_deref(), wait)).await;
        let opened =
            opened.unwrap_or_else(|_| Err(anyhow::anyhow!("the hub at {} does not answer", client.base())));
        let failed = match opened {
            Ok(response) => {
                // What it says counts, not that it lets us in: it may close the stream each time.
                heard.get_or_insert_with(Instant::now);
                let mut parser = Parser::default();
                let mut stream = response.bytes_stream();
                while let Ok(Some(Ok(bytes))) = tokio::time::timeout(SILENCE, stream.next()).await {
                    heard = Some(Instant::now());
                    for event in parser.feed(&bytes) {
                        if !event.id.is_empty() {
                            last = Some(event.id.clone());
                        }
                        if event.kind == "end" {
                            show.end(&event);
                            return Ok(());
                        }
                        show.event(&event)?;
                    }
                }
                if !wait {
                    return Ok(());
                }
                anyhow::anyhow!("the hub at {} closed the stream, or fell silent", client.base())
            }
            // It answered, and will not answer otherwise.
            Err(error) if error.downcast_ref::<Refused>().is_some_and(Refused::is_final) => {
                return Err(error);
            }
            Err(error) => error,
        };
        // The first failure is the answer; later ones are an outage.
        if heard.is_none_or(|heard| heard.elapsed() > PATIENCE) {
            let id = task.rsplit('/').next().unwrap_or_default();
            return Err(failed).with_context(|| format!("{id} is not followed any more; it goes on"));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// How following a task came to its end.
pub(super) enum Followed {
    /// The task is over.
    Over,
    /// It is over as it was cancelled for a signal: the status that stands for that.
    Cancelled(u8),
    /// It was left: the status to exit with.
    Left(u8),
}

/// Follows a task. A signal cancels it, a second one leaves it; where nobody reads any more,
/// it is cancelled as well.
pub(super) async fn follow_or_cancel(client: &Client, task: &str, show: &mut impl Show) -> Result<Followed> {
    let id = task.rsplit('/').next().unwrap_or_default();
    let cancel = format!("{task}/cancel");
    let following = follow(client, task, show, true);
    tokio::pin!(following);
    let status = tokio::select! {
        result = &mut following => return result.map(|()| Followed::Over),
        () = output::reader_gone() => {
            client.post(&cancel, &json!({})).await?;
            return Ok(Followed::Left(exit::PIPE));
        }
        status = terminated() => status?,
    };
    eprintln!("legwork: cancelling {id}; the same signal again leaves it");
    client.post(&cancel, &json!({})).await?;
    tokio::select! {
        result = &mut following => result.map(|()| Followed::Cancelled(status)),
        status = terminated() => {
            eprintln!("legwork: left {id}");
            Ok(Followed::Left(status?))
        }
    }
}
