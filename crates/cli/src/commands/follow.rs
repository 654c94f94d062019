//! Following a task's events to their end, over any number of broken connections.

use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use serde_json::json;

use crate::client::Client;
use crate::sse::{Event, Parser};

/// Pause before a broken event stream is opened again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a hub may be away.
const PATIENCE: u32 = 240;

/// Shows events.
pub(super) trait Show {
    fn event(&mut self, event: &Event) -> Result<()>;
    /// The last one.
    fn end(&mut self, _: &Event) {}
}

/// Shows the events of a task (`/tasks/ID`, `/pods/tasks/ID`).
pub(super) async fn follow(client: &Client, task: &str, show: &mut impl Show, wait: bool) -> Result<()> {
    let mut last: Option<String> = None;
    let mut failures = 0;
    loop {
        let opened = client.events(task, last.as_deref(), wait).await;
        let mut stream = match opened {
            Ok(response) => response.bytes_stream(),
            Err(error) => {
                failures += 1;
                // The first failure is the answer; later ones are an outage.
                if last.is_none() && failures == 1 || failures > PATIENCE {
                    return Err(error);
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let mut parser = Parser::default();
        while let Some(bytes) = stream.next().await {
            let Ok(bytes) = bytes else { break };
            failures = 0;
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
        failures += 1;
        tokio::time::sleep(RETRY).await;
    }
}

/// Follows a task; Ctrl-C cancels it, a second one leaves it (then false).
pub(super) async fn follow_or_cancel(client: &Client, task: &str, show: &mut impl Show) -> Result<bool> {
    let id = task.rsplit('/').next().unwrap_or_default();
    let following = follow(client, task, show, true);
    tokio::pin!(following);
    tokio::select! {
        result = &mut following => result?,
        result = tokio::signal::ctrl_c() => {
            result?;
            eprintln!("legwork: cancelling {id}; Ctrl-C again to leave it");
            client.post(&format!("{task}/cancel"), &json!({})).await?;
            tokio::select! {
                result = &mut following => result?,
                result = tokio::signal::ctrl_c() => {
                    result?;
                    eprintln!("legwork: left {id}");
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}
