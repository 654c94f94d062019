//! A client's requests that are worked on one after another, while it goes on to send others.

use std::sync::{Arc, Mutex, PoisonError};

use legwork_socketio::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Requests that wait to be worked on, and their bytes: a larger one waits until it is alone.
const MAX_REQUESTS: usize = 64;
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// A request that waits.
pub(crate) struct Queued {
    pub(crate) request: Request,
    /// Its place among the bytes that may wait.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

/// A client's queue. Its worker ends when the client is gone.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: Mutex<Option<mpsc::Sender<Queued>>>,
    places: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { sender: Mutex::default(), places: Arc::new(Semaphore::new(MAX_REQUEST_BYTES)) }
    }
}

impl Queue {
    /// Queues a request, as soon as there is a place for it. `work` starts the worker, if there is
    /// none yet.
    pub(crate) async fn add(&self, request: Request, work: impl FnOnce(mpsc::Receiver<Queued>)) {
        let bytes = request.data.weight().clamp(1, MAX_REQUEST_BYTES);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let place = self.places.clone().acquire_many_owned(permits).await.ok();
        let sender = {
            let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
            match sender.as_ref().filter(|sender| !sender.is_closed()) {
                Some(sender) => sender.clone(),
                None => {
                    // Its bytes are bounded by `places`.
                    let (fresh, receiver) = mpsc::channel(MAX_REQUESTS);
                    *sender = Some(fresh.clone());
                    work(receiver);
                    fresh
                }
            }
        };
        let _ = sender.send(Queued { request, place }).await;
    }

    /// Takes no more: its client is gone.
    pub(crate) fn close(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
