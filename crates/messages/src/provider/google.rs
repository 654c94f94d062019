//! Tokens of a Google service account: a signed claim is exchanged for one that is good for an hour
//! (Google's "Using OAuth 2.0 for server to server applications", RFC 7523).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use legwork_net::cause;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::json;
use tokio::sync::Mutex;

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const LIFE: Duration = Duration::from_secs(3600);
/// A token is not used for the last of its life: a request may be under way for long.
const EARLY: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 * 1024;

/// A service account.
#[derive(Clone)]
pub(crate) struct Account {
    email: String,
    key_id: Option<String>,
    pub(super) token_uri: String,
    key: Arc<RsaKeyPair>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.email)
    }
}

#[derive(serde::Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    client_email: String,
    #[serde(default)]
    private_key_id: Option<String>,
    #[serde(default)]
    private_key: String,
    #[serde(default)]
    token_uri: Option<String>,
}

impl Account {
    /// Reads the JSON that Google gives out.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let file: File =
            serde_json::from_str(text).map_err(|e| format!("no JSON of a service account: {e}"))?;
        if file.kind != "service_account" {
            return Err(format!("its type is '{}': only service_account can be used", file.kind));
        }
        let body: String = file.private_key.lines().filter(|line| !line.starts_with("-----")).collect();
        let wrong = |e: &dyn std::fmt::Display| format!("private_key is no RSA key in PKCS #8: {e}");
        let der = STANDARD.decode(body.trim()).map_err(|e| wrong(&e))?;
        let key = RsaKeyPair::from_pkcs8(&der).map_err(|e| wrong(&e))?;
        let token_uri = file.token_uri.unwrap_or_else(|| TOKEN_URI.to_owned());
        if file.client_email.is_empty() {
            return Err("it has no client_email".into());
        }
        Ok(Self { email: file.client_email, key_id: file.private_key_id, token_uri, key: Arc::new(key) })
    }

    /// The claim that a token is asked for with.
    fn assertion(&self, now: SystemTime) -> Result<String, String> {
        let issued = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri, "iat": issued, "exp": issued + LIFE.as_secs(),
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claim = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), claim.as_bytes(), &mut signature)
            .map_err(|_| "the claim can't be signed")?;
        Ok(format!("{claim}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) struct NoToken {
    /// What Google answered, if it did.
    pub(crate) status: Option<u16>,
    pub(crate) message: String,
}

/// The tokens of an account; each is used until shortly before its end.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<Option<(String, Instant)>>);

impl Tokens {
    /// One that is good now.
    pub(crate) async fn get(&self, account: &Account, http: &reqwest::Client) -> Result<String, NoToken> {
        let mut kept = self.0.lock().await;
        if let Some((token, until)) = kept.as_ref().filter(|(_, until)| *until > Instant::now()) {
            let _ = until;
            return Ok(token.clone());
        }
        let (token, life) = ask(account, http).await?;
        let until = Instant::now() + life.saturating_sub(EARLY);
        Ok(kept.insert((token, until)).0.clone())
    }
}

async fn ask(account: &Account, http: &reqwest::Client) -> Result<(String, Duration), NoToken> {
    let failed = |status: Option<u16>, message: String| NoToken {
        status,
        message: format!("no token of Google: {message}"),
    };
    let assertion = account.assertion(SystemTime::now()).map_err(|e| failed(Some(400), e))?;
    // The claim is of base64url and dots alone.
    let form =
        format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
    let request = http
        .post(&account.token_uri)
        .header("content-type", "application/x-www-form-urlencoded")
        .timeout(TIMEOUT)
        .body(form);
    let mut answer = request.send().await.map_err(|e| failed(None, cause(&e)))?;
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| failed(None, cause(&e)))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err(failed(None, "the answer is too long".into()));
        }
    }
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        access_token: String,
        #[serde(default)]
        expires_in: u64,
        #[serde(default)]
        error: String,
        #[serde(default)]
        error_description: String,
    }
    let said: Answer =
        serde_json::from_slice(&body).map_err(|_| failed(Some(status), format!("status {status}")))?;
    if status != 200 || said.access_token.is_empty() {
        return Err(failed(
            Some(status),
            format!("{} {}", said.error, said.error_description).trim().to_owned(),
        ));
    }
    Ok((said.access_token, Duration::from_secs(said.expires_in.min(LIFE.as_secs()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_service_account_is_said_so() {
        for (text, problem) in [
            ("x", "no JSON"),
            (r#"{"type": "authorized_user"}"#, "only service_account"),
            (r#"{"type": "service_account", "client_email": "a@b", "private_key": "%"}"#, "PKCS #8"),
            (
                r#"{"type": "service_account", "client_email": "a@b", "private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}"#,
                "PKCS #8",
            ),
        ] {
            assert!(Account::read(text).is_err_and(|e| e.contains(problem)), "{text}");
        }
    }
}
