//! Named secrets: what may be known of them, which is not what they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A secret to be kept, in place of what was called so.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({
    "name": "NPM_TOKEN", "value": "npm_0123456789", "tasks": ["workflow"],
}))]
pub struct NewSecret {
    /// 1 to 100 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The secret itself: 4 to 32768 bytes without NUL, of which a line has 4 characters or more. It is
    /// never shown again.
    pub value: String,
    /// Names of tokens: only what they submit may have it. Empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<String>,
    /// `agent`, `workflow`: only such tasks may have it. Empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Names of task runners: only they may have it. A name that ends in `*` stands for all that
    /// begin so. Empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runners: Vec<String>,
}

/// A secret without itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Whose tasks may have it; empty for all.
    #[serde(default)]
    pub tokens: Vec<String>,
    /// Which tasks may have it; empty for all.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Which task runners may have it; empty for all.
    #[serde(default)]
    pub runners: Vec<String>,
    /// The name of the token that set it.
    #[serde(default)]
    pub set_by: String,
    /// When it was set, in milliseconds since 1970.
    #[serde(default)]
    pub set_at_ms: u64,
}

/// All secrets, by name.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Secrets {
    /// The secrets, without themselves.
    pub items: Vec<Secret>,
    /// Files of the hub's folder `secrets` that can't be read: secrets that are to be set anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}
