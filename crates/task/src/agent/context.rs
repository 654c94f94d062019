//! Room in the model's window: old answers of tools are left out, in one go, so that the
//! prompt cache loses its place once and not at every turn.

use serde_json::Value;

/// What stands for an answer that was left out.
const CLEARED: &str = "[An older tool result was removed to make room. Call the tool again if you need it.]";
/// Shorter ones are not worth it.
const WORTH_IT: usize = 400;
/// So many of the last messages stay as they are.
pub(super) const KEPT: usize = 4;

/// Stands for what an old call wrote.
const CLEARED_INPUT: &str = "[Left out to make room: it was done.]";
/// What a picture is for a model, in bytes of text, and by how much a document's base64 is longer
/// than what the model reads of it.
const PICTURE: usize = 4800;
const DOCUMENT: usize = 20;

/// A message's length for the model, in bytes of text.
pub(super) fn weight(message: &str) -> usize {
    if !message.contains("\"base64\"") {
        return message.len();
    }
    let Ok(value) = serde_json::from_str::<Value>(message) else { return message.len() };
    let mut weight = message.len();
    each_source(&value, &mut |kind, len| {
        let counts = if kind == "image" { PICTURE.min(len) } else { len / DOCUMENT };
        weight -= len - counts;
    });
    weight
}

/// Tells of each block with data in base64: its kind and how long that is.
fn each_source(value: &Value, tell: &mut impl FnMut(&str, usize)) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| each_source(value, tell)),
        Value::Object(map) => {
            let data = value["source"]["data"].as_str().filter(|_| value["source"]["type"] == "base64");
            if let Some(data) = data {
                tell(value["type"].as_str().unwrap_or_default(), data.len());
                return;
            }
            map.values().for_each(|value| each_source(value, tell));
        }
        _ => {}
    }
}

/// Leaves out the answers of tools in the first messages, and what calls wrote at length; returns
/// the bytes gained. The same messages always become the same.
pub(super) fn clear(messages: &mut [String], first: usize) -> usize {
    let mut gained = 0;
    for message in messages.iter_mut().take(first) {
        let Ok(mut value) = serde_json::from_str::<Value>(message) else { continue };
        let Some(blocks) = value.get_mut("content").and_then(Value::as_array_mut) else { continue };
        let before = gained;
        for block in blocks.iter_mut() {
            match block["type"].as_str() {
                Some("tool_result") => {
                    let len = block["content"].to_string().len();
                    if len > WORTH_IT {
                        block["content"] = CLEARED.into();
                        gained += len - CLEARED.len();
                    }
                }
                Some("tool_use") => gained += clear_texts(&mut block["input"]),
                _ => {}
            }
        }
        if gained > before {
            *message = value.to_string();
        }
    }
    gained
}

/// Leaves out long texts of a call's arguments.
fn clear_texts(value: &mut Value) -> usize {
    match value {
        Value::String(text) if text.len() > WORTH_IT => {
            let gained = text.len() - CLEARED_INPUT.len();
            *text = CLEARED_INPUT.into();
            gained
        }
        Value::Array(list) => list.iter_mut().map(clear_texts).sum(),
        Value::Object(map) => map.values_mut().map(clear_texts).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_and_long_answers_go() {
        let result = |text: &str| {
            format!(
                r#"{{"content":[{{"content":"{text}","tool_use_id":"t","type":"tool_result"}}],"role":"user"}}"#
            )
        };
        let long = "x".repeat(1000);
        let mut messages = vec![result(&long), result("short"), result(&long)];
        assert!(clear(&mut messages, 2) > 800);
        assert!(messages[0].contains("Call the tool again") && messages[0].contains("tool_use_id"));
        assert_eq!(messages[1], result("short"));
        assert_eq!(messages[2], result(&long));
        let before = messages.clone();
        assert_eq!(clear(&mut messages, 2), 0);
        assert_eq!(messages, before);
    }
    #[test]
    fn long_arguments_go_and_pictures_weigh_what_they_are() {
        let long = "y".repeat(1000);
        let call = format!(
            r#"{{"content":[{{"type":"tool_use","id":"t","name":"write_file","input":{{"path":"a","content":"{long}"}}}}],"role":"assistant"}}"#
        );
        let mut messages = vec![call];
        assert!(clear(&mut messages, 1) > 900);
        assert!(messages[0].contains(r#""path":"a""#) && !messages[0].contains(&long), "{}", messages[0]);
        let data = "A".repeat(1 << 20);
        let picture = |kind: &str| {
            format!(
                r#"{{"role":"user","content":[{{"type":"tool_result","content":[{{"type":"{kind}","source":{{"type":"base64","data":"{data}"}}}}]}}]}}"#
            )
        };
        assert!((PICTURE..PICTURE + 200).contains(&weight(&picture("image"))));
        assert!((50_000..60_000).contains(&weight(&picture("document"))));
        assert_eq!(weight("{}"), 2);
    }
}
