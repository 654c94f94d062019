//! Requests with the official SDK's rules for trying again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use legwork_base::Secret;
use legwork_net::cause;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::attempt::{Failed, attempt};
use crate::message::{Message, Usage};
use crate::provider::{Provider, Tokens, bearer_header, bedrock_headers};

/// The API's version that this client knows.
const API_VERSION: &str = "2026-10-21";
/// The SDK's back-off.
const FIRST_DELAY: f64 = 0.5;
const MAX_DELAY: f64 = 8.0;
/// The API can't make us wait for longer.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// For the list of models, and its most bytes.
const MODELS_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_MODELS: usize = 4 << 20;

/// A model as the API lists it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Model {
    /// Its name in requests.
    pub id: String,
    #[serde(default)]
    created_at: String,
    /// How many tokens it reads at most, where the API says so.
    #[serde(default)]
    pub max_input_tokens: Option<u64>,
}

#[derive(serde::Deserialize)]
struct Models {
    data: Vec<Model>,
}

/// How the model is reached.
#[derive(Debug, Clone)]
pub struct Api {
    /// Who serves the model.
    pub provider: Provider,
    /// Without a slash at its end.
    pub base_url: String,
    /// Needed when an agent starts, unless there is a bearer.
    pub key: Option<Secret>,
    /// What gateways and other providers of the same API want instead of a key.
    pub bearer: Option<Secret>,
    /// Attempts after the first.
    pub retries: u32,
    /// Silence after which a stream counts as broken.
    pub idle: Duration,
}

impl Api {
    /// What is missing before it can be asked, if anything is.
    pub fn lacks(&self) -> Option<&'static str> {
        self.provider.lacks(self.key.is_some() || self.bearer.is_some())
    }
}

/// What is seen of a message while it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// More text.
    Text(String),
    /// More of what the model thinks.
    Thinking(String),
    /// The call of a tool begins.
    Tool {
        /// The call.
        id: String,
        /// The tool.
        name: String,
    },
    /// All of it so far is void: it is tried again.
    Reset,
}

/// Who looks on.
pub trait Observer {
    /// Takes in what is seen; the stream waits meanwhile.
    fn see(&mut self, live: Live) -> impl Future<Output = ()>;
}

/// What kind of failure it is, for what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The API can't be reached, or won't, however often it is asked.
    Failed,
    /// The request has no room in the model's window, perhaps.
    Invalid,
    /// There is no such model.
    NoModel,
    /// The caller has stopped waiting for it.
    Stopped,
}

/// Why there is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The kind.
    pub kind: Kind,
    /// In the API's words, if it has any.
    pub message: String,
    /// What failed attempts used up.
    pub wasted: Usage,
}

/// A client of the Messages API.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    provider: Provider,
    base: String,
    /// Of all requests.
    headers: HeaderMap,
    /// Those of Google, and who asks for them.
    tokens: Arc<Tokens>,
    token_http: reqwest::Client,
    retries: u32,
    idle: Duration,
}

impl Client {
    /// A client of an API with a key, or with a bearer where there is none, or with what its
    /// provider wants. `token_http` reaches who gives out tokens.
    pub fn new(http: reqwest::Client, token_http: reqwest::Client, api: &Api) -> Result<Self, String> {
        let Api { base_url, retries, idle, provider, .. } = api;
        let mut headers = HeaderMap::new();
        if matches!(provider, Provider::Anthropic) {
            if let Some(key) = &api.key {
                let mut value = HeaderValue::from_str(key.expose())
                    .map_err(|_| "ANTHROPIC_API_KEY has characters that no header can have")?;
                value.set_sensitive(true);
                headers.insert("x-api-key", value);
            } else if let Some(bearer) = &api.bearer {
                headers.insert(AUTHORIZATION, bearer_header("ANTHROPIC_AUTH_TOKEN", bearer.expose())?);
            }
            headers.insert("anthropic-version", HeaderValue::from_static(API_VERSION));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self {
            http,
            provider: provider.clone(),
            base: base_url.clone(),
            headers,
            tokens: Arc::default(),
            token_http,
            retries: *retries,
            idle: *idle,
        })
    }

    /// Whether it is Anthropic's own API: others may not know what is new there.
    pub fn is_anthropics(&self) -> bool {
        let host = url::Url::parse(&self.base).ok().and_then(|url| url.host_str().map(str::to_owned));
        host.as_deref() == Some("api.anthropic.com")
    }

    /// Puts the beginning of a request's body into the words of who serves it.
    pub fn shape(&self, head: &mut serde_json::Map<String, serde_json::Value>, beta: Option<&str>) {
        self.provider.shape(head, beta);
    }

    /// A request for a message, with what opens the API now.
    async fn request(
        &self,
        model: &str,
        body: &Bytes,
        beta: Option<&'static str>,
    ) -> Result<reqwest::RequestBuilder, Failed> {
        let url = self.provider.url(&self.base, model);
        let mut headers = self.headers.clone();
        if let Some(beta) = beta.filter(|_| !matches!(self.provider, Provider::Bedrock(_))) {
            headers.insert("anthropic-beta", HeaderValue::from_static(beta));
        }
        let wrong =
            |message: String| Failed { kind: "invalid_request_error".into(), message, ..Failed::default() };
        match &self.provider {
            Provider::Anthropic => {}
            Provider::Bedrock(bedrock) => {
                headers.extend(bedrock_headers(bedrock, &url, body).map_err(wrong)?)
            }
            Provider::Vertex(vertex) => {
                let token = match (&vertex.account, &vertex.token) {
                    (Some(account), _) => {
                        let token = self.tokens.get(account, &self.token_http).await;
                        token.map_err(|e| Failed {
                            status: e.status,
                            message: e.message,
                            ..Failed::default()
                        })?
                    }
                    (None, Some(token)) => token.expose().to_owned(),
                    (None, None) => return Err(wrong("there is no service account".into())),
                };
                headers.insert(AUTHORIZATION, bearer_header("the token of Google", &token).map_err(wrong)?);
            }
        }
        Ok(self.http.post(url).headers(headers).body(body.clone()))
    }

    /// The models in service, the newest first.
    pub async fn models(&self) -> Result<Vec<Model>, String> {
        if !self.provider.lists_models() {
            return Err("who serves it lists no models".into());
        }
        let url = format!("{}/v1/models?limit=1000", self.base);
        let request = self.http.get(url).headers(self.headers.clone()).timeout(MODELS_TIMEOUT);
        let mut response = request.send().await.map_err(|e| cause(&e))?;
        if !response.status().is_success() {
            return Err(format!("GET /v1/models: status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| cause(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_MODELS {
                return Err("GET /v1/models: the list is too long".into());
            }
        }
        let list: Models = serde_json::from_slice(&body).map_err(|e| format!("GET /v1/models: {e}"))?;
        let mut models = list.data;
        // RFC 3339 in UTC sorts as text does; who gives no dates lists the newest first.
        models.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        Ok(models)
    }

    /// Asks for a message; also returns what failed attempts used up. `beta` names what of the
    /// API the request needs beside its common part. When `stop` is done the request ends, with
    /// [`Kind::Stopped`].
    pub async fn message<O: Observer>(
        &self,
        model: &str,
        body: Bytes,
        beta: Option<&'static str>,
        stop: impl Future<Output = ()>,
        observer: &mut O,
    ) -> Result<(Message, Usage), ApiError> {
        let mut stop = std::pin::pin!(stop);
        let mut wasted = Usage::default();
        let mut patience = Patience::new(self.retries);
        loop {
            let trying = async {
                let request = self.request(model, &body, beta).await?;
                attempt(request, self.idle, observer).await
            };
            let tried = tokio::select! {
                tried = trying => tried,
                () = &mut stop => return Err(stopped(wasted)),
            };
            let failed = match tried {
                Ok(message) => return Ok((message, wasted)),
                Err(failed) => failed,
            };
            wasted.input += failed.usage.input;
            wasted.output += failed.usage.output;
            wasted.cache_creation += failed.usage.cache_creation;
            wasted.cache_read += failed.usage.cache_read;
            if failed.midway {
                observer.see(Live::Reset).await;
            }
            let Some(delay) = patience.after(&failed) else {
                let message = format!("{}{}", failed.message, patience.told());
                return Err(ApiError { kind: kind(&failed), message, wasted });
            };
            tracing::warn!(
                attempt = patience.failures,
                delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                error = %failed.message,
                "the Messages API failed: trying again"
            );
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = &mut stop => return Err(stopped(wasted)),
            }
        }
    }
}

/// How often it is tried again, and what has been waited for.
struct Patience {
    most: u32,
    failures: u32,
    waited: Duration,
}

impl Patience {
    fn new(most: u32) -> Self {
        Self { most, failures: 0, waited: Duration::ZERO }
    }

    /// How long to wait before it is tried again, if it is.
    fn after(&mut self, failed: &Failed) -> Option<Duration> {
        if !is_worth_another(failed) || self.failures >= self.most {
            return None;
        }
        let delay = delay(failed, self.failures);
        self.failures += 1;
        self.waited += delay;
        Some(delay)
    }

    /// What became of it, for who reads the error.
    fn told(&self) -> String {
        match (self.failures, self.waited.as_secs() / 60) {
            (0, _) => String::new(),
            (failures, 0) => format!(" (after {} attempts)", failures + 1),
            (failures, minutes) => format!(" (after {} attempts in {minutes} minutes)", failures + 1),
        }
    }
}

fn stopped(wasted: Usage) -> ApiError {
    ApiError { kind: Kind::Stopped, message: "the request was stopped".into(), wasted }
}

fn header<'a>(failed: &'a Failed, name: &str) -> Option<&'a str> {
    failed.headers.get(name)?.to_str().ok()
}

fn is_worth_another(failed: &Failed) -> bool {
    match header(failed, "x-should-retry") {
        Some("true") => return true,
        Some("false") => return false,
        _ => {}
    }
    match failed.status {
        Some(status) => matches!(status, 408 | 409 | 429) || status >= 500,
        // No answer, a cut, silence, or an error in the middle of the stream.
        None => !matches!(
            failed.kind.as_str(),
            "invalid_request_error"
                | "authentication_error"
                | "billing_error"
                | "permission_error"
                | "not_found_error"
                | "request_too_large"
        ),
    }
}

fn kind(failed: &Failed) -> Kind {
    match (failed.status, failed.kind.as_str()) {
        (Some(404), _) | (_, "not_found_error") => Kind::NoModel,
        (Some(400 | 413), _) | (_, "invalid_request_error" | "request_too_large") => Kind::Invalid,
        _ => Kind::Failed,
    }
}

/// `retry-after-ms`, `retry-after` in seconds or as a date, else the SDK's back-off.
fn delay(failed: &Failed, failures: u32) -> Duration {
    let number = |name: &str| header(failed, name).and_then(|text| text.trim().parse::<f64>().ok());
    let told = number("retry-after-ms")
        .map(|ms| ms / 1000.0)
        .filter(|s| *s > 0.0)
        .or_else(|| number("retry-after").or_else(|| header(failed, "retry-after").and_then(seconds_until)));
    match told.filter(|seconds| seconds.is_finite() && *seconds > 0.0) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(MAX_WAIT).min(MAX_WAIT),
        None => {
            let base = (FIRST_DELAY * 2f64.powi(failures.min(16).cast_signed())).min(MAX_DELAY);
            Duration::from_secs_f64(base * (1.0 - 0.25 * legwork_base::ids::fraction()))
        }
    }
}

/// From an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds_until(date: &str) -> Option<f64> {
    let parts: Vec<&str> = date.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else { return None };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i64::try_from(months.iter().position(|m| *m == month)?).ok()? + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    // The day whose date it is, found from a close guess.
    let guess = (year - 1970) * 365 + (year - 1969) / 4 + (month - 1) * 30 + day;
    let days = (guess - 40..guess + 40).find(|d| legwork_proto::civil::date(*d) == (year, month, day))?;
    let clock: Vec<i64> = time.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = clock[..] else { return None };
    let then = days * 86_400 + hours * 3600 + minutes * 60 + seconds;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    i32::try_from(then - i64::try_from(now).ok()?).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(status: Option<u16>, kind: &str, headers: &[(&'static str, &str)]) -> Failed {
        let headers = headers
            .iter()
            .map(|(k, v)| (reqwest::header::HeaderName::from_static(k), v.parse().expect("value")))
            .collect();
        Failed { status, kind: kind.into(), headers, ..Failed::default() }
    }

    #[test]
    fn the_sdks_rules_for_trying_again() {
        for (status, again) in [
            (400, false),
            (401, false),
            (404, false),
            (408, true),
            (409, true),
            (413, false),
            (422, false),
            (429, true),
            (500, true),
            (529, true),
        ] {
            assert_eq!(is_worth_another(&failed(Some(status), "", &[])), again, "{status}");
            assert!(!is_worth_another(&failed(Some(status), "", &[("x-should-retry", "false")])));
            assert!(is_worth_another(&failed(Some(status), "", &[("x-should-retry", "true")])));
        }
        assert!(is_worth_another(&failed(None, "overloaded_error", &[])));
        assert!(is_worth_another(&failed(None, "", &[])));
        assert!(!is_worth_another(&failed(None, "invalid_request_error", &[])));
    }

    /// An API that refuses for an hour is asked as rarely as it wants, and then no more.
    #[test]
    fn patience_has_an_end() {
        let refused = failed(Some(429), "rate_limit_error", &[("retry-after", "3600")]);
        let mut patience = Patience::new(8);
        let waits: Vec<Duration> = std::iter::from_fn(|| patience.after(&refused)).collect();
        assert_eq!(waits, [MAX_WAIT; 8]);
        assert_eq!(patience.told(), " (after 9 attempts in 80 minutes)");
        assert_eq!(patience.after(&failed(Some(200), "", &[])), None, "it does not begin anew");
        let mut short = Patience::new(2);
        let plain = failed(Some(529), "overloaded_error", &[]);
        assert!(std::iter::from_fn(|| short.after(&plain)).all(|wait| wait <= Duration::from_secs(1)));
        assert_eq!(short.told(), " (after 3 attempts)");
        assert_eq!(Patience::new(8).told(), "", "what is not tried again");
    }

    #[test]
    fn delays_are_what_the_api_says_or_the_sdks() {
        for (headers, want) in [
            (&[("retry-after-ms", "250"), ("retry-after", "9")][..], 0.25),
            (&[("retry-after", "3")], 3.0),
            (&[("retry-after", "9999999")], 600.0),
        ] {
            assert_eq!(delay(&failed(Some(429), "", headers), 0), Duration::from_secs_f64(want));
        }
        for (n, base) in [(0, 0.5), (1, 1.0), (4, 8.0), (12, 8.0)] {
            let got = delay(&failed(Some(500), "", &[("retry-after", "soon")]), n).as_secs_f64();
            assert!((base * 0.75..=base).contains(&got), "{n}: {got}");
        }
        assert_eq!(
            seconds_until("Sun, 06 Nov 1994 08:49:37 GMT").map(|s| s < 0.0),
            Some(true),
            "a date in the past"
        );
        let later = seconds_until("Wed, 01 Jan 2031 00:00:00 GMT").expect("date");
        assert!(later > 1e7 && later < 2e8, "{later}");
    }
}
