//! The hands: an operation comes in, is judged by the policy, is carried out in
//! the workspace or as a supervised process, and leaves an audit record.
//!
//! This crate knows no protocol; doors translate to and from its types.

mod audit;
mod command;
mod egress;
mod fetch;
mod gathered;
mod gating;
mod here;
mod net;
mod network;
mod networks;
mod operation;
mod output;
mod perform;
mod redact;
mod runner;
mod system;
mod trial;
mod walls;

pub use audit::{Audit, AuditError, Keep, Record, VerifyReport, verify};
pub use command::{Approved, Command, Held, Wall, What};
pub use egress::Destinations;
pub use fetch::Fetch;
pub use gating::{Gates, Gating, Standing};
pub use here::{Asked, Here};
pub use legwork_mcp as mcp;
pub use legwork_process as process;
pub use net::Egress;
pub use networks::{Networks, listeners};
pub use operation::{BashOutput, Cancel, Denial, Done, Failure, Operation, Requester};
pub use output::{Exempt, Large, MAX_INLINE, store_large};
pub use redact::redact;
pub use runner::{Config, MCP_CLIENT, Permit, Runner};
pub use system::{Machine, Metering, Usage};
pub use trial::{Walled, Wanted, choose, try_gate};
pub use walls::Rules;

/// Entry points for fuzzing.
#[doc(hidden)]
pub mod fuzzing {
    /// Converts a page in both ways.
    pub fn page(html: &str) {
        crate::fetch::convert(html);
    }
}
