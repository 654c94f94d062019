//! Many hosts, so many at once; each gets a result, also one that was never tried.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use tokio::task::JoinSet;

/// Hosts at once, unless told otherwise.
const CONCURRENCY: usize = 16;

/// How work is spread over hosts.
#[derive(Debug, Clone)]
pub struct Pool {
    concurrency: NonZeroUsize,
    max_failures: Option<usize>,
    waves: Vec<usize>,
}

/// What became of one host.
#[derive(Debug)]
pub enum Outcome<T, E> {
    /// It went well.
    Done(T),
    /// It failed.
    Failed(E),
    /// It was not tried: too many had failed before.
    Skipped,
}

impl Default for Pool {
    fn default() -> Self {
        let concurrency = NonZeroUsize::new(CONCURRENCY).unwrap_or(NonZeroUsize::MIN);
        Self { concurrency, max_failures: None, waves: Vec::new() }
    }
}

impl Pool {
    /// So many hosts at once.
    #[must_use]
    pub fn concurrency(mut self, hosts: NonZeroUsize) -> Self {
        self.concurrency = hosts;
        self
    }

    /// After so many failures no further host is tried; those that are being worked on are
    /// finished.
    #[must_use]
    pub fn max_failures(mut self, failures: usize) -> Self {
        self.max_failures = Some(failures.max(1));
        self
    }

    /// Hosts are worked on in waves of these sizes, the last of which is that of all further
    /// ones [default: all in one]. A wave begins once the one before is over, and only if no
    /// host has failed, or fewer than [`Pool::max_failures`] says.
    #[must_use]
    pub fn waves(mut self, sizes: impl IntoIterator<Item = usize>) -> Self {
        self.waves = sizes.into_iter().map(|size| size.max(1)).collect();
        self
    }

    /// The first failure is the last.
    #[must_use]
    pub fn fail_fast(self) -> Self {
        self.max_failures(1)
    }

    /// Works on every host. `each` sees the outcomes as they come; the result has one per
    /// host, in the order of the hosts. Dropping the future ends all work.
    pub async fn run<H, T, E, F>(
        &self,
        hosts: Vec<H>,
        work: impl Fn(H) -> F,
        mut each: impl FnMut(usize, &Outcome<T, E>),
    ) -> Vec<Outcome<T, E>>
    where
        H: Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let count = hosts.len();
        let mut waiting: VecDeque<(usize, H)> = hosts.into_iter().enumerate().collect();
        let mut outcomes: Vec<Option<Outcome<T, E>>> = std::iter::repeat_with(|| None).take(count).collect();
        let mut running = JoinSet::new();
        let (mut failures, mut wave) = (0, 0);
        // So many hosts may have been begun.
        let mut open = self.waves.first().map_or(count, |size| (*size).min(count));
        loop {
            let enough = self.max_failures.is_some_and(|most| failures >= most);
            while !enough && running.len() < self.concurrency.get() && count - waiting.len() < open {
                let Some((at, host)) = waiting.pop_front() else { break };
                let future = work(host);
                running.spawn(async move { (at, future.await) });
            }
            match running.join_next().await {
                Some(Ok((at, result))) => {
                    let outcome = match result {
                        Ok(value) => Outcome::Done(value),
                        Err(error) => {
                            failures += 1;
                            Outcome::Failed(error)
                        }
                    };
                    each(at, &outcome);
                    outcomes[at] = Some(outcome);
                }
                Some(Err(error)) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => failures += 1,
                },
                None if enough || waiting.is_empty() || failures >= self.max_failures.unwrap_or(1) => break,
                None => {
                    wave = (wave + 1).min(self.waves.len().saturating_sub(1));
                    open += self.waves.get(wave).copied().unwrap_or(count);
                }
            }
        }
        for (at, _) in waiting {
            each(at, &Outcome::Skipped);
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Skipped)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn every_host_has_an_outcome_in_order_and_no_more_run_than_may() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let pool = Pool::default().concurrency(NonZeroUsize::new(3).unwrap());
        let mut seen = Vec::new();
        let outcomes = runtime().block_on(pool.run(
            (0..20).collect(),
            |host: usize| {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    if host % 7 == 3 { Err(host) } else { Ok(host) }
                }
            },
            |at, _| seen.push(at),
        ));
        assert_eq!(most.load(Ordering::SeqCst), 3);
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
        for (at, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Outcome::Done(host) => assert_eq!(*host, at),
                Outcome::Failed(host) => assert!(*host == at && at % 7 == 3),
                Outcome::Skipped => panic!("{at} was skipped"),
            }
        }
    }

    #[test]
    fn a_wave_waits_for_the_one_before_and_for_its_success() {
        let run = |bad: usize, most: Option<usize>| {
            let pool = Pool { max_failures: most, ..Pool::default() }.waves([1, 3]);
            let begun = Arc::new(std::sync::Mutex::new(Vec::new()));
            let outcomes = runtime().block_on(pool.run(
                (0..10).collect(),
                |host: usize| {
                    let begun = Arc::clone(&begun);
                    async move {
                        begun.lock().unwrap().push(host);
                        tokio::task::yield_now().await;
                        if host == bad { Err(()) } else { Ok(()) }
                    }
                },
                |_, _| {},
            ));
            let begun = begun.lock().unwrap().len();
            (begun, outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Skipped)).count())
        };
        // The canary, the wave after it, the next one; all go on where a failure is let pass.
        assert_eq!(run(0, None), (1, 9));
        assert_eq!(run(2, None), (4, 6));
        assert_eq!(run(99, None), (10, 0));
        assert_eq!(run(0, Some(2)), (10, 0));
    }

    #[test]
    fn after_enough_failures_the_rest_is_skipped_and_said_so() {
        let pool = Pool::default().concurrency(NonZeroUsize::MIN).max_failures(2);
        let mut skipped = 0;
        let outcomes = runtime().block_on(pool.run(
            (0..10).collect(),
            |host: usize| async move { if host > 0 { Err(()) } else { Ok(()) } },
            |_, outcome| skipped += usize::from(matches!(outcome, Outcome::Skipped)),
        ));
        assert_eq!(skipped, 7);
        assert!(matches!(
            outcomes[..4],
            [Outcome::Done(()), Outcome::Failed(()), Outcome::Failed(()), Outcome::Skipped]
        ));
    }
}
