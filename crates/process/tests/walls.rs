//! Attacks on the walls, each with a control that shows the act to succeed without one.
//! What this machine can't do is named and counted, never left out silently.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

#[path = "walls/attacks.rs"]
mod attacks;
#[path = "walls/kit.rs"]
mod kit;
#[path = "walls/named.rs"]
mod named;
#[path = "walls/use.rs"]
mod use_;
