//! Attacks on the gate that judges execs, each with a control that shows the act to succeed
//! without one. What this machine can't do is named and counted, never left out silently.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

#[path = "gate/attacks.rs"]
mod attacks;
#[path = "gate/faults.rs"]
mod faults;
#[path = "gate/kit.rs"]
mod kit;
#[path = "gate/paths.rs"]
mod paths;
#[path = "gate/reported.rs"]
mod reported;
#[path = "gate/trust.rs"]
mod trust;
#[path = "gate/use.rs"]
mod use_;
#[path = "gate/walled.rs"]
mod walled;
#[path = "gate/writes.rs"]
mod writes;
