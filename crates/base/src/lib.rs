//! The ground that the other crates stand on: what each of them would else write again, and
//! each a little differently. No runtime, no protocol; it builds for every system.

pub mod cause;
pub mod clock;
pub mod digest;
pub mod ids;
pub mod lock;
pub mod programs;
mod secret;

pub use secret::Secret;
