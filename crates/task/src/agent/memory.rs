//! What is kept of a conversation from one task to the next: with the hub, or in a file.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::context;
use legwork_messages::tool_uses;
use legwork_net::cause;

/// Most bytes of it. Beyond them old answers of tools are left out; what is still larger is not kept.
pub(crate) const MOST: usize = 16 << 20;
/// For each request, and times that it is made.
const TIMEOUT: Duration = Duration::from_secs(60);
const TRIES: u32 = 4;
/// Said for calls that nobody answered.
const INTERRUPTED: &str = "The task ended before this call was answered; whether it took effect is unknown.";

/// Where a conversation is kept.
#[derive(Debug, Clone)]
pub enum Memory {
    /// With the hub that gave the task.
    Hub {
        /// The address, with its key.
        url: String,
        /// Reaches it.
        http: reqwest::Client,
    },
    /// In a folder, by its name.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The session.
        name: String,
    },
}

#[derive(Deserialize)]
struct Kept {
    messages: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct ToKeep<'a> {
    messages: Vec<&'a RawValue>,
}

impl Memory {
    /// The conversation so far, of this session or of another; `None` if there is none.
    pub(super) async fn load(&self, other: Option<&str>) -> Result<Option<Vec<String>>, String> {
        let text = match self {
            Self::Folder { folder, name } => match std::fs::read(file(folder, other.unwrap_or(name))) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.to_string()),
            },
            Self::Hub { .. } => match self.ask(other, None).await? {
                Some(text) => text,
                None => return Ok(None),
            },
        };
        let kept: Kept = serde_json::from_slice(&text).map_err(|e| format!("it can't be read: {e}"))?;
        let messages = kept.messages.into_iter().map(|message| message.get().to_owned()).collect();
        Ok(Some(answered(messages)))
    }

    /// Keeps a conversation.
    pub(super) async fn save(&self, messages: &[String]) -> Result<(), String> {
        let mut messages = messages.to_vec();
        let size = |messages: &[String]| messages.iter().map(|m| m.len() + 1).sum::<usize>();
        if size(&messages) > MOST {
            let old = messages.len().saturating_sub(context::KEPT);
            context::clear(&mut messages, old);
        }
        if size(&messages) > MOST {
            return Err(format!("it has more than {MOST} bytes"));
        }
        let raw = messages.iter().map(|message| serde_json::from_str::<&RawValue>(message));
        let messages = raw.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let text = serde_json::to_vec(&ToKeep { messages }).map_err(|e| e.to_string())?;
        match self {
            Self::Folder { folder, name } => {
                let path = file(folder, name);
                let written = std::fs::create_dir_all(folder).and_then(|()| {
                    let new = path.with_extension(format!("new-{}", std::process::id()));
                    std::fs::write(&new, text)?;
                    std::fs::rename(new, path)
                });
                written.map_err(|e| e.to_string())
            }
            Self::Hub { .. } => self.ask(None, Some(text)).await.map(drop),
        }
    }

    /// Gets a conversation from the hub, or brings it there.
    async fn ask(&self, other: Option<&str>, body: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, String> {
        let Self::Hub { url, http } = self else { return Ok(None) };
        let mut url = url::Url::parse(url).map_err(|e| e.to_string())?;
        if let Some(other) = other {
            url.query_pairs_mut().append_pair("of", other);
        }
        let mut tries = 0;
        loop {
            let request = match &body {
                Some(body) => {
                    http.post(url.clone()).header("content-type", "application/json").body(body.clone())
                }
                None => http.get(url.clone()),
            };
            let tried = one(request).await;
            tries += 1;
            match tried {
                Ok(answer) => return Ok(answer),
                Err((error, is_final)) if is_final || tries >= TRIES => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(250 << tries)).await,
            }
        }
    }
}

/// One request; why it failed, and whether it would fail again.
async fn one(request: reqwest::RequestBuilder) -> Result<Option<Vec<u8>>, (String, bool)> {
    let mut answer = request.timeout(TIMEOUT).send().await.map_err(|e| (cause(&e), false))?;
    match answer.status().as_u16() {
        200..=299 => {}
        404 => return Ok(None),
        status => return Err((format!("the hub answered {status}"), status < 500)),
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| (cause(&e), false))? {
        body.extend_from_slice(&chunk);
        if body.len() > 2 * MOST {
            return Err(("the hub's answer is too long".into(), true));
        }
    }
    Ok(Some(body))
}

fn file(folder: &std::path::Path, name: &str) -> PathBuf {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(name);
    let name: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(format!("{name}.json"))
}

/// A conversation that can be gone on with: every call in it has an answer.
fn answered(mut messages: Vec<String>) -> Vec<String> {
    let last: Value = messages.last().and_then(|last| serde_json::from_str(last).ok()).unwrap_or_default();
    if last["role"] == "assistant" {
        let calls = tool_uses(last["content"].as_array().map(Vec::as_slice).unwrap_or_default());
        let result = |call: &legwork_messages::ToolUse| json!({"type": "tool_result", "tool_use_id": call.id, "content": INTERRUPTED, "is_error": true});
        let results: Vec<Value> = calls.iter().map(result).collect();
        if !results.is_empty() {
            messages.push(json!({"role": "user", "content": results}).to_string());
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_conversation_is_kept_and_forked() {
        let dir = tempfile::tempdir().expect("dir");
        let of = |name: &str| Memory::Folder { folder: dir.path().join("s"), name: name.into() };
        assert_eq!(of("../a").load(None).await, Ok(None));
        let first = vec![r#"{"role":"user","content":"one"}"#.to_owned()];
        of("../a").save(&first).await.expect("saved");
        assert_eq!(of("../a").load(None).await, Ok(Some(first.clone())));
        assert_eq!(of("b").load(Some("../a")).await, Ok(Some(first.clone())));
        assert_eq!(of("b").load(None).await, Ok(None));
        // What was cut off in the middle of a call can be gone on with.
        let call = json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "shell", "input": {}}]});
        of("b").save(&[first[0].clone(), call.to_string()]).await.expect("saved");
        let back = of("b").load(None).await.expect("read").expect("kept");
        assert!(back.len() == 3 && back[2].contains(INTERRUPTED) && back[2].contains("\"t\""), "{back:?}");
        // What is too long is left as it was.
        let long = vec![json!({"role": "user", "content": "x".repeat(MOST)}).to_string()];
        assert!(of("../a").save(&long).await.is_err_and(|e| e.contains("more than")));
        assert_eq!(of("../a").load(None).await, Ok(Some(first)));
    }
}
