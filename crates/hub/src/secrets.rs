//! Named secrets: given to tasks that may have them, and shown to nobody. At rest each is sealed with a
//! key that is not where they are.

mod bounds;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::bounds::holds;
pub(crate) use self::bounds::{Bound, Bounds, against};
use crate::clock::now_ms;
use crate::engine::Hub;

/// Where the key is; by default beside what it seals, in a file of its own.
const KEY_FILE: &str = "LEGWORK_SECRETS_KEY_FILE";
/// The largest secret, and most of them.
pub(crate) const MAX_VALUE: usize = 32 * 1024;
const MOST: usize = 1000;

/// Who may have a secret. What is empty bounds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    /// Names of the tokens whose tasks may have it.
    #[serde(default)]
    pub(crate) tokens: Vec<String>,
    /// `agent`, `workflow`.
    #[serde(default)]
    pub(crate) tasks: Vec<String>,
    /// Names of task runners; one that ends in `*` stands for all that begin so.
    #[serde(default)]
    pub(crate) runners: Vec<String>,
}

/// For whom a secret is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanting<'a> {
    pub(crate) token: &'a str,
    pub(crate) task: &'a str,
    /// `None` while it is not known who will work on it.
    pub(crate) runner: Option<&'a str>,
}

impl Scope {
    fn admits(&self, wanting: &Wanting<'_>) -> bool {
        holds(&self.tokens, wanting.token)
            && holds(&self.tasks, wanting.task)
            && wanting.runner.is_none_or(|runner| holds(&self.runners, runner))
    }
}

/// A secret without itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) set_by: String,
    pub(crate) set_at_ms: u64,
}

/// As it lies on disk.
#[derive(Serialize, Deserialize)]
struct Sealed {
    about: About,
    nonce: String,
    sealed: String,
}

/// Why a secret is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("there are as many secrets as there may be")]
    TooMany,
    /// It was changed on disk, or the key is another.
    #[error(
        "the secret '{0}' is damaged, or was sealed with another key: set it again, or bring back its file or the key"
    )]
    Unreadable(String),
    /// A new one would open nothing that is here.
    #[error(
        "the key that opens the hub's secrets is missing: put {} back where it was, or name the place where it is now \
         (LEGWORK_SECRETS_KEY_FILE of the hub); if it is lost, remove all secrets (`legwork secret rm`) and set them anew",
        .0.display()
    )]
    NoKey(PathBuf),
    #[error("the secrets can't be kept or read: {0}")]
    Io(io::Error),
}

/// Secrets without themselves, and what can't be read of them.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) items: Vec<About>,
    /// Names of files: what they hold says no other.
    pub(crate) damaged: Vec<String>,
}

impl From<io::Error> for SecretError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The folder of secrets.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    dir: PathBuf,
    key: PathBuf,
}

impl Secrets {
    pub(crate) fn new(data: &Path) -> Self {
        let key = std::env::var_os(KEY_FILE).map_or_else(|| data.join("secrets.key"), PathBuf::from);
        Self { dir: data.join("secrets"), key }
    }

    fn path(&self, name: &str) -> PathBuf {
        let digest = Sha256::digest(name);
        let name: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!("{name}.json"))
    }

    /// The key, as it is.
    fn key(&self) -> Result<LessSafeKey, SecretError> {
        match fs::read_to_string(&self.key) {
            Ok(text) => Ok(self.key_of(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SecretError::NoKey(self.key.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The key to seal with. It is made where nothing is sealed yet: beside secrets that another one
    /// sealed a new one would be taken for theirs.
    fn key_to_seal(&self) -> Result<LessSafeKey, SecretError> {
        use std::os::unix::fs::OpenOptionsExt;
        match self.key() {
            Err(SecretError::NoKey(_)) if self.records()?.is_empty() => {}
            key => return key,
        }
        let mut key = [0u8; 32];
        getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
        let made = fs::File::options().write(true).create_new(true).mode(0o600).open(&self.key);
        match made.and_then(|mut file| {
            file.write_all(hex(&key).as_bytes())?;
            file.sync_all()
        }) {
            // Or somebody else was first.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
            _ => self.key(),
        }
    }

    /// The files of secrets.
    fn records(&self) -> io::Result<Vec<PathBuf>> {
        let files = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let mut records = Vec::new();
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.push(path);
            }
        }
        Ok(records)
    }

    fn key_of(&self, text: &str) -> io::Result<LessSafeKey> {
        let bytes = unhex(text.trim()).filter(|bytes| bytes.len() == 32);
        let bytes = bytes.ok_or_else(|| {
            io::Error::other(format!(
                "{}: the key of secrets must be 64 hexadecimal digits",
                self.key.display()
            ))
        })?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| io::Error::other("no such key"))?;
        Ok(LessSafeKey::new(key))
    }

    /// Keeps a secret in place of what was called so.
    pub(crate) fn set(&self, about: About, value: &str) -> Result<About, SecretError> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let path = self.path(&about.name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        if !path.exists() && fs::read_dir(&self.dir)?.count() >= MOST {
            return Err(SecretError::TooMany);
        }
        let mut nonce = [0u8; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|e| io::Error::other(e.to_string()))?;
        let mut sealed = value.as_bytes().to_vec();
        // Whom it is for can't be changed without the key, either.
        let aad = Aad::from(serde_json::to_vec(&about).map_err(io::Error::from)?);
        self.key_to_seal()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| io::Error::other("it can't be sealed"))?;
        let record = Sealed { about: about.clone(), nonce: hex(&nonce), sealed: hex(&sealed) };
        let text = serde_json::to_vec(&record).map_err(io::Error::from)?;
        let new = path.with_extension(format!("{:x}.new", crate::clock::random()?));
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        let written =
            file.write_all(&text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            let _ = fs::remove_file(new);
        }
        written?;
        Ok(about)
    }

    fn read(&self, path: &Path) -> io::Result<Sealed> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// All secrets without themselves, by name.
    pub(crate) fn list(&self) -> io::Result<Listed> {
        let mut listed = Listed::default();
        for path in self.records()? {
            match self.read(&path) {
                Ok(sealed) => listed.items.push(sealed.about),
                // It was removed since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!("{}: a secret's record can't be read: {error}", path.display());
                    let name = path.file_name().unwrap_or_default();
                    listed.damaged.push(name.to_string_lossy().into_owned());
                }
            }
        }
        listed.items.sort_by(|a, b| a.name.cmp(&b.name));
        listed.damaged.sort();
        Ok(listed)
    }

    /// What binds the secrets of these names, as far as there are such.
    fn bounds(&self, names: &[String]) -> Bounds {
        let mut bounds = Bounds::default();
        for name in names {
            if let Ok(Sealed { about, .. }) = self.read(&self.path(name)) {
                bounds.add(name, about.scope);
            }
        }
        bounds
    }

    /// Removes a secret; false if there was none.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// A secret, for whom it is meant; `Ok(None)` if there is none, `Ok(Some(None))` if it is not for
    /// them.
    pub(crate) fn get(
        &self,
        name: &str,
        wanting: &Wanting<'_>,
    ) -> Result<Option<Option<String>>, SecretError> {
        let unreadable = || SecretError::Unreadable(name.to_owned());
        let text = match fs::read(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let Sealed { about, nonce, sealed } = serde_json::from_slice(&text).map_err(|_| unreadable())?;
        let aad = Aad::from(serde_json::to_vec(&about).map_err(io::Error::from)?);
        let nonce = unhex(&nonce).and_then(|nonce| Nonce::try_assume_unique_for_key(&nonce).ok());
        let mut sealed = unhex(&sealed).ok_or_else(unreadable)?;
        let opened = self.key()?.open_in_place(nonce.ok_or_else(unreadable)?, aad, &mut sealed);
        let value = opened.map_err(|_| unreadable())?;
        if about.name != name || !about.scope.admits(wanting) {
            return Ok(Some(None));
        }
        let value = String::from_utf8(value.to_vec()).map_err(|_| unreadable())?;
        Ok(Some(Some(value)))
    }
}

/// The names that a task's config asks for.
pub(crate) fn asked_for(config: &str) -> Vec<String> {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let listed = config["secrets"].as_array().into_iter().flatten();
    let named = listed.filter_map(|entry| entry.as_str().or(entry["name"].as_str()));
    let of_source = config["source"]["git"]["secret"].as_str();
    let mut names: Vec<String> = named.chain(of_source).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Why a task does not get what it asks for, though it is there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotGiven {
    #[error("the secret '{0}' is not for this task")]
    NotFor(String),
    #[error("the task can't be given the secret '{0}': {1}")]
    Failed(String, SecretError),
}

async fn aside<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, NotGiven> + Send + 'static,
) -> Result<T, NotGiven> {
    let failed = |e| NotGiven::Failed(String::new(), SecretError::Io(io::Error::other(e)));
    tokio::task::spawn_blocking(look).await.map_err(failed)?
}

impl Hub {
    /// What binds a task by the secrets that it asks for; why it can't be taken, if one is not for it.
    pub(crate) async fn secrets_of(
        &self,
        config: &str,
        (token, task): (String, String),
    ) -> Result<Bounds, NotGiven> {
        let (names, secrets) = (asked_for(config), Secrets::new(&self.data));
        if names.is_empty() {
            return Ok(Bounds::default());
        }
        let look = move || {
            let wanting = Wanting { token: &token, task: &task, runner: None };
            for name in &names {
                match secrets.get(name, &wanting) {
                    Ok(Some(None)) => return Err(NotGiven::NotFor(name.clone())),
                    Ok(_) => {}
                    Err(error) => return Err(NotGiven::Failed(name.clone(), error)),
                }
            }
            Ok(secrets.bounds(&names))
        };
        aside(look).await
    }

    /// Which tokens the secrets are for, as they are now, that a config asks for.
    pub(crate) async fn tokens_of(&self, config: &str) -> Vec<Bound> {
        let (names, secrets) = (asked_for(config), Secrets::new(&self.data));
        if names.is_empty() {
            return Vec::new();
        }
        tokio::task::spawn_blocking(move || secrets.bounds(&names).tokens).await.unwrap_or_default()
    }

    /// What a task gets that is given to a runner. What there is none of the runner looks for itself.
    pub(crate) async fn secrets_for(
        &self,
        config: String,
        (token, task, runner): (String, String, String),
    ) -> Result<BTreeMap<String, String>, NotGiven> {
        let secrets = Secrets::new(&self.data);
        let look = move || {
            let wanting = Wanting { token: &token, task: &task, runner: Some(&runner) };
            let mut found = BTreeMap::new();
            for name in asked_for(&config) {
                match secrets.get(&name, &wanting) {
                    Ok(Some(Some(value))) => drop(found.insert(name, value)),
                    Ok(Some(None)) => return Err(NotGiven::NotFor(name)),
                    Ok(None) => {}
                    Err(error) => return Err(NotGiven::Failed(name, error)),
                }
            }
            Ok(found)
        };
        aside(look).await
    }

    /// Keeps a secret.
    pub(crate) async fn set_secret(
        &self,
        (name, scope, set_by): (String, Scope, String),
        value: String,
    ) -> Result<About, SecretError> {
        let secrets = Secrets::new(&self.data);
        let about = About { name, scope, set_by, set_at_ms: now_ms() };
        let set = tokio::task::spawn_blocking(move || secrets.set(about, &value)).await;
        set.map_err(|e| SecretError::Io(io::Error::other(e)))?
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str, scope: Scope) -> About {
        About { name: name.into(), scope, set_by: "admin".into(), set_at_ms: 1 }
    }

    #[test]
    fn a_secret_is_for_whom_it_is_meant_and_lies_sealed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("dir");
        let secrets = Secrets { dir: dir.path().join("secrets"), key: dir.path().join("elsewhere.key") };
        let scope = Scope {
            tokens: vec!["ci".into()],
            tasks: vec!["workflow".into()],
            runners: vec!["build-*".into()],
        };
        secrets.set(about("npm", scope), "hunter2-hunter2").expect("set");
        secrets.set(about("all", Scope::default()), "free").expect("set");
        let get = |name: &str, token: &str, task: &str, runner: Option<&str>| {
            secrets.get(name, &Wanting { token, task, runner }).expect("read")
        };
        let value = Some(Some("hunter2-hunter2".to_owned()));
        assert_eq!(get("npm", "ci", "workflow", Some("build-7")), value);
        assert_eq!(get("npm", "ci", "workflow", None), value);
        for (token, task, runner) in
            [("eve", "workflow", "build-7"), ("ci", "agent", "build-7"), ("ci", "workflow", "laptop")]
        {
            assert_eq!(get("npm", token, task, Some(runner)), Some(None), "{token} {task} {runner}");
        }
        assert_eq!(get("all", "anybody", "agent", Some("x")), Some(Some("free".into())));
        assert_eq!(get("none", "ci", "agent", None), None);
        // Nothing of it is in the clear, and nobody else's to read.
        let path = secrets.path("npm");
        let text = fs::read_to_string(&path).expect("file");
        assert!(
            !text.contains("hunter2") && path.metadata().expect("meta").permissions().mode() & 0o077 == 0
        );
        assert_eq!(secrets.key.metadata().expect("meta").permissions().mode() & 0o777, 0o600);
        // Whoever writes there can't widen whom it is for, nor give it another name.
        let wanting = Wanting { token: "eve", task: "agent", runner: None };
        fs::write(&path, text.replace("\"ci\"", "\"eve\"").replace("workflow", "agent")).expect("write");
        assert!(matches!(secrets.get("npm", &wanting), Err(SecretError::Unreadable(_))));
        fs::write(secrets.path("all"), &text).expect("write");
        assert_eq!(get("all", "ci", "workflow", Some("build-7")), Some(None));
        assert!(secrets.remove("npm").expect("removed"));
        assert!(!secrets.remove("npm").expect("gone"));
        // Another key opens nothing.
        secrets.set(about("b", Scope::default()), "x").expect("set");
        fs::write(&secrets.key, "0".repeat(64)).expect("write");
        assert!(matches!(secrets.get("b", &wanting), Err(SecretError::Unreadable(_))));
        fs::write(&secrets.key, "short").expect("write");
        assert!(matches!(secrets.get("b", &wanting), Err(SecretError::Io(_))));
    }

    #[test]
    fn a_lost_key_is_not_replaced_while_it_is_wanted() {
        let dir = tempfile::tempdir().expect("dir");
        let secrets = Secrets { dir: dir.path().join("secrets"), key: dir.path().join("secrets.key") };
        let wanting = Wanting { token: "a", task: "agent", runner: None };
        for name in ["a", "b"] {
            secrets.set(about(name, Scope::default()), "0123456789").expect("set");
        }
        let key = fs::read(&secrets.key).expect("key");
        fs::remove_file(&secrets.key).expect("lost");
        let is_told = |error: SecretError| {
            let text = error.to_string();
            text.contains("secrets.key") && text.contains("LEGWORK_SECRETS_KEY_FILE") && !secrets.key.exists()
        };
        assert!(secrets.get("a", &wanting).is_err_and(is_told));
        assert!(secrets.set(about("c", Scope::default()), "0123456789").is_err_and(is_told));
        assert!(secrets.list().is_ok_and(|listed| listed.items.len() == 2));
        fs::write(&secrets.key, key).expect("found");
        assert!(secrets.get("a", &wanting).is_ok_and(|value| value.flatten().is_some()));
        // One record that is damaged hides no other.
        let damaged = secrets.path("a");
        fs::write(&damaged, "").expect("damaged");
        let listed = secrets.list().expect("listed");
        let file = damaged.file_name().expect("name").to_string_lossy().into_owned();
        assert_eq!((listed.items[0].name.as_str(), listed.damaged), ("b", vec![file]));
        assert!(matches!(secrets.get("a", &wanting), Err(SecretError::Unreadable(name)) if name == "a"));
        // Where all are removed a new key does no harm.
        fs::remove_file(&secrets.key).expect("lost");
        assert!(secrets.remove("a").expect("gone") && secrets.remove("b").expect("gone"));
        secrets.set(about("c", Scope::default()), "0123456789").expect("set");
        assert!(secrets.get("c", &wanting).is_ok_and(|value| value.flatten().is_some()));
    }

    #[test]
    fn tasks_name_their_secrets() {
        let config =
            r#"{"secrets": ["A", {"name": "b", "env": "B"}, 7], "source": {"git": {"secret": "GH"}}}"#;
        assert_eq!(asked_for(config), ["A", "GH", "b"]);
        assert!(asked_for("{}").is_empty() && asked_for("x").is_empty());
    }
}
