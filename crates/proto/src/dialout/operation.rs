//! Arguments and results of the operations (§8, §9).

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Deserialize, Serialize, null_as_default};

/// `bash`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BashArgs {
    /// The line.
    #[serde(deserialize_with = "null_as_default")]
    pub command: String,
    /// Where; the root if empty.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub workdir: String,
    /// Seconds; 120 if zero or less.
    #[serde(deserialize_with = "null_as_default")]
    pub timeout: i64,
}

/// `read`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadArgs {
    /// The file.
    #[serde(deserialize_with = "null_as_default")]
    pub path: String,
    /// First byte; less than zero means zero.
    #[serde(deserialize_with = "null_as_default")]
    pub offset: i64,
    /// Bytes; zero or less means to the end.
    #[serde(deserialize_with = "null_as_default")]
    pub limit: i64,
}

/// `write`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WriteArgs {
    /// The file.
    #[serde(deserialize_with = "null_as_default")]
    pub path: String,
    /// Standard base64 with padding.
    #[serde(deserialize_with = "null_as_default")]
    pub content: String,
}

/// `list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListArgs {
    /// The folder.
    #[serde(deserialize_with = "null_as_default")]
    pub path: String,
    /// All levels.
    #[serde(deserialize_with = "null_as_default")]
    pub recursive: bool,
    /// Globs of names to leave out.
    #[serde(deserialize_with = "null_as_default")]
    pub ignore: Vec<String>,
}

/// `glob`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GlobArgs {
    /// The pattern.
    #[serde(deserialize_with = "null_as_default")]
    pub pattern: String,
}

/// `grep`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrepArgs {
    /// The regular expression.
    #[serde(deserialize_with = "null_as_default")]
    pub pattern: String,
    /// Globs of files.
    #[serde(deserialize_with = "null_as_default")]
    pub include: Vec<String>,
}

/// Fields of content that may be stored in a file instead (§10).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Truncation {
    /// The content is a preview.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Where all of it is, relative to the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_path: Option<String>,
    /// Bytes of the whole.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_size: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `bash`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BashResult {
    /// Standard output, or a preview of it.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The shell's; 124 on timeout, -1 on a signal.
    pub exit_code: i32,
    /// About `stdout`.
    #[serde(flatten)]
    pub truncation: Truncation,
}

/// `read`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadResult {
    /// Base64.
    pub content: String,
    /// Bytes of the file.
    pub total_size: u64,
}

/// `write`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriteResult {
    /// Always true: a failure is an error, not a result.
    pub success: bool,
}

/// `list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListResult {
    /// The entries, in the order in which the folder was walked.
    pub entries: Vec<ListEntry>,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListEntry {
    /// The entry's path, relative to the root.
    pub path: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// The entry's size in bytes.
    pub size: u64,
}

/// `glob`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GlobResult {
    /// The paths that were found, in order.
    pub matches: Vec<String>,
}

/// `grep`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrepResult {
    /// By path, then line.
    pub matches: Vec<GrepMatch>,
    /// All matches as text, or a preview.
    pub content: String,
    /// About `content`.
    #[serde(flatten)]
    pub truncation: Truncation,
}

/// A matching line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrepMatch {
    /// Starts with `./`.
    pub path: String,
    /// From 1.
    pub line_number: u64,
    /// Without its newline.
    pub content: String,
}
/// `webfetch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebfetchArgs {
    /// `http://` or `https://`.
    #[serde(deserialize_with = "null_as_default")]
    pub url: String,
    /// `markdown` if empty, `text`, `html`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// Seconds; 30 if zero or less, 120 at most.
    #[serde(deserialize_with = "null_as_default")]
    pub timeout: i64,
}

/// An MCP server (§9).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the protocol page describes each")]
pub struct McpServer {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub transport: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub command: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub url: String,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub dynamic_headers: BTreeMap<String, String>,
}

/// `mcp_call`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct McpCallArgs {
    /// The server.
    #[serde(deserialize_with = "null_as_default")]
    pub server: McpServer,
    /// The tool.
    #[serde(deserialize_with = "null_as_default")]
    pub tool_name: String,
    /// An object.
    pub args: Option<Box<RawValue>>,
    /// Seconds; 60 if zero or less.
    #[serde(deserialize_with = "null_as_default")]
    pub timeout: i64,
}

/// `mcp_list_tools`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct McpListArgs {
    /// The server.
    #[serde(deserialize_with = "null_as_default")]
    pub server: McpServer,
}

/// `sync_skill`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncSkillArgs {
    /// For people.
    #[serde(deserialize_with = "null_as_default")]
    pub skill_name: String,
    /// The folder to replace.
    #[serde(deserialize_with = "null_as_default")]
    pub skill_dir: String,
    /// Base64 of a zip archive.
    #[serde(deserialize_with = "null_as_default")]
    pub zip_data: String,
    /// `sha256:HEX`, or anything else.
    #[serde(deserialize_with = "null_as_default")]
    pub checksum: String,
}

/// `webfetch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebfetchResult {
    /// The page, or a preview of it.
    pub content: String,
    /// After redirects.
    pub url: String,
    /// About `content`.
    #[serde(flatten)]
    pub truncation: Truncation,
}

/// `mcp_call`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct McpCallResult {
    /// The tool's text, or a preview of it.
    pub content: String,
    /// The tool says that it failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_error: bool,
    /// About `content`.
    #[serde(flatten)]
    pub truncation: Truncation,
}

/// `mcp_list_tools`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct McpListResult<T> {
    /// The server's tools, of all pages.
    pub tools: Vec<T>,
}

/// `sync_skill`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SyncSkillResult {
    /// Always true: a failure is an error, not a result.
    pub success: bool,
    /// The folder as it was given.
    pub path: String,
}
