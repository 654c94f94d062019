//! The event log's own writer: a thread with a queue. What is queued is written in that order;
//! no output ever waits for the store, nor the store for output.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use legwork_store::Lane;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Pieces waiting; who has more waits.
const QUEUE: usize = 4096;
/// Bytes of output waiting; who has more waits.
const ROOM: usize = 64 << 20;

struct Job {
    work: Box<dyn FnOnce() + Send>,
    _room: Option<OwnedSemaphorePermit>,
}

enum Jobs {
    Thread(mpsc::Sender<Job>),
    /// In the caller's lane they wait until they are asked for.
    Here(Mutex<VecDeque<Job>>),
}

/// Handle to the writer.
pub(crate) struct Writer {
    jobs: Jobs,
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    pub(crate) fn start(lane: Lane) -> std::io::Result<Self> {
        let room = Arc::new(Semaphore::new(ROOM));
        if lane == Lane::Caller {
            return Ok(Self { jobs: Jobs::Here(Mutex::default()), room });
        }
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new().name("events".into()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                (job.work)();
            }
        })?;
        Ok(Self { jobs: Jobs::Thread(jobs), room })
    }

    /// Queues work on so many bytes, and waits for room.
    pub(crate) async fn queue(&self, bytes: usize, work: impl FnOnce() + Send + 'static) {
        let bytes = u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(bytes).await.ok();
        let job = Job { work: Box::new(work), _room: room };
        match &self.jobs {
            // The thread lives as long as this.
            Jobs::Thread(jobs) => {
                let _ = jobs.send(job).await;
            }
            Jobs::Here(jobs) => jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job),
        }
    }

    /// Waits until all that was queued before is written.
    pub(crate) async fn settled(&self) {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.queue(0, move || {
            let _ = tell.send(());
        })
        .await;
        let _ = told.await;
    }

    /// The same from the store's thread, which waits for nothing else.
    pub(crate) fn queue_from_store(&self, work: impl FnOnce() + Send + 'static) {
        let job = Job { work: Box::new(work), _room: None };
        match &self.jobs {
            Jobs::Thread(jobs) => {
                let _ = jobs.blocking_send(job);
            }
            Jobs::Here(jobs) => jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job),
        }
    }

    /// Forgets what waits in the caller's lane: the process is gone.
    #[cfg(test)]
    pub(crate) fn lose(&self) {
        if let Jobs::Here(jobs) = &self.jobs {
            jobs.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Does so much of what waits in the caller's lane; returns how much it was.
    #[cfg(test)]
    pub(crate) fn step(&self, most: usize) -> usize {
        let Jobs::Here(jobs) = &self.jobs else { return 0 };
        let mut done = 0;
        while done < most {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(job) = next else { break };
            (job.work)();
            done += 1;
        }
        done
    }
}
