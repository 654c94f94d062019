//! HTTP clients, made when they are first needed: a pod whose hub is next door does not pay
//! for certificates.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The protocol's time limit of the client.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// Callbacks, registering, messages: short answers.
    Hub,
    /// Streams, which have their own watch.
    Model,
}

#[derive(Debug)]
pub(crate) struct Clients {
    ca_file: Option<PathBuf>,
    /// By use, and whether they speak TLS.
    made: Mutex<HashMap<(Use, bool), reqwest::Client>>,
}

impl Clients {
    pub(crate) fn new(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, made: Mutex::default() }
    }

    /// The client for an address.
    pub(crate) fn get(&self, url: &str, use_: Use) -> Result<reqwest::Client, String> {
        let tls = !url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&(use_, tls)) {
            return Ok(client.clone());
        }
        let client = self.make(use_, tls)?;
        made.insert((use_, tls), client.clone());
        Ok(client)
    }

    fn make(&self, use_: Use, tls: bool) -> Result<reqwest::Client, String> {
        let mut builder =
            legwork_net::client().connect_timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        if use_ == Use::Hub {
            builder = builder.read_timeout(TIMEOUT).timeout(4 * TIMEOUT);
        }
        if !tls {
            // It follows no redirect, so it never comes to need one.
            builder = builder.tls_certs_only([]);
        } else if let Some(path) = &self.ca_file {
            builder = legwork_net::trust_file(builder, path)
                .map_err(|e| format!("LEGWORK_CA_FILE: {}: {e}", path.display()))?;
        }
        builder.build().map_err(|e| e.to_string())
    }
}
