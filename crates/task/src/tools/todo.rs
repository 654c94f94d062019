//! `todo`: the list is the conversation's own; here it is only checked and shown.

use serde_json::Value;

use super::{Answer, Input};

/// Most items of a list.
const MOST: usize = 100;

pub(super) fn keep(input: Input<'_>) -> Result<Answer, String> {
    let items = input.list("items")?;
    if items.len() > MOST {
        return Err(format!("the list has {} items; {MOST} are the most", items.len()));
    }
    shown(items).map(Answer::ok)
}

/// A list as text.
pub(crate) fn shown(items: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        let said = item["text"].as_str().filter(|t| !t.trim().is_empty());
        let said = said.ok_or_else(|| format!("items[{index}].text is required"))?;
        let mark = match item["status"].as_str() {
            Some("pending") => " ",
            Some("in_progress") => ">",
            Some("done") => "x",
            _ => return Err(format!("items[{index}].status must be pending, in_progress or done")),
        };
        text.push_str(&format!("[{mark}] {said}\n"));
    }
    Ok(if text.is_empty() { "The list is empty.".into() } else { text })
}
