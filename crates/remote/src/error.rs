//! What can go wrong between here and there.

use std::time::Duration;

use legwork_proto::micro::Failure;

/// Why something did not work. The texts are those of the protocol's page, §8.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host could not be reached, or did not let us in.
    #[error("failed to start runner: {host}: {reason}")]
    Unreachable {
        /// As it was given.
        host: String,
        /// What ssh said, and what to do.
        reason: String,
    },
    /// The host's key is not the one that is known.
    #[error("failed to start runner: {host}: {reason}")]
    HostKey {
        /// As it was given.
        host: String,
        /// With the line to run once the new key is known to be right.
        reason: String,
    },
    /// The name of a host that could be taken for something else.
    #[error("invalid host {0:?}: a host is letters, digits and ._:%@[]+-, and does not start with -")]
    InvalidHost(String),
    /// There is no binary for the host.
    #[error("failed to upload runner: no micro-runner for {0}; there are: {1}")]
    NoBinary(String, String),
    /// The binary could not be put on the host.
    #[error("failed to upload runner: {0}")]
    Upload(String),
    /// The binary was put there, but did not start.
    #[error("failed to start runner: {0}")]
    Start(String),
    /// The runner said nothing in time.
    #[error("timeout waiting for READY message")]
    ReadyTimeout,
    /// The runner said something else first.
    #[error("failed to receive READY: {0}")]
    NotReady(String),
    /// The command can't be sent.
    #[error("invalid command: {0}")]
    InvalidCommand(String),
    /// The policy does not allow the command. It was not sent.
    #[error("{0}")]
    Denied(String),
    /// The runner takes no more.
    #[error("failed to send command: {0}")]
    Send(String),
    /// The connection broke: whether the command ran is not known.
    #[error("failed to read response: {0}")]
    Read(String),
    /// The runner did not answer in time, and a little more: whether the command ran is not
    /// known.
    #[error("timeout waiting for response")]
    ResponseTimeout,
    /// An answer to something else.
    #[error("command ID mismatch: expected {expected}, got {got}")]
    IdMismatch {
        /// Of the command that was sent.
        expected: String,
        /// Of the answer.
        got: String,
    },
    /// The command failed.
    #[error("command failed: {} - {}", .0.code, .0.message)]
    Command(Box<Failure>),
    /// The runner ended while it had work.
    #[error("runner exited unexpectedly")]
    Exited,
    /// Not a message of the protocol.
    #[error("unexpected message type: {0}")]
    UnexpectedType(String),
    /// [`crate::Client::close`] was called.
    #[error("client is closed")]
    Closed,
}

impl Error {
    /// After how long the same command may be tried again, if the runner said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Command(failure) if failure.retryable => {
                Some(Duration::from_secs(failure.retry_after.unwrap_or(0)))
            }
            _ => None,
        }
    }

    /// Whether the host was never reached, so that nothing can have run.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::HostKey { .. }
                | Self::InvalidHost(_)
                | Self::NoBinary(..)
                | Self::Upload(_)
                | Self::Start(_)
                | Self::ReadyTimeout
                | Self::NotReady(_)
        )
    }
}
