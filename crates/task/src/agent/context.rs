//! Room in the model's window: old answers of tools are left out, in one go, so that the
//! prompt cache loses its place once and not at every turn.

use serde_json::Value;

/// What stands for an answer that was left out.
const CLEARED: &str = "[An older tool result was removed to make room. Call the tool again if you need it.]";
/// Shorter ones are not worth it.
const WORTH_IT: usize = 400;
/// So many of the last messages stay as they are.
pub(super) const KEPT: usize = 4;

/// Leaves out the answers of tools in the first messages; returns the bytes gained. The same
/// messages always become the same.
pub(super) fn clear(messages: &mut [String], first: usize) -> usize {
    let mut gained = 0;
    for message in messages.iter_mut().take(first) {
        let Ok(mut value) = serde_json::from_str::<Value>(message) else { continue };
        let Some(blocks) = value.get_mut("content").and_then(Value::as_array_mut) else { continue };
        let mut changed = false;
        for block in blocks.iter_mut().filter(|b| b["type"] == "tool_result") {
            let len = block["content"].to_string().len();
            if len > WORTH_IT {
                block["content"] = CLEARED.into();
                gained += len - CLEARED.len();
                changed = true;
            }
        }
        if changed {
            *message = value.to_string();
        }
    }
    gained
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
}
