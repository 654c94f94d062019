//! Whole binaries, end to end.
#![allow(clippy::unwrap_used, missing_docs)]

mod api;
mod cli;
mod faults;
mod hostile;
mod transcripts;
