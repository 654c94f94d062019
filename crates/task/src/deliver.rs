//! Events on their way to the callback URL: in order, one request in flight, kept on disk
//! until the server has them (docs/protocols/task.md §4).

mod cursor;
mod send;
mod spool;

pub(crate) use send::{Sender, Target};
pub(crate) use spool::Spool;
