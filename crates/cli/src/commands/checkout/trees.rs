//! A checkout's tree on its way: to the hub, which has most of it from the last time, or to a folder
//! beside, where an agent works on a copy.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use legwork_api::{Client, ClientError};
use legwork_proto::pieces::{FULL, MAX_ASKED, put};
use legwork_workspace::trees::{Digest, Manifest, StatCache, Taken};
use legwork_workspace::{Bounds, Root};
use serde_json::{Value, json};

use super::Checkout;

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
/// A copy beside a checkout may be as large as that.
const BOUNDS: Bounds = Bounds { bytes: u64::MAX, entries: u64::MAX, ratio: u64::MAX };

impl Checkout {
    /// Sends the tree as it is to a hub, as far as that has not got it, and names it in a task.
    /// False if the hub is an older one, which takes no trees.
    pub(crate) async fn send_tree(&self, client: &Client, config: &mut Value) -> Result<bool> {
        let (root, taken) = self.take()?;
        let all: Vec<Digest> = taken.pieces().chain([taken.digest]).collect();
        let mut missing = Vec::new();
        for some in all.chunks(MAX_ASKED) {
            match ask(client, some).await {
                Ok(some) => missing.extend(some),
                Err(error) if error.problem().is_some_and(|problem| matches!(problem.status, 404 | 405)) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        // What names all the others comes last: it is there when all of it is.
        missing.sort_by_key(|digest| *digest == taken.digest);
        let (mut sent, mut body) = (0, Vec::new());
        for (at, digest) in missing.iter().enumerate() {
            let piece = match *digest == taken.digest {
                true => taken.packed.clone(),
                false => taken
                    .read(&root, *digest)?
                    .context("a file has changed while the checkout was being sent; try again")?,
            };
            put(&mut body, &digest.0, &piece);
            if body.len() >= FULL || at + 1 == missing.len() {
                sent += body.len();
                client.post_again("/trees/pieces", BYTES, &body).await?;
                body.clear();
            }
        }
        self.told(&taken, &format!("{} KiB of them are new to the hub", sent.div_ceil(1024)));
        config["source"] = json!({ "tree": taken.digest.to_string() });
        Ok(true)
    }

    /// Copies the tree as it is to an empty folder.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<()> {
        let (root, taken) = self.take()?;
        let manifest = Manifest::unpack(&taken.packed)?;
        let read = |digest: &Digest| {
            let piece = taken.read(&root, *digest).map_err(|e| e.to_string())?;
            piece
                .ok_or_else(|| "a file has changed while the checkout was being copied; try again".to_owned())
        };
        Root::open(folder)?.plant(&manifest, BOUNDS, |asked| asked.iter().map(read).collect())?;
        self.told(&taken, "the agent works on a copy");
        Ok(())
    }

    /// The tree as it is.
    fn take(&self) -> Result<(Root, Taken)> {
        let files = self.files()?;
        let root = Root::open(&self.root)?;
        let kept = kept(&self.root);
        let mut cache = kept.as_deref().map(StatCache::load).unwrap_or_default();
        let taken = root.take_tree(&files, &mut cache)?;
        if let Some(Err(error)) = kept.map(|kept| cache.save(&kept)) {
            tracing::debug!("what the checkout's files are like can't be kept: {error}");
        }
        if taken.left_out > 0 {
            eprintln!("legwork: {} links lead out of the checkout and stay behind", taken.left_out);
        }
        Ok((root, taken))
    }

    fn told(&self, taken: &Taken, how: &str) {
        let mib = taken.bytes.div_ceil(1 << 20);
        eprintln!("legwork: {} ({mib} MiB); {how}", super::go_along(taken.files, &self.root));
    }
}

/// Which pieces the hub has not got.
async fn ask(client: &Client, some: &[Digest]) -> Result<Vec<Digest>, ClientError> {
    let digests: Vec<String> = some.iter().map(ToString::to_string).collect();
    let question = json!({ "digests": digests }).to_string().into_bytes();
    let answer = client.post_again("/trees/missing", JSON, &question).await?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let missing = answer["missing"].as_array().into_iter().flatten();
    Ok(missing.filter_map(|digest| Digest::parse(digest.as_str()?)).collect())
}

/// Where it is kept what the files of a checkout were like when they were last read.
fn kept(root: &Path) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let name = Digest::of(root.as_os_str().as_encoded_bytes()).to_string();
    Some(cache.join("legwork/trees").join(format!("{}.stat", &name[..24])))
}

/// Says that a checkout is too large to go along in a task's JSON, as older hubs have it.
pub(super) fn too_large<T>(root: &Path, most: usize) -> Result<T> {
    bail!(
        "{} has more than {most} bytes when packed, which is the most that may go along with a task to a hub of this \
         version; let the task fetch it instead (\"source\": {{\"git\": …}}, docs/task.md), or leave it (--no-source)",
        root.display(),
    )
}
