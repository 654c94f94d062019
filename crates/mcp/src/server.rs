//! What a controller says of a server.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};

/// An MCP server.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Server {
    /// For messages.
    pub name: String,
    /// As it was sent; [`Server::transport`] knows what it means.
    pub transport: String,
    /// stdio: the program.
    pub command: String,
    /// stdio: its arguments.
    pub args: Vec<String>,
    /// stdio: variables beside the operator's environment.
    pub env: BTreeMap<String, String>,
    /// HTTP: the address.
    pub url: String,
    /// HTTP: sent with every request.
    pub headers: BTreeMap<String, String>,
    /// HTTP: the same, and may change from call to call. These win.
    #[serde(skip)]
    pub dynamic_headers: BTreeMap<String, String>,
}

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A process of ours.
    Stdio,
    /// Streamable HTTP, or the older HTTP+SSE.
    Http,
}

impl Server {
    /// How it is reached; `None` if we know no such transport.
    pub fn transport(&self) -> Option<Transport> {
        match self.transport.as_str() {
            "stdio" => Some(Transport::Stdio),
            // The name is the original's for streamable HTTP.
            "sse" | "http" | "streamable-http" => Some(Transport::Http),
            _ => None,
        }
    }

    /// The program and its arguments.
    pub fn argv(&self) -> Vec<String> {
        std::iter::once(self.command.clone()).chain(self.args.iter().cloned()).collect()
    }

    /// Servers of one key share a session: everything but the dynamic headers.
    pub(crate) fn key(&self) -> [u8; 32] {
        // Plain strings and maps of them always serialise.
        Sha256::digest(serde_json::to_vec(self).unwrap_or_default()).into()
    }
}

/// A server's process; dropping it closes stdin and gives the process its time to
/// end.
pub struct Stdio {
    /// Writes to its stdin.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// Reads its stdout.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Keeps the process.
    pub process: Box<dyn Send + Sync>,
}

/// Starts the processes of stdio servers.
pub trait Launcher: Send + Sync + std::fmt::Debug {
    /// Starts one, or says why not.
    fn launch<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<Stdio, String>>;

    /// The name and the version by which servers know us.
    fn client(&self) -> (&'static str, &'static str);

    /// Where we work: told to servers that ask for roots.
    fn root(&self) -> Option<std::path::PathBuf> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dynamic_headers_leave_the_session_as_it_is() {
        let server = Server { name: "a".into(), transport: "http".into(), ..Server::default() };
        let key = server.key();
        let dynamic = Server { dynamic_headers: [("x".into(), "1".into())].into(), ..server.clone() };
        assert_eq!(dynamic.key(), key);
        for other in [
            Server { name: "b".into(), ..server.clone() },
            Server { headers: [("x".into(), "1".into())].into(), ..server.clone() },
            Server { env: [("x".into(), "1".into())].into(), ..server.clone() },
            Server { args: vec!["x".into()], ..server.clone() },
            Server { url: "http://x".into(), ..server },
        ] {
            assert_ne!(other.key(), key);
        }
    }
}
