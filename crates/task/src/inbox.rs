//! What people say to a task while it runs: words for its agent, and answers to what it asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use legwork_proto::task::{Input, Permission};
use tokio::sync::watch;

/// Words, and answers, that may wait; the oldest give way.
const MOST: usize = 256;

/// What somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) by: String,
    pub(crate) text: String,
}

/// Shared by who hears and who listens.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    shared: Arc<Shared>,
    /// Words are not for this one.
    is_deaf: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last that was taken in.
    seen: u64,
    said: VecDeque<Said>,
    /// By the call that was asked about.
    answers: BTreeMap<String, (String, Permission)>,
}

impl Inbox {
    /// Takes in what comes; what has come before is not taken in twice.
    pub(crate) fn take_in(&self, input: Input) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if input.seq <= state.seen {
            return;
        }
        state.seen = input.seq;
        if let Some(text) = input.say {
            if state.said.len() >= MOST {
                state.said.pop_front();
            }
            state.said.push_back(Said { by: input.by.clone(), text });
        }
        if let Some(answer) = input.answer {
            if state.answers.len() >= MOST {
                state.answers.pop_first();
            }
            // The first answer counts.
            state.answers.entry(answer.tool_id.clone()).or_insert((input.by, answer));
        }
        drop(state);
        self.shared.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The same for answers alone.
    pub(crate) fn for_answers(&self) -> Self {
        Self { is_deaf: true, ..self.clone() }
    }

    /// The number of the last that was taken in.
    pub(crate) fn seen(&self) -> u64 {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).seen
    }

    /// What was said since the last time.
    pub(crate) fn said(&self) -> Vec<Said> {
        if self.is_deaf {
            return Vec::new();
        }
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).said.drain(..).collect()
    }

    /// Waits for the answer about a call; who gave it, and what it is.
    pub(crate) async fn answer(&self, call: &str) -> (String, Permission) {
        let mut changes = self.shared.changed.subscribe();
        loop {
            changes.borrow_and_update();
            let found = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).answers.remove(call);
            if let Some(found) = found {
                return found;
            }
            // The sender lives as long as we do.
            let _ = changes.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_is_heard_once_and_the_first_answer_counts() {
        let inbox = Inbox::default();
        let say = |seq, text: &str| Input { seq, by: "a".into(), say: Some(text.into()), ..Input::default() };
        for input in [say(1, "one"), say(2, "two"), say(1, "one"), say(2, "two")] {
            inbox.take_in(input);
        }
        let texts: Vec<String> = inbox.said().into_iter().map(|said| said.text).collect();
        assert_eq!((texts, inbox.seen()), (vec!["one".to_owned(), "two".to_owned()], 2));
        assert!(inbox.said().is_empty());
        let answer = |seq, allow| {
            let answer = Permission { tool_id: "t".into(), allow, note: None };
            Input { seq, by: format!("p{seq}"), answer: Some(answer), ..Input::default() }
        };
        let waiting = {
            let inbox = inbox.clone();
            tokio::spawn(async move { inbox.answer("t").await })
        };
        inbox.take_in(answer(3, false));
        inbox.take_in(answer(4, true));
        let (by, answer) = waiting.await.expect("answer");
        assert!(by == "p3" && !answer.allow || by == "p4");
    }
}
