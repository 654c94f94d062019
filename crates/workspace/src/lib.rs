//! Files beneath one root: read, write, list, move, search, watch, archive.
//!
//! Every path is resolved by the kernel beneath the root's descriptor; no check
//! on strings decides where a path leads. All calls block: use them off the async
//! threads.

#[cfg(target_os = "linux")]
mod archive;
mod beneath;
mod error;
mod glob;
mod grep;
mod list;
mod manage;
mod os;
mod path;
mod prune;
mod read;
mod root;
#[cfg(target_os = "linux")]
mod tree;
#[cfg(target_os = "linux")]
pub mod trees;
mod unpack;
#[cfg(target_os = "linux")]
mod watch;
mod write;

#[cfg(target_os = "linux")]
pub use archive::{ArchiveError, Bounds, Format, Packed};
pub use error::{Error, strerror};
pub use grep::{GrepBounds, GrepMatch, GrepResult};
pub use list::Entry;
pub use manage::Meta;
pub use read::FileData;
pub use root::{Resolver, Root};
#[cfg(target_os = "linux")]
pub use tree::{Tree, TreeKind, TreeLimits, TreeNode};
pub use unpack::UnpackError;
#[cfg(target_os = "linux")]
pub use watch::{Change, ChangeKind, Watcher};
pub use write::PendingFile;
