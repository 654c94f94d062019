//! Walls around commands, held by the kernel.
//!
//! A [`Plan`] says what a command may reach; it is made by the runner
//! ([`Settings::plan`]) and put in force by the command's supervisor between fork and
//! exec ([`enter`]). Anything that can't be put in force is an error, and then
//! nothing runs. What a profile stops and what it does not is in `docs/security.md`.
//!
//! This crate is safe code; the calls that need `unsafe` come in by [`Kernel`].

mod cgroup;
mod enter;
mod gate;
mod gvisor;
mod identity;
mod library;
mod limits;
mod mounts;
mod paths;
mod plan;
mod probe;
mod profile;
mod programs;
mod ruleset;
mod seccomp;

pub use cgroup::{Group, Groups};
pub use enter::{Fork, Kernel, Ready, enter, needs_report};
pub use gate::{Judged, can_list, exec_filter, is_own_arch, only_programs};
pub use gvisor::bundle;
pub use identity::Identity;
pub use limits::Limits;
pub use mounts::Attributes;
pub use plan::{Context, Inhabitant, Plan, ProgramCache, Settings, World};
pub use probe::{Abilities, probe};
pub use profile::Profile;
pub use seccomp::prepare;

/// Where a command without a network of its own reaches the runner's proxy.
pub const PROXY_PORT: u16 = 3128;
