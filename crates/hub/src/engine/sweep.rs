//! What time overtakes. All of it is counted by a clock that can't jump.

use std::sync::Arc;
use std::time::Duration;

use super::{Ending, Hub};
use crate::auth::is_expired;
use crate::clock::Instant;
use crate::fleet::{FleetState, LiveRun, Runner};
use crate::model::{Role, State};

const SWEEP: Duration = Duration::from_secs(1);
/// How long a runner may take to answer a cancel, after its last word on that run; less where
/// the grace is less.
const CANCEL_ANSWER: Duration = Duration::from_secs(30);
/// How often old tasks are looked for.
const RETENTION: Duration = Duration::from_secs(60);

impl Hub {
    pub(super) async fn sweep(self: Arc<Self>) {
        let mut next_retention = Instant::now();
        loop {
            tokio::time::sleep(SWEEP).await;
            self.tick().await;
            self.take_tokens_in().await;
            if next_retention <= Instant::now() {
                next_retention = Instant::now() + RETENTION;
                self.forget_old().await;
                self.forget_pieces().await;
                self.forget_old_sessions().await;
            }
        }
    }

    /// What a second does.
    pub(crate) async fn tick(self: &Arc<Self>) {
        let over: Vec<(String, Ending)> = {
            let fleet = self.fleet.lock();
            let open = fleet.runs.values().filter(|run| !run.closing);
            open.filter_map(|run| Some((run.id.clone(), self.overtaken(&fleet, run)?))).collect()
        };
        for (run_id, ending) in over {
            self.finish(&run_id, ending, None).await;
        }
        self.catch_up();
        self.deliver_again();
        self.let_go().await;
        self.end_expired_credentials().await;
        self.sweep_pods().await;
    }

    /// How a run ends for which it is too late.
    fn overtaken(&self, fleet: &FleetState, run: &LiveRun) -> Option<Ending> {
        if run.is_here() {
            // The store could not note it when it was asked for.
            if run.cancel_requested.is_some() {
                return Some(Ending::cancelled());
            }
            let late = run.approval.as_ref().filter(|approval| approval.until <= Instant::now());
            return match (run.state, late) {
                (State::Held, _) if run.approval.is_none() => {
                    Some(Ending::lost("the question that it waits for is gone from the hub's store"))
                }
                (State::Held, late) => late.map(|_| Ending::unanswered(self.settings.approval_wait)),
                (_, Some(yes)) if yes.given => Some(Ending::yes_too_old()),
                _ => (run.task.expires <= Instant::now()).then(Ending::expired),
            };
        }
        if let Some(asked) = run.cancel_requested
            && asked.max(run.heard).elapsed() > CANCEL_ANSWER.min(self.settings.grace)
        {
            return Some(Ending::cancelled_unanswered());
        }
        let grace = self.settings.grace;
        let Some(runner) = fleet.runners.get(&run.runner_id) else {
            return Some(Ending::lost("its runner is not known any more"));
        };
        if runner.link.is_none() && runner.offline_since.elapsed() > grace {
            return Some(Ending::given_up("its runner did not come back in time"));
        }
        let limit = deadline(fleet, run, runner, grace)?;
        (limit <= Instant::now()).then(|| {
            let text = format!(
                "nothing was heard of its end within its time limit of {} s and {} s more",
                run.task.timeout_s,
                grace.as_secs()
            );
            Ending::given_up(&text)
        })
    }

    async fn end_expired_credentials(self: &Arc<Self>) {
        let expired: Vec<String> = {
            let tokens = self.auth.list_expiring();
            let is_runners = |role: Role| matches!(role, Role::Runner | Role::Fleet);
            tokens.into_iter().filter(|t| is_runners(t.role) && is_expired(t)).map(|t| t.id).collect()
        };
        for id in expired {
            let lives = {
                let fleet = self.fleet.lock();
                fleet.runners.values().any(|runner| runner.token_id == id && !runner.revoked)
            };
            if lives {
                self.give_up_runners_of(&id, "its runner's credential has expired").await;
            }
        }
    }
}

/// Until when a run that was handed over must have ended, whatever its runner says.
fn deadline(fleet: &FleetState, run: &LiveRun, runner: &Runner, grace: Duration) -> Option<Instant> {
    let own = Duration::from_secs(run.task.timeout_s);
    let first = run.delivered.checked_add(own + grace)?;
    // An original starts everything at once.
    if !runner.acks || first > Instant::now() {
        return Some(first);
    }
    // Ours has so many slots: what waits for one has its time when those before it had theirs.
    let longest = runner
        .open
        .iter()
        .filter_map(|id| fleet.runs.get(id))
        .map(|run| run.task.timeout_s)
        .max()
        .map_or(own, Duration::from_secs);
    let since = run.delivered.max(runner.last_end.unwrap_or(run.delivered));
    since.checked_add(longest + grace)
}
