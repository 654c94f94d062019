//! Runs commands so that they outlive whoever asked for them.
//!
//! Every command is owned by a small supervisor process of its own: it holds the
//! pipes or the PTY, writes all output to a journal on disk, is the subreaper of
//! all descendants, and ends the whole tree on timeout or cancel. A runner that
//! dies finds its supervisors again by the commands' files ([`adopt`]).
//!
//! Supervisors are forked from a helper process ([`helper_main`]) that has one
//! thread, so that a fork is safe. This is the crate that owns the operating
//! system: the workspace's only `unsafe` lives in [`sys`].

#![allow(clippy::disallowed_methods, reason = "this is the crate that starts processes")]

mod confine;
pub mod env;
mod gate;
mod helper;
mod inside;
mod journal;
mod launch;
mod record;
mod running;
mod spec;
mod supervisor;
mod syntax;
mod sys;
mod terminal;
mod tree;
pub mod trial;

pub use legwork_sandbox as sandbox;

pub use gate::{Denial, Gate};
pub use helper::{HELPER_ARG, Piped, SpawnError, Spawner, helper_main};
pub use inside::Inside;
pub use journal::{Chunk, Cursor, Stream};
pub use legwork_executor::Size;
pub use running::{Adoption, Progress, Running, adopt, spec_of, status};
pub use spec::{EndedBy, Io, Limits, Spec, State, Status, boot_id};
pub use syntax::{SyntaxCheck, check_syntax};
pub use sys::raise_open_files;
pub use terminal::Terminal;
pub use tree::{Usage, adopt_orphans, hide_from_commands, kill_descendants, reap_orphans, usage};
