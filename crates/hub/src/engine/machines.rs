//! What people decide about runners: labels, a name to show, no new work, removal.

use std::sync::Arc;

use legwork_api::RunnerChange;
use legwork_store::{StoreError, done};

use super::{Ending, Hub};
use crate::fleet::Runner;
use crate::model::Role;
use crate::session::{MAX_LABEL, MAX_LABELS};

const MAX_DISPLAY_NAME: usize = 200;

/// Says which field of a change is wrong, and why.
pub(crate) fn check(change: &RunnerChange) -> Result<(), (&'static str, String)> {
    let is_text = |text: &str| !text.chars().any(char::is_control);
    if let Some(labels) = &change.labels {
        if labels.len() > MAX_LABELS {
            return Err(("labels", format!("must be at most {MAX_LABELS}")));
        }
        if labels.iter().any(|l| l.trim().is_empty() || l.len() > MAX_LABEL || !is_text(l)) {
            return Err((
                "labels",
                format!("each must be 1 to {MAX_LABEL} bytes without control characters"),
            ));
        }
    }
    match &change.display_name {
        Some(name) if name.len() > MAX_DISPLAY_NAME || !is_text(name) => Err((
            "display_name",
            format!("must be at most {MAX_DISPLAY_NAME} bytes without control characters"),
        )),
        _ => Ok(()),
    }
}

impl Hub {
    /// Changes a runner; `None` if it is gone.
    pub(crate) async fn change_runner(
        self: &Arc<Self>,
        id: &str,
        change: RunnerChange,
    ) -> Result<Option<Runner>, StoreError> {
        let changed = self.fleet.lock().change(id, |runner| {
            if let Some(mut labels) = change.labels {
                labels.dedup();
                runner.set_labels = labels;
                runner.join_labels();
            }
            if let Some(name) = change.display_name {
                runner.display_name = Some(name).filter(|name| !name.trim().is_empty());
            }
            runner.drained = change.drained.unwrap_or(runner.drained);
            runner.clone()
        });
        let Some(runner) = changed else { return Ok(None) };
        done(|then| self.store.keep_runner(runner.row(), then)).await?;
        Ok(Some(runner))
    }

    /// Forgets a runner, and ends what it has.
    pub(crate) async fn remove_runner(self: &Arc<Self>, id: &str) -> Result<(), StoreError> {
        let why = "its runner was removed";
        let own_token = self
            .auth
            .list()
            .into_iter()
            .find(|t| t.role == Role::Runner && t.runner_id.as_deref() == Some(id));
        if let Some(token) = own_token {
            self.revoke_token(&token.id).await?;
        }
        let runs: Vec<(String, bool)> = {
            let mut fleet = self.fleet.lock();
            fleet.change(id, |runner| {
                runner.drained = true;
                runner.link = None;
            });
            let open = fleet.runners.get(id).map(|runner| runner.open.clone()).unwrap_or_default();
            let live = open.into_iter().filter_map(|run| fleet.runs.get(&run).map(|r| (run, r)));
            live.map(|(id, run)| (id, run.is_here())).collect()
        };
        for (run, waits) in runs {
            let ending = if waits { Ending::cancelled_because(why) } else { Ending::lost(why) };
            self.finish(&run, ending, None).await;
        }
        self.store.forget_runner(id.to_owned()).await?;
        self.fleet.lock().remove_runner(id);
        Ok(())
    }
}
