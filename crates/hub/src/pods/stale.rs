//! Task runners that nobody has heard of for long are forgotten: a pool's names come again, those of
//! pods never do.

use super::Live;
use crate::clock::steady_ms;
use crate::engine::Hub;

/// After so long a silence.
const FORGOTTEN_MS: u64 = 15 * 60_000;

/// Who is to be forgotten. `since`: from when on anybody could be heard.
fn silent(live: &Live, since: u64, now: u64) -> Vec<String> {
    let is_needed = |name: &str| {
        live.tasks
            .values()
            .any(|task| task.runner.as_deref() == Some(name) || task.wanted.as_deref() == Some(name))
    };
    let runners = live.runners.values().filter(|runner| {
        runner.task.is_none() && runner.seen_ms.max(since) + FORGOTTEN_MS < now && !is_needed(&runner.name)
    });
    runners.map(|runner| runner.name.clone()).collect()
}

impl Hub {
    /// Forgets them, here and on disk.
    pub(super) async fn forget_silent_runners(&self) {
        let names = {
            let mut live = self.pods.lock();
            let names = silent(&live, self.pods.opened_ms, steady_ms());
            for name in &names {
                live.runners.remove(name);
            }
            names
        };
        if names.is_empty() {
            return;
        }
        tracing::info!(runners = names.len(), "task runners that were silent for long are forgotten");
        if let Err(error) = self.store.forget_pool_runners(names).await {
            tracing::warn!("silent task runners can't be forgotten on disk: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::PodRunner;

    #[test]
    fn who_is_silent_for_long_is_forgotten() {
        let mut live = Live::default();
        for (name, seen_ms, task) in
            [("gone", 1_000, None), ("busy", 1_000, Some(7)), ("there", FORGOTTEN_MS + 2_000, None)]
        {
            let runner = PodRunner {
                id: 1,
                name: name.into(),
                ip: "x".into(),
                version: String::new(),
                capabilities: Vec::new(),
                seen_ms,
                task,
            };
            live.runners.insert(name.into(), runner);
        }
        let now = FORGOTTEN_MS + 5_000;
        assert_eq!(silent(&live, 0, now), ["gone"]);
        // A hub that was just started has heard of nobody yet.
        assert!(silent(&live, now - 1_000, now).is_empty());
    }
}
