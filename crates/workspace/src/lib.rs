//! Files beneath one root: read, write, list, glob, grep, unpack.
//!
//! Every path is resolved by the kernel beneath the root's descriptor; no check
//! on strings decides where a path leads. All calls block: use them off the async
//! threads.

mod beneath;
mod error;
mod glob;
mod grep;
mod list;
mod os;
mod path;
mod prune;
mod read;
mod root;
mod unpack;
mod write;

pub use error::{Error, strerror};
pub use grep::{GrepMatch, GrepResult};
pub use list::Entry;
pub use read::FileData;
pub use root::{Resolver, Root};
pub use unpack::UnpackError;
pub use write::PendingFile;
