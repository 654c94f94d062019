//! `legwork runners` and `legwork tasks`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::args::{RunnersArgs, RunnersCommand, TasksArgs};
use crate::client::Client;

/// Most tasks that are looked at for those that a filter lets through.
const MOST_LOOKED_AT: usize = 20_000;

pub(crate) async fn runners(args: RunnersArgs) -> Result<u8> {
    if let Some(command) = args.command {
        return change(command).await;
    }
    let args = args.list;
    let client = Client::from_args(&args.hub)?;
    let items = all_pages(&client, "/runners?limit=500").await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&items)?);
        return Ok(0);
    }
    if items.is_empty() {
        println!(
            "no runners yet; make a token with `legwork token create NAME --role enroll`, then on the machine: legwork init"
        );
    }
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|r| {
            let labels: Vec<&str> =
                r["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let name = match r["display_name"].as_str() {
                Some(shown) => cell(&format!("{} ({shown})", r["name"].as_str().unwrap_or_default())),
                None => text(r, "name"),
            };
            let status = if r["drained"] == true {
                format!("{}, drained", text(r, "status"))
            } else {
                text(r, "status")
            };
            vec![name, status, text(r, "id"), text(r, "version"), cell(&labels.join(","))]
        })
        .collect();
    table(&["NAME", "STATUS", "ID", "VERSION", "LABELS"], &rows);
    Ok(0)
}

async fn change(command: RunnersCommand) -> Result<u8> {
    match command {
        RunnersCommand::Set { runner, label, no_labels, display_name, drain, undrain, hub } => {
            let mut body = json!({});
            if no_labels || !label.is_empty() {
                body["labels"] = json!(label);
            }
            if let Some(name) = display_name {
                body["display_name"] = name.into();
            }
            if drain || undrain {
                body["drained"] = drain.into();
            }
            if body.as_object().is_none_or(serde_json::Map::is_empty) {
                bail!("say what to set: --label, --no-labels, --display-name, --drain or --undrain");
            }
            let client = Client::from_args(&hub)?;
            let changed = client.patch(&format!("/runners/{}", path_part(&runner)), &body).await?;
            println!("set {}", text(&changed, "name"));
        }
        RunnersCommand::Remove { runner, hub } => {
            Client::from_args(&hub)?.delete(&format!("/runners/{}", path_part(&runner))).await?;
            println!("removed {}", visible(&runner));
        }
    }
    Ok(0)
}

/// A name as a part of a path.
fn path_part(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

pub(crate) async fn tasks(args: TasksArgs) -> Result<u8> {
    let client = Client::from_args(&args.hub)?;
    if let Some(id) = &args.task {
        let task = if args.cancel {
            client.post(&format!("/tasks/{id}/cancel"), &json!({})).await?
        } else {
            client.get(&format!("/tasks/{id}")).await?
        };
        println!("{}", serde_json::to_string_pretty(&task)?);
        return Ok(0);
    }
    let items = wanted_tasks(&client, &args).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&items)?);
        return Ok(0);
    }
    let now = now_ms();
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|t| {
            let runs = t["runs"].as_array().map_or(0, Vec::len);
            let on = match t["runs"][0]["runner"].as_str() {
                Some(name) if runs == 1 => cell(name),
                _ => format!("{runs} runners"),
            };
            // A tool's name comes before its server's.
            let subject =
                ["/command", "/path", "/pattern", "/url", "/tool_name", "/server/name", "/skill_dir"]
                    .iter()
                    .find_map(|k| t["args"].pointer(k)?.as_str())
                    .unwrap_or_default();
            let age = age(now.saturating_sub(t["created_at_ms"].as_u64().unwrap_or(now)) / 1000);
            vec![text(t, "id"), age, text(t, "state"), exits(t), on, text(t, "operation"), cell(subject)]
        })
        .collect();
    table(&["TASK", "AGE", "STATE", "EXIT", "ON", "OPERATION", "SUBJECT"], &rows);
    Ok(0)
}

/// The newest tasks that the filters let through.
async fn wanted_tasks(client: &Client, args: &TasksArgs) -> Result<Vec<Value>> {
    let since = match &args.since {
        Some(text) => Some(now_ms().saturating_sub(seconds(text)? * 1000)),
        None => None,
    };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let filters = args.state.is_some() || args.operation.is_some() || since.is_some();
    let mut path = format!("/tasks?limit={}", if filters { 500 } else { args.limit.min(500) });
    if let Some(runner) = &args.runner {
        path.push_str(&format!("&runner={}", path_part(runner)));
    }
    let (mut items, mut looked_at) = (Vec::new(), 0);
    let mut page = client.get(&path).await?;
    loop {
        for task in page["items"].as_array().into_iter().flatten() {
            looked_at += 1;
            // Newest first: the rest is older.
            if since.is_some_and(|since| task["created_at_ms"].as_u64().unwrap_or(0) < since) {
                return Ok(items);
            }
            let is = |wanted: &Option<String>, key: &str| wanted.as_ref().is_none_or(|w| task[key] == **w);
            if is(&args.operation, "operation") && args.state.as_ref().is_none_or(|s| has_state(task, s)) {
                items.push(task.clone());
            }
            if items.len() >= limit {
                return Ok(items);
            }
        }
        let Some(cursor) = page["next"].as_str() else { return Ok(items) };
        if looked_at >= MOST_LOOKED_AT {
            eprintln!("legwork: only the newest {looked_at} tasks were looked at");
            return Ok(items);
        }
        page = client.get(&format!("{path}&cursor={cursor}")).await?;
    }
}

/// Whether a task, or one of its runs, is in a state.
fn has_state(task: &Value, state: &str) -> bool {
    task["state"] == *state || task["runs"].as_array().into_iter().flatten().any(|run| run["state"] == *state)
}

/// How its commands exited.
fn exits(task: &Value) -> String {
    let mut codes: Vec<i64> =
        task["runs"].as_array().into_iter().flatten().filter_map(|run| run["exit_code"].as_i64()).collect();
    codes.sort_unstable();
    codes.dedup();
    match codes.as_slice() {
        [] => "-".into(),
        codes if codes.len() > 3 => format!("{},…", codes[0]),
        codes => codes.iter().map(i64::to_string).collect::<Vec<_>>().join(","),
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// An age in one unit.
fn age(seconds: u64) -> String {
    match seconds {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m", s / 60),
        s if s < 86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// Seconds of a time span as people write it.
fn seconds(text: &str) -> Result<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => bail!("'{text}' is no age: give a number and s, m, h or d, such as 30m"),
    };
    match number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)) {
        Some(seconds) => Ok(seconds),
        None => bail!("'{text}' is no age: give a number and s, m, h or d, such as 30m"),
    }
}

pub(crate) async fn all_pages(client: &Client, path: &str) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut page = client.get(path).await?;
    loop {
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        let Some(cursor) = page["next"].as_str() else { return Ok(items) };
        page = client.get(&format!("{path}&cursor={cursor}")).await?;
    }
}

fn text(value: &Value, key: &str) -> String {
    cell(value[key].as_str().unwrap_or_default())
}

/// What fits into a table.
fn cell(text: &str) -> String {
    const WIDTH: usize = 120;
    visible(&text.chars().take(WIDTH).collect::<String>())
}

/// One line, with control characters made visible: names and commands come from
/// elsewhere and must not drive the terminal.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    // The formatting machinery takes no wider ones.
    const MOST: usize = 1000;
    let width = |i: usize| {
        let cells = rows.iter().map(|r| r[i].chars().count()).chain([head[i].len()]);
        cells.max().unwrap_or(0).min(MOST)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    };
    line(&head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>());
    for row in rows {
        line(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_and_written() {
        for (text, want) in [("90", 90), ("30s", 30), ("2m", 120), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(seconds(text).ok(), Some(want), "{text}");
        }
        for text in ["", "m", "1w", "-1s", "99999999999999999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!([age(59), age(61), age(7200), age(200_000)], ["59s", "1m", "2h", "2d"]);
    }

    #[test]
    fn a_label_of_megabytes_is_cut_and_no_panic() {
        assert_eq!(cell(&"x".repeat(20 << 20)).len(), 120);
        table(&["A"], &[vec!["x".repeat(70_000)]]);
    }
}
