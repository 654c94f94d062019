//! The hub's words: those of the contract.

pub use legwork_api::{Role, State};
