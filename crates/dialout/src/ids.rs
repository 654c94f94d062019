//! Fresh ids.

use legwork_base::ids::unique;
use legwork_proto::base57;

/// A message id.
pub(crate) fn message_id() -> String {
    base57::message_id(unique())
}

/// A name for a command's file.
pub(crate) fn record_name() -> String {
    base57::encode(unique(), 22)
}
