//! Tokens: made, revoked, and brought in from the machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use legwork_store::{StoreError, Token};
use serde::{Deserialize, Serialize};

use super::folder::admin_secret;
use super::{Ending, Hub, OpenError, no_randomness};
use crate::auth::{Checked, hash};
use crate::clock::{now_ms, secret, sortable_id};
use crate::fleet::Runner;
use crate::model::Role;

/// Where tokens made on the machine wait for the hub.
const WAITING: &str = "tokens.new";
/// A file of one is no larger.
const MAX_FILE: u64 = 64 * 1024;

/// A token to be.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) expires_at_ms: Option<u64>,
}

/// A token as its file says it, without its secret.
#[derive(Serialize, Deserialize)]
struct Waiting {
    id: String,
    name: String,
    hash: String,
}

impl Hub {
    pub(super) async fn make_admin(self: &Arc<Self>) -> Result<PathBuf, OpenError> {
        let path = self.data.join("admin.token");
        let new = secret().map_err(|source| OpenError::Folder { path: path.clone(), source })?;
        let secret = admin_secret(&path, new)?;
        self.add_token(admin("admin"), secret).await?;
        Ok(path)
    }

    /// Makes an admin's token for who is on this machine, and returns it.
    pub async fn local_admin(self: &Arc<Self>, name: &str) -> Result<String, OpenError> {
        Ok(self.new_token(admin(name)).await?.1)
    }

    /// Whether a secret opens everything here.
    pub fn admits_admin(&self, secret: &str) -> bool {
        let from = std::net::IpAddr::from([127, 0, 0, 1]);
        matches!(self.auth.check(secret, from), Checked::Valid(grant) if grant.token.role == Role::Admin)
    }

    /// Makes a token. A runner's token brings its runner with it.
    pub(crate) async fn new_token(self: &Arc<Self>, new: NewToken) -> Result<(Token, String), StoreError> {
        let secret = secret().map_err(|e| no_randomness(&e))?;
        let token = self.add_token(new, secret.clone()).await?;
        Ok((token, secret))
    }

    async fn add_token(self: &Arc<Self>, new: NewToken, secret: String) -> Result<Token, StoreError> {
        let id = |prefix| sortable_id(prefix).map_err(|e| no_randomness(&e));
        let runner_id = if new.role == Role::Runner { Some(id("wn")?) } else { None };
        let token = Token {
            id: id("tok")?,
            name: new.name.clone(),
            role: new.role,
            runner_id,
            created_at_ms: now_ms(),
            expires_at_ms: new.expires_at_ms,
            revoked: false,
        };
        // A runner is known, and can be given tasks, before it ever connects.
        let runner = token.runner_id.clone().map(|id| {
            let mut runner = Runner::new(id, new.name.clone(), token.id.clone());
            runner.given_name = new.name;
            runner
        });
        let row = runner.as_ref().map(Runner::row);
        self.store.keep_token(hash(&secret), token.clone(), row).await?;
        if let Some(runner) = runner {
            self.fleet.lock().add_runner(runner);
        }
        self.auth.add(hash(&secret), token.clone());
        Ok(token)
    }

    /// Ends a token and all that hangs on it: connections, streams, and the runs of its
    /// runners. False if it was revoked before.
    pub(crate) async fn revoke_token(self: &Arc<Self>, id: &str) -> Result<bool, StoreError> {
        let first = self.store.revoke_token(id.to_owned(), now_ms()).await?;
        self.auth.revoke(id);
        self.give_up_runners_of(id, "its runner's credential was revoked").await;
        Ok(first)
    }

    /// What the runners of a token have ends, as they can't be spoken to any more.
    pub(crate) async fn give_up_runners_of(self: &Arc<Self>, token_id: &str, why: &str) {
        let runs: Vec<(String, bool)> = {
            let mut fleet = self.fleet.lock();
            let theirs: Vec<String> =
                fleet.runners.values().filter(|r| r.token_id == token_id).map(|r| r.id.clone()).collect();
            for id in &theirs {
                fleet.change(id, |runner| {
                    runner.revoked = true;
                    // Nothing more is written to it; its own task ends the connection.
                    runner.link = None;
                });
            }
            let mut runs = Vec::new();
            for runner in theirs.iter().filter_map(|id| fleet.runners.get(id)) {
                for run in runner.open.iter().filter_map(|id| fleet.runs.get(id)) {
                    runs.push((run.id.clone(), run.is_here()));
                }
            }
            runs
        };
        for (run, waits) in runs {
            let ending = if waits { Ending::cancelled_because(why) } else { Ending::lost(why) };
            self.finish(&run, ending, None).await;
        }
    }

    /// Takes in the tokens that were made on the machine (`legwork hub token`).
    pub(super) async fn take_tokens_in(self: &Arc<Self>) {
        let folder = self.data.join(WAITING);
        let Ok(entries) = std::fs::read_dir(&folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            // A file is whole when it has its name.
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            match self.take_token_in(&path).await {
                Ok(name) => tracing::warn!("an admin's token was made on this machine: {name}"),
                Err(error) => tracing::error!("{} is no token: {error}", path.display()),
            }
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::error!("failed to remove {}: {error}", path.display());
            }
        }
    }

    async fn take_token_in(&self, path: &Path) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        use std::io::Read;
        let mut text = String::new();
        std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
        let waiting: Waiting = serde_json::from_str(&text)?;
        let token = Token {
            id: waiting.id,
            name: waiting.name.clone(),
            role: Role::Admin,
            runner_id: None,
            created_at_ms: now_ms(),
            expires_at_ms: None,
            revoked: false,
        };
        if self.auth.list().iter().any(|known| known.id == token.id) {
            return Ok(waiting.name);
        }
        self.store.keep_token(waiting.hash.clone(), token.clone(), None).await?;
        self.auth.add(waiting.hash, token);
        Ok(waiting.name)
    }

    /// Makes an admin's token on the machine, whether the hub runs or not: a running one
    /// takes it in within a second. For who may write to the data folder.
    pub fn make_token_offline(data: &Path, name: &str) -> std::io::Result<String> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
        if !data.join("hub.db").is_file() {
            let text = format!("{} is no hub's data folder: it has no hub.db", data.display());
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, text));
        }
        let owner = std::fs::metadata(data)?;
        // Root makes it for the account that the hub runs as.
        let hand_over = |path: &Path| {
            let mine = std::fs::metadata(path)?;
            if mine.uid() == owner.uid() {
                return Ok(());
            }
            std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
        };
        let folder = data.join(WAITING);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        hand_over(&folder)?;
        let secret = secret()?;
        let id = sortable_id("tok")?;
        let waiting = Waiting { id: id.clone(), name: name.to_owned(), hash: hash(&secret) };
        let temporary = folder.join(format!("{id}.part"));
        let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        serde_json::to_writer(&file, &waiting)?;
        file.sync_all()?;
        hand_over(&temporary)?;
        std::fs::rename(&temporary, folder.join(format!("{id}.json")))?;
        Ok(secret)
    }
}

fn admin(name: &str) -> NewToken {
    NewToken { name: name.to_owned(), role: Role::Admin, expires_at_ms: None }
}
