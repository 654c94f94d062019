//! What a scan says.

use serde::Serialize;

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) rule: String,
    pub(crate) severity: String,
    pub(crate) description: String,
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
    /// What was found, made unusable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<String>,
    /// Who found it.
    pub(crate) by: &'static str,
}

/// What a scan found.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    pub(crate) files: u64,
    /// Files that were too large to be searched.
    pub(crate) skipped: u64,
    pub(crate) truncated: bool,
    /// Programs that were used as well, and what was wrong with those that failed.
    pub(crate) tools: Vec<String>,
    pub(crate) warnings: Vec<String>,
}
