//! Operations other than shell lines, and their audit records.

use std::sync::Arc;

use legwork_base::clock::now_ms;
use legwork_base::digest::sha256;
use legwork_policy::Verdict;

use crate::audit::Record;
use crate::command::record_of;
use crate::operation::{Cancel, Done, Failure, Operation, Requester};
use crate::output::{Exempt, Large, MAX_INLINE, store_large};
use crate::redact::redact;
use crate::runner::Runner;

impl Runner {
    /// Carries out an operation; `cancel` ends a search or a wait for others early.
    pub async fn perform(
        self: &Arc<Self>,
        operation: Operation,
        requester: &Requester,
        cancel: Arc<Cancel>,
    ) -> Result<Done, Failure> {
        let started_ms = now_ms();
        let name = operation.name();
        let subject = redact(&operation.subject());
        let sha256 = match &operation {
            Operation::Write { data, .. } => Some(sha256(data)),
            Operation::SyncSkill { zip, .. } => Some(sha256(zip)),
            _ => None,
        };
        let (result, verdict) = self.carry_out(operation, cancel).await;
        let bytes = match &result {
            Ok(Done::Read(file)) => Some(file.data.len() as u64),
            Ok(Done::Grep { text, .. }) => Some(text.total_size),
            Ok(Done::Fetch { content, .. } | Done::McpCall { content, .. }) => Some(content.total_size),
            _ => None,
        };
        let denied = matches!(result, Err(Failure::Denied(_)));
        let record = Record {
            operation: name.into(),
            subject,
            decision: if denied { "deny" } else { "allow" },
            rule: verdict.as_ref().and_then(|v| v.rule().map(redact)),
            started_ms,
            outcome: match &result {
                Ok(_) => "done",
                Err(Failure::Denied(_)) => "denied",
                Err(_) => "failed",
            },
            reason: result.as_ref().err().map(|e| redact(&e.to_string())),
            bytes,
            sha256,
            ..record_of(requester)
        };
        self.config.audit.record(record).await;
        result
    }

    async fn carry_out(
        self: &Arc<Self>,
        operation: Operation,
        cancel: Arc<Cancel>,
    ) -> (Result<Done, Failure>, Option<Box<Verdict>>) {
        match operation {
            Operation::Fetch(fetch) => (self.fetch(&fetch, &cancel).await, None),
            Operation::McpCall { server, tool, arguments, timeout } => {
                self.mcp_call(&server, &tool, arguments, timeout, &cancel).await
            }
            Operation::McpList { server } => self.mcp_list(&server, &cancel).await,
            local => {
                let runner = self.clone();
                let done = tokio::task::spawn_blocking(move || runner.perform_now(local, &cancel)).await;
                let lost =
                    |_| Failure::Failed("the operation failed unexpectedly; see the runner's log".into());
                (done.map_err(lost).and_then(|done| done), None)
            }
        }
    }

    fn perform_now(&self, operation: Operation, cancel: &Cancel) -> Result<Done, Failure> {
        let root = &self.config.root;
        let failed = |e: legwork_workspace::Error| Failure::Failed(e.to_string());
        match operation {
            Operation::Read { path, offset, limit } => {
                root.read(&path, offset, limit, self.config.max_read_bytes).map(Done::Read).map_err(failed)
            }
            Operation::Write { path, data } => root.write(&path, &data).map(|()| Done::Write).map_err(failed),
            Operation::List { path, recursive, ignore } => {
                root.list(&path, recursive, &ignore).map(Done::List).map_err(failed)
            }
            Operation::Glob { pattern } => root.glob(&pattern).map(Done::Glob).map_err(failed),
            Operation::Grep { pattern, include } => {
                let found = root.grep(&pattern, &include, cancel.flag()).map_err(failed)?;
                let mut text = String::new();
                for line in &found.matches {
                    text.push_str("./");
                    text.push_str(&line.path.to_string_lossy());
                    text.push(':');
                    text.push_str(&line.line_number.to_string());
                    text.push(':');
                    text.push_str(&line.content);
                    text.push('\n');
                }
                let text = store_large(root, "grep", text.len() as u64, text.as_bytes(), Exempt::No)
                    .map_err(|e| Failure::Failed(e.to_string()))?;
                Ok(Done::Grep { matches: found.matches, text })
            }
            Operation::SyncSkill { dir, zip, checksum } => {
                if let Some(wanted) = checksum.strip_prefix("sha256:")
                    && !wanted.eq_ignore_ascii_case(&sha256(&zip))
                {
                    return Err(Failure::Failed("checksum mismatch".into()));
                }
                match root.replace_by_zip(&dir, &zip, (".checksum", &checksum)) {
                    Ok(()) => Ok(Done::SyncSkill(dir)),
                    Err(
                        e @ (legwork_workspace::UnpackError::Note { .. }
                        | legwork_workspace::UnpackError::Folder(_)
                        | legwork_workspace::UnpackError::Root(_)),
                    ) => Err(Failure::Failed(e.to_string())),
                    Err(e) => Err(Failure::Failed(format!("failed to unzip skill: {e}"))),
                }
            }
            // These wait for others, and are not carried out on this thread.
            Operation::Fetch(_) | Operation::McpCall { .. } | Operation::McpList { .. } => {
                Err(Failure::Failed("not an operation on files".into()))
            }
        }
    }

    /// Stores what is too large for a message.
    pub(crate) async fn large(
        self: &Arc<Self>,
        prefix: &'static str,
        text: String,
    ) -> Result<Large, Failure> {
        if text.len() as u64 <= MAX_INLINE {
            let total_size = text.len() as u64;
            return Ok(Large { text, total_size, ..Large::default() });
        }
        let runner = self.clone();
        let stored = tokio::task::spawn_blocking(move || {
            store_large(&runner.config.root, prefix, text.len() as u64, text.as_bytes(), Exempt::No)
        });
        stored.await.map_err(|e| Failure::Failed(e.to_string()))?.map_err(|e| Failure::Failed(e.to_string()))
    }
}
