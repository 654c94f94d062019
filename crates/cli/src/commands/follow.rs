//! Following a task's events to their end, over any number of broken connections.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use legwork_api::{
    CancelPodTask, CancelTask, Client, ClientError, Event, Follow, NoQuery, Operation, PodTaskEvents,
    PodTaskId, TaskEvents, TaskId,
};

use super::serve::terminated;
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

/// What has events and can be cancelled, by its id.
pub(super) trait Subject: Display + Sized {
    type Events: Operation<Id = Self, Query = Follow, Body = ()>;
    type Cancel: Operation<Id = Self, Query = NoQuery, Body = ()>;
}

impl Subject for TaskId {
    type Events = TaskEvents;
    type Cancel = CancelTask;
}

impl Subject for PodTaskId {
    type Events = PodTaskEvents;
    type Cancel = CancelPodTask;
}

/// Shows the events of a task.
pub(super) async fn follow<S: Subject>(
    client: &Client,
    task: &S,
    show: &mut impl Show,
    wait: bool,
) -> Result<()> {
    let mut last: Option<String> = None;
    let mut heard: Option<Instant> = None;
    let query = Follow { follow: Some(wait) };
    loop {
        let opened = client.events::<S::Events>(task, &query, last.as_deref());
        let failed = match tokio::time::timeout(SILENCE, opened).await {
            Ok(Ok(mut events)) => {
                // What it says counts, not that it lets us in: it may close the stream each time.
                heard.get_or_insert_with(Instant::now);
                while let Ok(Some(came)) = tokio::time::timeout(SILENCE, events.next()).await {
                    heard = Some(Instant::now());
                    for event in came {
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
            Ok(Err(error)) if ClientError::is_final(&error) => return Err(error.into()),
            Ok(Err(error)) => error.into(),
            Err(_) => anyhow::anyhow!("the hub at {} does not answer", client.base()),
        };
        // The first failure is the answer; later ones are an outage.
        if heard.is_none_or(|heard| heard.elapsed() > PATIENCE) {
            return Err(failed).with_context(|| format!("{task} is not followed any more; it goes on"));
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
pub(super) async fn follow_or_cancel<S: Subject>(
    client: &Client,
    task: &S,
    show: &mut impl Show,
) -> Result<Followed> {
    let following = follow(client, task, show, true);
    tokio::pin!(following);
    let status = tokio::select! {
        result = &mut following => return result.map(|()| Followed::Over),
        () = output::reader_gone() => {
            client.ask::<S::Cancel>(task).await?;
            return Ok(Followed::Left(exit::PIPE));
        }
        status = terminated() => status?,
    };
    eprintln!("legwork: cancelling {task}; the same signal again leaves it");
    client.ask::<S::Cancel>(task).await?;
    tokio::select! {
        result = &mut following => result.map(|()| Followed::Cancelled(status)),
        status = terminated() => {
            eprintln!("legwork: left {task}");
            Ok(Followed::Left(status?))
        }
    }
}
