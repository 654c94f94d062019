//! The workspace that all clients share: its parts, and what it says to those who connect.

use std::sync::Arc;

use legwork_socketio::{Handler, Hello, Request, Seen, Unreadable, payload};

use crate::access::{Access, Rights};
use crate::files::Files;
use crate::member::{Client, Member, Presence};
use crate::metrics::Metrics;
use crate::paths::Trouble;
use crate::ports::Ports;
use crate::requests::{Desk, unreadable};
use crate::settings::Settings;
use crate::shells::Shells;
use crate::terminals::Terminals;
use crate::usage::Meters;
use crate::vault::Vault;
use crate::watching::Watching;

/// A workspace. Each part has its own state and tells those who are here of its own events; here
/// they are only put together.
pub(crate) struct Workspace {
    pub(crate) presence: Arc<Presence>,
    pub(crate) files: Arc<Files>,
    pub(crate) terminals: Arc<Terminals>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) watching: Arc<Watching>,
    pub(crate) metrics: Arc<Metrics>,
    access: Access,
    desk: Desk,
}

/// Why a workspace can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Its folder can't be read.
    #[error(transparent)]
    Files(#[from] legwork_workspace::Error),
    /// What it is kept in can't be used.
    #[error(transparent)]
    Vault(#[from] crate::storage::StorageError),
}

impl Workspace {
    /// `own_port` is the one that the server listens on.
    pub(crate) fn open(
        settings: &Settings,
        shells: Arc<Shells>,
        own_port: u16,
    ) -> Result<Arc<Self>, OpenError> {
        let presence = Presence::new(settings.max_connections);
        let files = Files::open(settings, presence.clone())?;
        let vault = Arc::new(Vault::open(settings, &files.root, presence.clone())?);
        let networks = shells.networks().clone();
        let ports = Ports::new(networks, presence.clone(), own_port, settings.user_port);
        let terminals = Terminals::new(shells, presence.clone(), settings);
        let watching = Watching::new(files.clone(), presence.clone());
        let metrics = Arc::new(Metrics::default());
        let desk = Desk {
            files: files.clone(),
            terminals: terminals.clone(),
            ports: ports.clone(),
            watching: watching.clone(),
            metrics: metrics.clone(),
        };
        let access = settings.access.clone();
        Ok(Arc::new(Self { presence, files, terminals, vault, ports, watching, metrics, access, desk }))
    }

    /// What is asked when somebody wants to know what is used.
    pub(crate) fn meters(&self) -> Arc<Meters> {
        Arc::new(Meters {
            files: self.files.clone(),
            presence: self.presence.clone(),
            terminals: self.terminals.clone(),
            metrics: self.metrics.clone(),
        })
    }
}

impl Handler for Workspace {
    type Member = Member;

    fn admit(&self, hello: &Hello<'_>) -> Option<Member> {
        Member::admit(&self.access, hello)
    }

    fn may_return(&self, before: &Member, now: &Member) -> bool {
        now.rights == Rights::Work || now.rights == before.rights
    }

    fn joined(&self, client: &Arc<Client>) {
        let room = client.at_once();
        if self.vault.is_loaded()
            && let Err(error) = self.terminals.main.ensure_started()
        {
            let trouble = Trouble::new("terminal_unavailable", format!("cannot start shell: {error}"));
            client.answer(room, "terminal:error", payload(&trouble.failed()));
        }
        self.terminals.show_main(client, room, client.member.replay);
    }

    fn returned(&self, _: &Arc<Client>) {
        self.terminals.tell_all();
    }

    fn left(&self, _: &Arc<Client>) {
        // Terminals may have another size without them.
        self.terminals.tell_all();
    }

    fn gone(&self, client: &Arc<Client>) {
        client.member.requests.close();
    }

    async fn request(&self, client: &Arc<Client>, request: Request) {
        self.metrics.request();
        self.vault.loaded().await;
        self.desk.take(client, request).await;
    }

    fn unreadable(&self, client: &Arc<Client>, what: Unreadable) {
        unreadable(client, what);
    }

    fn seen(&self, what: Seen) {
        match what {
            Seen::Connected => self.metrics.connected(),
            Seen::Recovered => self.metrics.recovered(),
            Seen::Refused => self.metrics.refused(),
            Seen::Message => self.metrics.received(),
        }
    }
}
