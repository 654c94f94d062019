//! Objects in a bucket or a folder, behind one interface.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use url::Url;

/// Files up to this size are sent in one request, larger ones in parts of it.
pub(crate) const PART: usize = 8 << 20;

/// Why storage could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("{0}")]
    Address(String),
    #[error("storage: {0}")]
    Store(#[from] object_store::Error),
    #[error("workspace: {0}")]
    Workspace(#[from] legwork_workspace::Error),
    #[error("archive: {0}")]
    Archive(#[from] legwork_workspace::ArchiveError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Busy(String),
}

/// A place for objects, and where in it ours are.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
    prefix: Key,
    /// Folders know names that can't be objects': those are written otherwise.
    escapes: bool,
    /// The address, without anything secret.
    pub(crate) address: String,
}

impl Store {
    /// Opens `s3://bucket/prefix/` or `file:///folder`, with the settings of `AWS_…`.
    pub(crate) fn open(address: &str, env: &BTreeMap<String, String>) -> Result<Self, StorageError> {
        let bad = |why: &str| StorageError::Address(format!("storage address {address:?}: {why}"));
        let url = Url::parse(address).map_err(|e| bad(&e.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(StorageError::Address(
                "a storage address holds no credentials and no query: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                    .into(),
            ));
        }
        match url.scheme() {
            "s3" => {
                let bucket = url.host_str().ok_or_else(|| bad("it names no bucket"))?;
                let prefix = Key::from_url_path(url.path()).map_err(|e| bad(&e.to_string()))?;
                let objects = s3(bucket, env)?;
                Ok(Self { objects: Arc::new(objects), prefix, escapes: false, address: address.to_owned() })
            }
            "file" => {
                let path = url.to_file_path().map_err(|()| bad("it names no folder"))?;
                Ok(Self::folder(path))
            }
            other => Err(bad(&format!("{other}: is neither s3: nor file:"))),
        }
    }

    /// A folder, made when something is put there.
    pub(crate) fn folder(path: PathBuf) -> Self {
        let prefix = path.to_str().and_then(|p| Key::parse(p).ok()).unwrap_or_default();
        let objects = LocalFileSystem::new().with_automatic_cleanup(false);
        let address = format!("file://{}", path.display());
        Self { objects: Arc::new(objects), prefix, escapes: true, address }
    }

    /// The key of a file, or of what we note: names are kept as they are.
    pub(crate) fn key(&self, path: &str) -> Result<Key, StorageError> {
        let path = if self.escapes { path.replace('%', "%25").replace('#', "%23") } else { path.to_owned() };
        let key =
            if self.prefix.as_ref().is_empty() { path.clone() } else { format!("{}/{path}", self.prefix) };
        Key::parse(key).map_err(|e| StorageError::Address(format!("{path:?} can't be stored: {e}")))
    }

    /// Where all objects of ours lie.
    pub(crate) fn prefix(&self) -> &Key {
        &self.prefix
    }

    /// The path of a key.
    pub(crate) fn path(&self, key: &Key) -> Option<String> {
        let text: &str = key.as_ref();
        let path = if self.prefix.as_ref().is_empty() {
            text
        } else {
            text.strip_prefix(self.prefix.as_ref())?.strip_prefix('/')?
        };
        Some(if self.escapes { path.replace("%23", "#").replace("%25", "%") } else { path.to_owned() })
    }

    /// A whole object, if it is there; only for what we have noted ourselves.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<bytes::Bytes>, StorageError> {
        match self.objects.get(&self.key(path)?).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn write(&self, path: &str, data: impl Into<PutPayload>) -> Result<(), StorageError> {
        self.objects.put(&self.key(path)?, data.into()).await?;
        Ok(())
    }

    /// Writes a file of any size: it appears whole or not at all.
    pub(crate) async fn write_file(&self, path: &str, file: File, size: u64) -> Result<(), StorageError> {
        let key = self.key(path)?;
        let read = |file: File, at: u64, len: usize| {
            tokio::task::spawn_blocking(move || {
                let mut part = vec![0u8; len];
                file.read_exact_at(&mut part, at)?;
                Ok::<_, std::io::Error>((file, part))
            })
        };
        let join = |e: tokio::task::JoinError| StorageError::Io(std::io::Error::other(e));
        if size <= PART as u64 {
            let (_, data) = read(file, 0, usize::try_from(size).unwrap_or(PART)).await.map_err(join)??;
            self.objects.put(&key, data.into()).await?;
            return Ok(());
        }
        let upload = self.objects.put_multipart(&key).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let (mut file, mut at) = (file, 0u64);
        while at < size {
            let len = usize::try_from(size - at).unwrap_or(PART).min(PART);
            upload.wait_for_capacity(4).await?;
            match read(file, at, len).await.map_err(join)? {
                Ok((back, part)) => {
                    file = back;
                    upload.put(part.into());
                }
                Err(error) => {
                    let _ = upload.abort().await;
                    return Err(error.into());
                }
            }
            at += len as u64;
        }
        upload.finish().await?;
        Ok(())
    }

    /// Copies an object into a file without a name; `None` if there is none.
    pub(crate) async fn fetch(&self, path: &str) -> Result<Option<File>, StorageError> {
        let found = match self.objects.get(&self.key(path)?).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut file = tokio::fs::File::from_std(tempfile::tempfile()?);
        let mut stream = found.into_stream();
        while let Some(piece) = stream.next().await {
            file.write_all(&piece?).await?;
        }
        file.flush().await?;
        file.rewind().await?;
        Ok(Some(file.into_std().await))
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), StorageError> {
        match self.objects.delete(&self.key(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn s3(bucket: &str, env: &BTreeMap<String, String>) -> Result<object_store::aws::AmazonS3, StorageError> {
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 8,
        retry_timeout: std::time::Duration::from_secs(60),
    });
    for (name, value) in env {
        // The AWS tools call it so.
        let name = if name == "AWS_ENDPOINT_URL_S3" { "AWS_ENDPOINT_URL" } else { name };
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if env
        .get("AWS_ENDPOINT_URL")
        .or(env.get("AWS_ENDPOINT_URL_S3"))
        .is_some_and(|url| url.starts_with("http://"))
    {
        builder = builder.with_allow_http(true);
    }
    Ok(builder.build()?)
}
