//! The hands: an operation comes in, is judged by the policy, is carried out in
//! the workspace or as a supervised process, and leaves an audit record.
//!
//! This crate knows no protocol; doors translate to and from its types.

mod audit;
mod operation;
mod output;
mod redact;
mod runner;
mod system;

pub use audit::{Audit, AuditError, Record, VerifyReport, verify};
pub use legwork_process as process;
pub use operation::{Bash, BashOutput, Done, Failure, Operation, Requester};
pub use output::{Exempt, Large, MAX_INLINE, store_large};
pub use redact::redact;
pub use runner::{Config, Permit, Runner, StartedBash};
pub use system::{Machine, Metering, Usage};
