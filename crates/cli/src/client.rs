//! Which hub is asked, and with which token.

use anyhow::{Context as _, Result};
use legwork_api::{Client, Settings};

use crate::args::HubArgs;
use crate::context;

/// Takes address and token from flags, environment or context.
pub(crate) fn from_args(args: &HubArgs) -> Result<Client> {
    let saved = context::load();
    let token = match &args.token_file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("failed to read {}", path.display()))?
                .trim()
                .to_owned(),
        ),
        None => std::env::var("LEGWORK_TOKEN").ok().filter(|t| !t.is_empty()),
    };
    let url = args.hub_url.clone().or_else(|| saved.as_ref().map(|c| c.hub_url.clone()));
    let url = url.context(
        "no hub is known: start one with `legwork up`, or give --hub-url (or LEGWORK_HUB_URL) and LEGWORK_TOKEN",
    )?;
    // A saved token is only for the hub it was saved with.
    let token = token.or_else(|| saved.filter(|c| c.hub_url == url).map(|c| c.token));
    let token =
        token.with_context(|| format!("no token for {url}: set LEGWORK_TOKEN or give --token-file"))?;
    connect(&url, token, context::ca_file(args.ca_file.clone()).as_deref())
}

/// A client of the hub at an address.
pub(crate) fn connect(url: &str, token: String, ca_file: Option<&std::path::Path>) -> Result<Client> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))
    };
    let ca = ca_file.map(read).transpose()?;
    let user_agent = concat!("legwork/", env!("CARGO_PKG_VERSION")).into();
    Ok(Client::new(&Settings { url: url.into(), token, ca, user_agent })?)
}
