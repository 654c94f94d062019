//! AWS Signature Version 4, as far as one POST with a body needs it (AWS's "Create a signed AWS API
//! request").

use std::time::SystemTime;

use legwork_base::Secret;
use legwork_base::digest::hex;
use ring::hmac;
use sha2::{Digest, Sha256};
use url::Url;

use super::encoded;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a request is signed with.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: Secret,
    /// Comes with keys that are good for a while only.
    pub(crate) session: Option<Secret>,
}

/// For where and when a signature is good.
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) now: SystemTime,
}

/// What is signed.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a Url,
    /// Beside the host and what the signature itself needs; lower-case.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// Headers that are to be sent beside those that were given.
pub(super) fn sign(keys: &Keys, scope: &Scope<'_>, asked: &Asked<'_>) -> Vec<(&'static str, String)> {
    let (date, time) = stamp(scope.now);
    let host = match (asked.url.host_str(), asked.url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let mut headers: Vec<(&str, String)> =
        asked.headers.iter().map(|(name, value)| (*name, value.trim().to_owned())).collect();
    headers.push(("host", host));
    headers.push(("x-amz-date", time.clone()));
    let token = keys.session.as_ref().map(|token| token.expose().to_owned());
    headers.extend(token.clone().map(|token| ("x-amz-security-token", token)));
    headers.sort();
    let listed: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let canonical = format!(
        "{}\n{}\n{}\n{listed}\n{names}\n{}",
        asked.method,
        path(asked.url),
        query(asked.url),
        hex(Sha256::digest(asked.body))
    );
    let within = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!("{ALGORITHM}\n{time}\n{within}\n{}", hex(Sha256::digest(canonical)));
    let mut key = format!("AWS4{}", keys.secret.expose()).into_bytes();
    for part in [date.as_str(), scope.region, scope.service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex(mac(&key, to_sign.as_bytes()));
    let authorization =
        format!("{ALGORITHM} Credential={}/{within}, SignedHeaders={names}, Signature={signature}", keys.id);
    let mut more = vec![("x-amz-date", time), ("authorization", authorization)];
    more.extend(token.map(|token| ("x-amz-security-token", token)));
    more
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

/// Each part of the path as it is sent, encoded once more: so it is with every service but S3. The
/// `:` of a model's name is `%3A` in the address and `%253A` here.
fn path(url: &Url) -> String {
    url.path().split('/').map(encoded).collect::<Vec<_>>().join("/")
}

fn query(url: &Url) -> String {
    let mut pairs: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (encoded(&name), encoded(&value))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// The date, and date and time, as `YYYYMMDD` and `YYYYMMDDTHHMMSSZ`.
fn stamp(now: SystemTime) -> (String, String) {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, within) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = legwork_proto::civil::date(i64::try_from(days).unwrap_or(0));
    let date = format!("{year:04}{month:02}{day:02}");
    let time = format!("{date}T{:02}{:02}{:02}Z", within / 3600, within / 60 % 60, within % 60);
    (date, time)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn signature(
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
        session: Option<&str>,
    ) -> String {
        let keys = Keys {
            id: "AKIDEXAMPLE".into(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session: session.map(|token| Secret::new(token.to_owned())),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let scope = Scope { region: "us-east-1", service: "service", now };
        let url = Url::parse(url).expect("url");
        let asked = Asked { method, url: &url, headers, body: body.as_bytes() };
        let headers = sign(&keys, &scope, &asked);
        assert_eq!(headers[0], ("x-amz-date", "20150830T123600Z".to_owned()));
        headers[1].1.rsplit('=').next().unwrap_or_default().to_owned()
    }

    /// From AWS's own suite of test vectors (aws-sig-v4-test-suite).
    #[test]
    fn the_published_vectors_come_out() {
        let host = "https://example.amazonaws.com/";
        let form = [("content-type", "application/x-www-form-urlencoded")];
        for (name, got, want) in [
            (
                "get-vanilla",
                signature("GET", host, &[], "", None),
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                signature("GET", &format!("{host}?Param2=value2&Param1=value1"), &[], "", None),
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "post-vanilla",
                signature("POST", host, &[], "", None),
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                signature("POST", host, &form, "Param1=value1", None),
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            assert_eq!(got, want, "{name}");
        }
        // What a service that checks would say the path is, in AWS's words.
        let url =
            Url::parse("https://h/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/invoke").expect("url");
        assert_eq!(path(&url), "/model/us.anthropic.claude-sonnet-4-20250514-v1%253A0/invoke");
    }

    #[test]
    fn a_session_is_signed_and_sent() {
        let with = signature("POST", "https://example.amazonaws.com/", &[], "", Some("token"));
        assert_ne!(with, signature("POST", "https://example.amazonaws.com/", &[], "", None));
    }
}
