//! Getting a release from where it is published.

use std::path::Path;
use std::time::Duration;

use legwork_base::digest::hex;
use semver::Version;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::{Archive, Error, MANIFEST, Manifest, PublicKey, SIGNATURE};

/// Manifest and signature are small.
const MAX_MANIFEST: u64 = 1 << 20;
const MAX_ARCHIVE: u64 = 512 << 20;
/// Without a byte for so long a download is given up.
const STALL: Duration = Duration::from_secs(30);

/// Bytes had, and in all.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Where releases are, and whose they must be.
#[derive(Debug, Clone)]
pub struct Fetcher {
    http: reqwest::Client,
    base: String,
    key: PublicKey,
    token: Option<String>,
}

impl Fetcher {
    /// `base` is the folder's address; `token` is sent to it, and must be one for it.
    pub fn new(http: reqwest::Client, base: &str, key: PublicKey, token: Option<String>) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned(), key, token }
    }

    /// The manifest of the newest release, or of the version given, which lies in a
    /// folder of that name.
    pub async fn manifest(&self, version: Option<&Version>) -> Result<Manifest, Error> {
        let folder = version.map_or_else(String::new, |v| format!("v{v}/"));
        let bytes = self.small(&format!("{folder}{MANIFEST}")).await?;
        let signature = self.small(&format!("{folder}{SIGNATURE}")).await?;
        let manifest = Manifest::verified(&bytes, &String::from_utf8_lossy(&signature), &self.key)?;
        match version {
            Some(version) if manifest.version != *version => {
                Err(Error::new(format!("asked for {version}, the manifest there is of {}", manifest.version)))
            }
            _ => Ok(manifest),
        }
    }

    /// Downloads an archive of a manifest to a file, and checks it.
    pub async fn download(
        &self,
        archive: &Archive,
        version: Option<&Version>,
        to: &Path,
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        if archive.name.contains('/') || archive.name.starts_with('.') {
            return Err(Error::new(format!("the archive's name '{}' is not one of a file", archive.name)));
        }
        if archive.size > MAX_ARCHIVE {
            return Err(Error::new(format!("{} is larger than {MAX_ARCHIVE} bytes", archive.name)));
        }
        let folder = version.map_or_else(String::new, |v| format!("v{v}/"));
        let mut response = self.get(&format!("{folder}{}", archive.name)).await?;
        let failed = |e: std::io::Error| Error::new(format!("{}: {e}", to.display()));
        let mut file = tokio::fs::File::create(to).await.map_err(failed)?;
        let (mut hasher, mut size) = (Sha256::new(), 0u64);
        loop {
            let chunk = tokio::time::timeout(STALL, response.chunk())
                .await
                .map_err(|_| Error::new(format!("{}: nothing came for {} s", archive.name, STALL.as_secs())))?
                .map_err(|e| Error::new(format!("{}: {}", archive.name, cause(&e))))?;
            let Some(chunk) = chunk else { break };
            size += chunk.len() as u64;
            if size > archive.size {
                break;
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await.map_err(failed)?;
            progress(size, archive.size);
        }
        file.sync_all().await.map_err(failed)?;
        if size != archive.size || hex(hasher.finalize()) != archive.sha256.to_ascii_lowercase() {
            return Err(Error::new(format!(
                "{} is not what the manifest says: it is not used",
                archive.name
            )));
        }
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<reqwest::Response, Error> {
        let url = format!("{}/{name}", self.base);
        let mut request = self.http.get(&url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = tokio::time::timeout(STALL, request.send())
            .await
            .map_err(|_| Error::new(format!("{url}: no answer within {} s", STALL.as_secs())))?
            .map_err(|e| Error::new(format!("{url}: {}", cause(&e))))?;
        if !response.status().is_success() {
            return Err(Error::new(format!("{url}: the server answered {}", response.status())));
        }
        Ok(response)
    }

    async fn small(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut response = self.get(name).await?;
        let mut bytes = Vec::new();
        loop {
            let chunk = tokio::time::timeout(STALL, response.chunk())
                .await
                .map_err(|_| Error::new(format!("{name}: nothing came for {} s", STALL.as_secs())))?
                .map_err(|e| Error::new(format!("{name}: {}", cause(&e))))?;
            let Some(chunk) = chunk else { return Ok(bytes) };
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MAX_MANIFEST {
                return Err(Error::new(format!("{name} is larger than {MAX_MANIFEST} bytes")));
            }
        }
    }
}

fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    legwork_base::cause::innermost(error).to_string()
}
