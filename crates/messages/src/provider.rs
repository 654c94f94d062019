//! Who serves the model: Anthropic's own API or one that speaks it, Amazon Bedrock, or Google's
//! Vertex AI. They differ in address, in what opens them, and in the frame around the same body.

mod eventstream;
mod google;
mod sigv4;

use std::fmt::Write as _;

use legwork_base::Secret;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

pub(crate) use eventstream::{Frames, error_kind};
pub(crate) use google::{Account, Tokens};
pub(crate) use sigv4::Keys;

/// The versions of the API that both say they speak.
const BEDROCK_VERSION: &str = "bedrock-2023-05-31";
const VERTEX_VERSION: &str = "vertex-2023-10-16";
/// A model's name is a part of an address there.
const MAX_MODEL: usize = 2048;

/// Who serves the model, and what opens it.
#[derive(Debug, Clone, Default)]
pub enum Provider {
    /// Anthropic, or whoever speaks the same at the same path.
    #[default]
    Anthropic,
    /// Amazon Bedrock.
    Bedrock(Bedrock),
    /// Google's Vertex AI.
    Vertex(Vertex),
}

/// Amazon Bedrock: requests are signed, or carry a key of Bedrock's own.
#[derive(Debug, Clone)]
pub struct Bedrock {
    pub(crate) region: String,
    pub(crate) keys: Option<Keys>,
    pub(crate) bearer: Option<Secret>,
}

/// Vertex AI: requests carry a token, which a service account gets for an hour at a time.
#[derive(Debug, Clone)]
pub struct Vertex {
    pub(crate) project: String,
    pub(crate) region: String,
    pub(crate) account: Option<Account>,
    pub(crate) token: Option<Secret>,
}

impl Provider {
    /// Reads `LEGWORK_PROVIDER` and what belongs to each, by a function that gives variables which
    /// are set to something; also the address of the API.
    pub fn read<'e>(env: &dyn Fn(&str) -> Option<&'e str>) -> Result<(Self, String), String> {
        let needed = |names: &[&str], provider: &str| {
            let found = names.iter().find_map(|name| env(name));
            found
                .map(str::to_owned)
                .ok_or_else(|| format!("LEGWORK_PROVIDER={provider} needs {}", names.join(" or ")))
        };
        let secret = |name: &str| env(name).map(|value| Secret::new(value.to_owned()));
        let at = |name: &str, default: String| {
            env(name).map_or(default, |url| url.trim_end_matches('/').to_owned())
        };
        match env("LEGWORK_PROVIDER") {
            None | Some("anthropic") => {
                Ok((Self::Anthropic, at("ANTHROPIC_BASE_URL", "https://api.anthropic.com".into())))
            }
            Some("bedrock") => {
                let region = needed(&["AWS_REGION", "AWS_DEFAULT_REGION"], "bedrock")?;
                is_name("AWS_REGION", &region)?;
                let keys = match (env("AWS_ACCESS_KEY_ID"), secret("AWS_SECRET_ACCESS_KEY")) {
                    (Some(id), Some(secret_key)) => Some(Keys {
                        id: id.to_owned(),
                        secret: secret_key,
                        session: secret("AWS_SESSION_TOKEN"),
                    }),
                    _ => None,
                };
                let url = format!("https://bedrock-runtime.{region}.amazonaws.com");
                let bedrock = Bedrock { region, keys, bearer: secret("AWS_BEARER_TOKEN_BEDROCK") };
                Ok((Self::Bedrock(bedrock), at("ANTHROPIC_BEDROCK_BASE_URL", url)))
            }
            Some("vertex") => {
                let region = needed(&["CLOUD_ML_REGION"], "vertex")?;
                let project = needed(&["ANTHROPIC_VERTEX_PROJECT_ID", "GOOGLE_CLOUD_PROJECT"], "vertex")?;
                is_name("CLOUD_ML_REGION", &region)?;
                is_name("ANTHROPIC_VERTEX_PROJECT_ID", &project)?;
                let account = match (env("LEGWORK_GOOGLE_CREDENTIALS"), env("GOOGLE_APPLICATION_CREDENTIALS"))
                {
                    (Some(text), _) => {
                        Some(Account::read(text).map_err(|e| format!("LEGWORK_GOOGLE_CREDENTIALS: {e}"))?)
                    }
                    (None, Some(path)) => Some(account_file(path)?),
                    (None, None) => None,
                };
                let url = match region.as_str() {
                    "global" => "https://aiplatform.googleapis.com/v1".to_owned(),
                    "us" | "eu" => format!("https://aiplatform.{region}.rep.googleapis.com/v1"),
                    region => format!("https://{region}-aiplatform.googleapis.com/v1"),
                };
                let vertex = Vertex { project, region, account, token: secret("GOOGLE_OAUTH_ACCESS_TOKEN") };
                Ok((Self::Vertex(vertex), at("ANTHROPIC_VERTEX_BASE_URL", url)))
            }
            Some(other) => Err(format!("LEGWORK_PROVIDER: '{other}' is none of anthropic, bedrock, vertex")),
        }
    }

    /// Whether a task may name a model that nobody has listed.
    pub fn knows(&self, model: &str) -> bool {
        if model.len() > MAX_MODEL || model.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return false;
        }
        match self {
            Self::Anthropic | Self::Vertex(_) => model.starts_with("claude-"),
            // Of a region, of all of them, or a profile of one's own.
            Self::Bedrock(_) => {
                model.split(['.', '/']).any(|part| part == "anthropic")
                    || model.starts_with("claude-")
                    || model.starts_with("arn:")
            }
        }
    }

    /// What is missing before it can be asked, if anything is. `opened`: there is a key or a bearer
    /// for an API that takes those.
    pub fn lacks(&self, opened: bool) -> Option<&'static str> {
        match self {
            Self::Anthropic if !opened => Some("ANTHROPIC_API_KEY environment variable is required"),
            Self::Bedrock(bedrock) if bedrock.keys.is_none() && bedrock.bearer.is_none() => Some(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_BEARER_TOKEN_BEDROCK, are required for bedrock",
            ),
            Self::Vertex(vertex) if vertex.account.is_none() && vertex.token.is_none() => Some(
                "GOOGLE_APPLICATION_CREDENTIALS (a service account's file), or GOOGLE_OAUTH_ACCESS_TOKEN, is required for vertex",
            ),
            _ => None,
        }
    }

    /// What must never be told.
    pub fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::Anthropic => Vec::new(),
            Self::Bedrock(bedrock) => {
                let keys = bedrock.keys.iter().flat_map(|keys| [Some(&keys.secret), keys.session.as_ref()]);
                keys.flatten().chain(&bedrock.bearer).collect()
            }
            Self::Vertex(vertex) => vertex.token.iter().collect(),
        }
    }

    /// Where tokens are asked for, if that is done.
    pub fn token_uri(&self) -> Option<&str> {
        match self {
            Self::Vertex(vertex) => vertex.account.as_ref().map(|account| account.token_uri.as_str()),
            _ => None,
        }
    }

    /// Whether it lists its models where Anthropic does.
    pub(crate) fn lists_models(&self) -> bool {
        matches!(self, Self::Anthropic)
    }

    /// Where a message is asked for.
    pub(crate) fn url(&self, base: &str, model: &str) -> String {
        match self {
            Self::Anthropic => format!("{base}/v1/messages"),
            Self::Bedrock(_) => format!("{base}/model/{}/invoke-with-response-stream", encoded(model)),
            Self::Vertex(Vertex { project, region, .. }) => format!(
                "{base}/projects/{project}/locations/{region}/publishers/anthropic/models/{}:streamRawPredict",
                encoded(model)
            ),
        }
    }

    /// Puts the beginning of a request's body into the provider's words.
    pub(crate) fn shape(&self, head: &mut Map<String, Value>, beta: Option<&str>) {
        match self {
            Self::Anthropic => {}
            Self::Bedrock(_) => {
                head.remove("model");
                head.remove("stream");
                head.insert("anthropic_version".into(), BEDROCK_VERSION.into());
                if let Some(beta) = beta {
                    head.insert("anthropic_beta".into(), json!([beta]));
                }
            }
            Self::Vertex(_) => {
                head.remove("model");
                head.insert("anthropic_version".into(), VERTEX_VERSION.into());
            }
        }
    }
}

/// Headers of one request to Bedrock.
pub(crate) fn bedrock_headers(bedrock: &Bedrock, url: &str, body: &[u8]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if let Some(bearer) = &bedrock.bearer {
        headers.insert(AUTHORIZATION, bearer_header("AWS_BEARER_TOKEN_BEDROCK", bearer.expose())?);
        return Ok(headers);
    }
    let keys = bedrock.keys.as_ref().ok_or("there are no keys of AWS")?;
    let url = url::Url::parse(url).map_err(|e| e.to_string())?;
    let scope =
        sigv4::Scope { region: &bedrock.region, service: "bedrock", now: std::time::SystemTime::now() };
    let asked =
        sigv4::Asked { method: "POST", url: &url, headers: &[("content-type", "application/json")], body };
    for (name, value) in sigv4::sign(keys, &scope, &asked) {
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| "a key of AWS has characters that no header can have")?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

pub(crate) fn bearer_header(variable: &str, token: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| format!("{variable} has characters that no header can have"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn account_file(path: &str) -> Result<Account, String> {
    let failed = |e: &dyn std::fmt::Display| format!("GOOGLE_APPLICATION_CREDENTIALS: {path}: {e}");
    let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
    Account::read(&text).map_err(|e| failed(&e))
}

/// It becomes part of an address.
fn is_name(variable: &str, name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.');
    match name.chars().all(is_plain) && !name.contains("..") {
        true => Ok(()),
        false => Err(format!("{variable}: '{name}' is no such name")),
    }
}

/// As a part of a path (RFC 3986): all but the unreserved characters.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<(Provider, String), String> {
        Provider::read(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    #[test]
    fn each_has_its_address_and_its_frame() {
        let (provider, base) =
            read(&[("LEGWORK_PROVIDER", "bedrock"), ("AWS_REGION", "eu-west-1")]).expect("ok");
        assert_eq!(
            provider.url(&base, "eu.anthropic.claude-x-v1:0"),
            "https://bedrock-runtime.eu-west-1.amazonaws.com/model/eu.anthropic.claude-x-v1%3A0/invoke-with-response-stream"
        );
        assert!(provider.lacks(true).is_some_and(|e| e.contains("AWS_ACCESS_KEY_ID")));
        let mut head = Map::new();
        for key in ["model", "stream", "max_tokens"] {
            head.insert(key.into(), 1.into());
        }
        provider.shape(&mut head, Some("b"));
        let shaped =
            json!({"anthropic_version": "bedrock-2023-05-31", "anthropic_beta": ["b"], "max_tokens": 1});
        assert_eq!(Value::Object(head), shaped);
        let vertex =
            [("LEGWORK_PROVIDER", "vertex"), ("CLOUD_ML_REGION", "global"), ("GOOGLE_CLOUD_PROJECT", "p-1")];
        let (provider, base) = read(&vertex).expect("ok");
        assert_eq!(
            provider.url(&base, "claude-x@20260101"),
            "https://aiplatform.googleapis.com/v1/projects/p-1/locations/global/publishers/anthropic/models/claude-x%4020260101:streamRawPredict"
        );
        for (pairs, problem) in [
            (&[("LEGWORK_PROVIDER", "azure")][..], "none of anthropic"),
            (&[("LEGWORK_PROVIDER", "bedrock")], "needs AWS_REGION"),
            (&[("LEGWORK_PROVIDER", "bedrock"), ("AWS_REGION", "x/../y")], "no such name"),
            (&[("LEGWORK_PROVIDER", "vertex"), ("CLOUD_ML_REGION", "global")], "PROJECT_ID"),
        ] {
            assert!(read(pairs).is_err_and(|e| e.contains(problem)), "{problem}");
        }
    }

    #[test]
    fn models_are_named_as_each_names_them() {
        let (bedrock, _) = read(&[("LEGWORK_PROVIDER", "bedrock"), ("AWS_REGION", "us-east-1")]).expect("ok");
        for (model, known) in [
            ("us.anthropic.claude-sonnet-5-v1:0", true),
            ("anthropic.claude-opus-5-v1:0", true),
            ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", true),
            ("amazon.titan", false),
            ("anthropic.claude x", false),
        ] {
            assert_eq!(bedrock.knows(model), known, "{model}");
        }
        assert!(Provider::Anthropic.knows("claude-x") && !Provider::Anthropic.knows("gpt"));
    }
}
