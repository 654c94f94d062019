//! The way out over HTTP: what each client of this program has in common. Whom it asks, how
//! long it waits and what it follows are its own.

use std::path::Path;

pub use reqwest;
use reqwest::{Certificate, Client, ClientBuilder, Error, Response};

/// What every client says it is.
pub const USER_AGENT: &str = concat!("legwork/", env!("CARGO_PKG_VERSION"));

/// Why certificates of one's own can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file can't be read.
    #[error("{0}")]
    Unreadable(std::io::Error),
    /// It is not PEM, or holds something else than certificates.
    #[error("{0}")]
    Invalid(String),
}

/// A client that says what it is.
pub fn client() -> ClientBuilder {
    Client::builder().user_agent(USER_AGENT)
}

/// Lets a client trust certificates in PEM, beside those of the system.
pub fn trust(mut builder: ClientBuilder, pem: &[u8]) -> Result<ClientBuilder, CaError> {
    let certificates = Certificate::from_pem_bundle(pem).map_err(|e| CaError::Invalid(cause(&e)))?;
    for certificate in certificates {
        builder = builder.add_root_certificate(certificate);
    }
    Ok(builder)
}

/// The same for those in a file.
pub fn trust_file(builder: ClientBuilder, path: &Path) -> Result<ClientBuilder, CaError> {
    trust(builder, &std::fs::read(path).map_err(CaError::Unreadable)?)
}

/// Why a request failed, in the words of what failed first and without the address: that may
/// hold a key.
pub fn cause(error: &Error) -> String {
    let first = legwork_base::cause::innermost(error);
    if first.is::<Error>() {
        return if error.is_timeout() { "timed out" } else { "the request failed" }.into();
    }
    first.to_string()
}

/// Why an answer's body is not there.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection failed.
    #[error("{0}")]
    Broken(String),
    /// It is longer than it may be.
    #[error("the answer is too long")]
    TooLong,
}

/// The body of an answer, if it has at most so many bytes: no peer can make us hold more.
pub async fn body(response: &mut Response, most: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| BodyError::Broken(cause(&e)))? {
        if body.len() + chunk.len() > most {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_said_so() {
        let missing = trust_file(client(), Path::new("/nowhere/ca.pem"));
        assert!(matches!(missing, Err(CaError::Unreadable(e)) if e.kind() == std::io::ErrorKind::NotFound));
        let broken = b"-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
        assert!(matches!(trust(client(), broken), Err(CaError::Invalid(_))));
    }
}
