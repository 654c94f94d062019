//! Whole binaries, end to end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

mod answers;
mod api;
mod bounds;
mod cli;
mod cookbook;
mod credentials;
mod exec;
mod faults;
mod gate;
mod hostile;
mod invariants;
mod kubernetes;
mod links;
mod micro;
mod micro_host;
mod network;
mod original_hub;
mod runs;
mod sandbox;
mod service;
mod ssh;
mod ssh_details;
mod ssh_harden;
mod ssh_sync;
mod task;
mod task_agent;
mod task_faults;
mod task_hub;
mod task_strangers;
mod task_workflow;
mod transcripts;
mod update;
mod workspace;
mod workspace_http;
mod workspace_storage;
