//! Tokens, and the exchange of an enrolment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{RunnerId, TokenId};
use crate::open::Open;
use crate::states::Role;

/// A token to be.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "name": "ci", "role": "operator", "expires_s": 86400 }))]
pub struct NewToken {
    /// What it is called, 1 to 100 bytes; a runner's token gives the runner this name.
    pub name: String,
    /// What it may do.
    pub role: Open<Role>,
    /// Seconds until it ends, at most ten years; by default it does not end.
    #[serde(default, deserialize_with = "crate::strict::whole", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 316_224_000))]
    pub expires_s: Option<u64>,
}

/// A token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub role: Open<Role>,
    /// The runner that it was made for.
    #[serde(default)]
    pub runner_id: Option<RunnerId>,
    /// When it was made, in milliseconds since 1970.
    #[serde(default)]
    pub created_at_ms: u64,
    /// When it ends; null for never.
    #[serde(default)]
    pub expires_at_ms: Option<u64>,
    /// Whether it was revoked.
    #[serde(default)]
    pub revoked: bool,
    /// Whether it has ended.
    #[serde(default)]
    pub expired: bool,
}

/// A new token with its secret, which is shown this once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct IssuedToken {
    /// Its id.
    pub id: TokenId,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub role: Open<Role>,
    /// The secret.
    pub token: String,
    /// The runner that it was made for.
    #[serde(default)]
    pub runner_id: Option<RunnerId>,
    /// When it ends; null for never.
    #[serde(default)]
    pub expires_at_ms: Option<u64>,
}

/// What a machine says that enrols.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "name": "web-1" }))]
pub struct Enrolment {
    /// What the runner shall be called; by default what the enrolment token is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
