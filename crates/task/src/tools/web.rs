//! `web_fetch`: by the same rules as everything that is run.

use std::sync::Arc;
use std::time::Duration;

use legwork_runner::{Cancel, Done, Fetch, Operation};

use super::{Answer, Bench, Input};

const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn fetch(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let url = input.needed("url")?.to_owned();
    let format = match input.text("format")?.unwrap_or("markdown") {
        format @ ("markdown" | "text" | "html") => format.to_owned(),
        other => return Err(format!("format: '{other}' is none of markdown, text, html")),
    };
    let runner = bench.hands.runner().await?;
    let cancel = Arc::new(Cancel::default());
    let operation = Operation::Fetch(Fetch { url: url.clone(), format, timeout: TIMEOUT });
    let fetching = runner.perform(operation, bench.requester, cancel.clone());
    let done = tokio::select! {
        done = fetching => done,
        _ = bench.abort.wished() => {
            cancel.cancel();
            return Err("the task was aborted while the page was fetched".into());
        }
    };
    match done.map_err(|failure| failure.to_string())? {
        Done::Fetch { content, url: last } => {
            let moved = if last == url { String::new() } else { format!("(from {last})\n\n") };
            Ok(Answer::ok(format!("{moved}{}", content.text)))
        }
        _ => Err("no page came".into()),
    }
}
