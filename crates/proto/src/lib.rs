//! Wire types of Legwork's protocols. Serde only: no I/O, no clock, no randomness.

pub mod base57;
pub mod civil;
pub mod dialout;
pub mod micro;
pub mod pieces;
pub mod task;
