//! Where a workspace is kept: an S3-compatible bucket, or a folder.
//!
//! Files lie under their own paths, as the original's init container copies them; what we
//! note beside them is in `.legwork/`. A save is written as one object first, and then
//! spread: whoever finds that object finishes what a crash cut short.

mod manifest;
mod scan;
mod snapshot;
mod spread;
mod store;
mod sync;

pub(crate) use snapshot::Snapshots;
pub(crate) use store::{StorageError, Store};
pub(crate) use sync::{Sync, SyncReport};
