//! A tree that the hub has, piece by piece.

use legwork_proto::pieces::{MAX_ASKED, MAX_BODY, Pieces};
use legwork_proto::task::Level;
use legwork_workspace::Bounds;
use legwork_workspace::trees::{Digest, Manifest};

use super::Porter;
use legwork_net::cause;

/// Times that a question is put whose answer breaks.
const TRIES: u32 = 5;
/// All of a tree: more than an archive, which is one file and may be a bomb.
const BOUNDS: Bounds = Bounds { bytes: 64 << 30, entries: 500_000, ratio: u64::MAX };

impl Porter<'_> {
    /// Plants the tree of that digest.
    pub(super) async fn plant(&self, digest: Digest) -> Result<(), String> {
        let store = self.store.clone().ok_or("source.tree: only a hub has trees, and this task has none")?;
        let packed = store.get(&[digest]).await?.into_iter().next();
        let packed = packed.filter(|packed| Digest::of(packed) == digest);
        let packed = packed.ok_or("source.tree: the hub has no such tree; send it again")?;
        let manifest = Manifest::unpack(&packed).map_err(|e| format!("source.tree: {e}"))?;
        let (root, runtime) = (self.hands.root.clone(), tokio::runtime::Handle::current());
        let abort = self.abort.clone();
        let planted = tokio::task::spawn_blocking(move || {
            root.plant(&manifest, BOUNDS, |asked| {
                if abort.now().is_some() {
                    return Err("the task was aborted".into());
                }
                runtime.block_on(store.get(asked))
            })
        });
        let packed = planted.await.map_err(|e| e.to_string())?.map_err(|e| format!("source.tree: {e}"))?;
        let text = format!("Source: {} files, {} bytes", packed.entries, packed.bytes);
        self.events.log(Level::Info, &text).await;
        Ok(())
    }
}

/// Where pieces are had.
#[derive(Debug, Clone)]
pub(crate) struct PieceStore {
    http: reqwest::Client,
    url: String,
}

impl PieceStore {
    /// Beside the place where events go, if that is a hub of ours.
    pub(crate) fn beside(callback_url: &str, http: reqwest::Client) -> Option<Self> {
        let mut url = url::Url::parse(callback_url).ok()?;
        let path = format!("{}/pieces", url.path().strip_suffix("/stream")?);
        url.set_path(&path);
        Some(Self { http, url: url.into() })
    }

    /// These pieces, in this order.
    async fn get(&self, asked: &[Digest]) -> Result<Vec<Vec<u8>>, String> {
        let mut got: Vec<Vec<u8>> = Vec::new();
        let mut failures = 0;
        while got.len() < asked.len() {
            let rest = &asked[got.len()..asked.len().min(got.len() + MAX_ASKED)];
            match self.some(rest).await {
                Ok(some) if some.is_empty() => {
                    return Err("the hub has not all pieces of the tree; send it again".into());
                }
                Ok(some) => {
                    failures = 0;
                    got.extend(some);
                }
                Err(error) if failures + 1 >= TRIES => return Err(error),
                Err(error) => {
                    failures += 1;
                    tracing::warn!(attempt = failures, error = %error, "pieces of the source did not come: asking again");
                    tokio::time::sleep(std::time::Duration::from_millis(200 << failures)).await;
                }
            }
        }
        Ok(got)
    }

    /// As many of these, from the first on, as fit into an answer.
    async fn some(&self, asked: &[Digest]) -> Result<Vec<Vec<u8>>, String> {
        let digests: Vec<String> = asked.iter().map(ToString::to_string).collect();
        let request = self.http.post(&self.url).json(&serde_json::json!({ "digests": digests }));
        let mut answer = request.send().await.map_err(|e| format!("the hub's pieces: {}", cause(&e)))?;
        if !answer.status().is_success() {
            return Err(format!("the hub's pieces: status {}", answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|e| format!("the hub's pieces: {}", cause(&e)))?
        {
            if body.len() + chunk.len() > MAX_BODY + MAX_BODY / 2 {
                return Err("the hub's answer is too long".into());
            }
            body.extend_from_slice(&chunk);
        }
        let mut got = Vec::new();
        for (piece, wanted) in Pieces::of(&body).zip(asked) {
            match piece {
                Ok((digest, bytes)) if digest == wanted.0 => got.push(bytes.to_vec()),
                Ok(_) => return Err("the hub sent another piece".into()),
                Err(_) => return Err("the hub's answer was cut off".into()),
            }
        }
        Ok(got)
    }
}
