//! What is served: a workspace, and the ways to it.

use std::sync::Arc;

use legwork_socketio::Server;

use super::preview::Previews;
use super::uploads::Uploads;
use crate::settings::Settings;
use crate::workspace::Workspace;

/// Sessions that have not joined yet, beside those that may.
const MAX_UNJOINED: usize = 256;
/// As JSON a file may be six times as large as it is: a save is larger than other messages.
const LARGE: &[&str] = &["updateContent"];

/// All that answers a request.
pub(crate) struct Site {
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) sockets: Server<Workspace>,
    pub(crate) previews: Previews,
    pub(crate) uploads: Uploads,
    pub(crate) settings: Settings,
}

impl Site {
    pub(crate) fn new(workspace: Arc<Workspace>, settings: Settings) -> Arc<Self> {
        let served = legwork_socketio::Settings {
            max_payload: settings.max_payload,
            max_message: settings.max_message,
            large: LARGE,
            ping_interval: settings.ping_interval,
            ping_timeout: settings.ping_timeout,
            recovery: settings.recovery,
            max_sessions: settings.max_connections + MAX_UNJOINED,
        };
        let sockets = Server::new(workspace.clone(), workspace.presence.clone(), served);
        let networks = workspace.terminals.shells.networks().clone();
        let previews = Previews::new(networks, &settings, workspace.ports.own, workspace.metrics.clone());
        Arc::new(Self { workspace, sockets, previews, uploads: Uploads::default(), settings })
    }
}
