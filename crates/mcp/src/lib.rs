//! MCP servers that a runner reaches on a controller's behalf: sessions that stay
//! open between calls, over stdio, streamable HTTP and the older HTTP+SSE.
//!
//! Built on the official SDK. This crate starts no process by itself: whoever makes
//! a [`Pool`] gives it a [`Launcher`], which is where policy and supervision are.

mod http;
mod pool;
mod server;
mod session;
mod sse;

pub use pool::Pool;
pub use server::{Launcher, Server, Stdio, Transport};
pub use session::{Error, Tool, ToolResult};
