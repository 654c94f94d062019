//! The OpenAPI document. It is made from the contract by `cargo test -p legwork-api` and kept as
//! a file, so that a change of the contract is seen where it is reviewed.

/// The document, JSON.
pub const OPENAPI: &str = include_str!("../openapi.json");
