//! What a task's config names of what the hub keeps for many: its runner gets that, and nothing that
//! others' tasks have.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use legwork_workspace::trees::Manifest;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use super::Submitter;
use crate::engine::Hub;
use crate::pieces::{Pieces, bytes, is_digest};
use crate::secrets::against;

/// Most pieces of a tree: more than the bounds of one at a runner let be.
const MOST: usize = 1 << 20;

/// What a config names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// The digest of the tree that the task works on.
    pub(super) tree: Option<String>,
    /// The session that its own begins with.
    pub(super) fork_of: Option<String>,
}

impl Named {
    pub(super) fn of(config: &str) -> Self {
        #[derive(Default, Deserialize)]
        struct Read<'a> {
            #[serde(borrow, default)]
            source: Option<&'a RawValue>,
            #[serde(borrow, default)]
            fork_of: Option<&'a RawValue>,
        }
        #[derive(Default, Deserialize)]
        struct Source {
            #[serde(default)]
            tree: Option<String>,
        }
        let read: Read<'_> = serde_json::from_str(config).unwrap_or_default();
        let source = read.source.and_then(|source| serde_json::from_str::<Source>(source.get()).ok());
        Self {
            tree: source.and_then(|source| source.tree).filter(|tree| is_digest(tree)),
            fork_of: read.fork_of.and_then(|other| serde_json::from_str(other.get()).ok()),
        }
    }
}

/// The pieces of trees that runners were asking for last, sorted: one reading of a manifest does for
/// all questions about it.
#[derive(Debug, Default)]
pub(super) struct Trees(Mutex<VecDeque<(String, Listed)>>);

type Listed = Arc<Vec<[u8; 32]>>;

impl Trees {
    /// Those of a tree; none if the tree is not here, or is none.
    async fn pieces(&self, tree: &str, kept: Pieces) -> io::Result<Listed> {
        // One is read at a time.
        let mut read = self.0.lock().await;
        if let Some((_, pieces)) = read.iter().find(|(digest, _)| digest == tree) {
            return Ok(pieces.clone());
        }
        let wanted = tree.to_owned();
        let listed = tokio::task::spawn_blocking(move || {
            let Some(packed) = kept.one(&wanted)? else { return Ok(None) };
            let listed = Manifest::listed(&packed, MOST).unwrap_or_else(|error| {
                tracing::warn!("a tree that a task names is none: {error}");
                Vec::new()
            });
            let mut pieces: Vec<[u8; 32]> = listed.into_iter().map(|digest| digest.0).collect();
            pieces.sort_unstable();
            pieces.dedup();
            Ok::<_, io::Error>(Some(pieces))
        });
        // What is not here may be sent again.
        let Some(pieces) = listed.await.map_err(io::Error::other)?? else { return Ok(Arc::default()) };
        let pieces = Arc::new(pieces);
        read.push_back((tree.to_owned(), pieces.clone()));
        while read.len() > 1 && read.iter().map(|(_, pieces)| pieces.len()).sum::<usize>() > MOST {
            read.pop_front();
        }
        while read.len() > 64 {
            read.pop_front();
        }
        Ok(pieces)
    }
}

impl Hub {
    /// The tree of a task that is not over, if it has one.
    pub(crate) fn tree_of(&self, task: &str) -> Option<String> {
        let task: u32 = task.parse().ok()?;
        self.pods.lock().tasks.get(&task)?.named.tree.clone()
    }

    /// Whether all of these are of a tree: itself, or pieces that it lists.
    pub(crate) async fn are_of_tree(&self, tree: &str, digests: &[String]) -> io::Result<bool> {
        if digests.iter().all(|digest| digest == tree) {
            return Ok(true);
        }
        let pieces = self.pods.trees.pieces(tree, Pieces::new(&self.data)).await?;
        Ok(digests.iter().all(|digest| digest == tree || pieces.binary_search(&bytes(digest)).is_ok()))
    }

    /// The session that a task's runner may read: its own, or the one that it is a fork of.
    pub(crate) async fn readable_session(
        &self,
        task: &str,
        of: Option<String>,
    ) -> io::Result<Option<String>> {
        let Some((session, by)) = self.named_session(task, of) else { return Ok(None) };
        // It may have been bound since the task was taken.
        let bound = self.session_bounds(session.clone()).await?;
        let is_his = by.is_admin || against(&bound, &by.name).is_none();
        Ok(is_his.then_some(session))
    }

    fn named_session(&self, task: &str, of: Option<String>) -> Option<(String, Submitter)> {
        let task: u32 = task.parse().ok()?;
        let live = self.pods.lock();
        let task = live.tasks.get(&task)?;
        let own = task.session_id.as_ref()?;
        let session = match of {
            None => own.clone(),
            Some(of) if [Some(own), task.named.fork_of.as_ref()].contains(&Some(&of)) => of,
            Some(_) => return None,
        };
        Some((session, task.by.clone()))
    }

    /// The secret for which somebody may not steer a task that is not over.
    pub(crate) fn task_is_not_for(&self, task: u32, name: &str) -> Option<String> {
        let live = self.pods.lock();
        against(&live.tasks.get(&task)?.bounds.tokens, name).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_names_its_own() {
        let digest = "a".repeat(64);
        let config = format!(r#"{{"source": {{"tree": "{digest}"}}, "fork_of": "s", "x": [1]}}"#);
        assert_eq!(Named::of(&config), Named { tree: Some(digest), fork_of: Some("s".into()) });
        for nothing in ["{}", "x", r#"{"source": 1, "fork_of": 2}"#, r#"{"source": {"tree": "../x"}}"#] {
            assert_eq!(Named::of(nothing), Named::default(), "{nothing}");
        }
        // One that is named badly does not hide the other.
        assert_eq!(Named::of(r#"{"source": 1, "fork_of": "s"}"#).fork_of.as_deref(), Some("s"));
    }
}
