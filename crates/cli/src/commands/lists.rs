//! `legwork runners` and `legwork tasks`.

use anyhow::Result;
use serde_json::{Value, json};

use crate::args::{ListArgs, TasksArgs};
use crate::client::Client;

pub(crate) async fn runners(args: ListArgs) -> Result<u8> {
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
            vec![text(r, "name"), text(r, "status"), text(r, "id"), text(r, "version"), labels.join(",")]
        })
        .collect();
    table(&["NAME", "STATUS", "ID", "VERSION", "LABELS"], &rows);
    Ok(0)
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
    let page = client.get(&format!("/tasks?limit={}", args.limit)).await?;
    let items = page["items"].as_array().cloned().unwrap_or_default();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&items)?);
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|t| {
            let runs = t["runs"].as_array().map_or(0, Vec::len);
            let on = match t["runs"][0]["runner"].as_str() {
                Some(name) if runs == 1 => name.to_owned(),
                _ => format!("{runs} runners"),
            };
            // A tool's name comes before its server's.
            let subject =
                ["/command", "/path", "/pattern", "/url", "/tool_name", "/server/name", "/skill_dir"]
                    .iter()
                    .find_map(|k| t["args"].pointer(k)?.as_str())
                    .unwrap_or_default();
            vec![text(t, "id"), text(t, "state"), on, text(t, "operation"), cell(subject)]
        })
        .collect();
    table(&["TASK", "STATE", "ON", "OPERATION", "SUBJECT"], &rows);
    Ok(0)
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
    let width =
        |i: usize| rows.iter().map(|r| r[i].chars().count()).chain([head[i].len()]).max().unwrap_or(0);
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
