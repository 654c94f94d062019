//! An MCP server on stdio for tests: JSON-RPC lines, by hand, so that what the runner
//! sends is seen as it is. Arguments choose how it misbehaves.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's server")]

use std::io::{BufRead, Write};

use serde_json::{Value, json};

fn main() {
    let has = |flag: &str| std::env::args().any(|a| a == flag);
    if has("--silent") {
        // Neither answers nor ends by itself.
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    }
    if let Some(path) = std::env::args().skip_while(|a| a != "--pid-file").nth(1) {
        let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
        writeln!(file, "{}", std::process::id()).unwrap();
    }
    let mut calls = 0;
    // What the client says of itself, where it is asked (`--roots`).
    let mut client = json!({});
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let request: Value = serde_json::from_str(&line).unwrap();
        if request["id"] == "roots" {
            client["roots"] = request["result"]["roots"].clone();
            continue;
        }
        if has("--roots") && request["method"] == "notifications/initialized" {
            println!("{}", json!({ "jsonrpc": "2.0", "id": "roots", "method": "roots/list" }));
            std::io::stdout().flush().unwrap();
        }
        let Some(id) = request.get("id") else { continue };
        let params = &request["params"];
        let result = match request["method"].as_str().unwrap_or_default() {
            "initialize" => {
                let name = params["clientInfo"]["name"].as_str().unwrap_or_default();
                assert!(matches!(name, "flashduty-runner" | "legwork"), "{name}");
                client["info"] = params["clientInfo"].clone();
                json!({
                    "protocolVersion": params["protocolVersion"], "capabilities": { "tools": {} },
                    "serverInfo": { "name": "inv", "version": "1" },
                })
            }
            "tools/list" if has("--pages") => {
                let page: u32 = params["cursor"].as_str().map_or(0, |c| c.parse().unwrap());
                let tool = json!({ "name": format!("tool{page}"), "inputSchema": { "type": "object" } });
                match page {
                    2 => json!({ "tools": [tool] }),
                    _ => json!({ "tools": [tool], "nextCursor": (page + 1).to_string() }),
                }
            }
            "tools/list" => json!({ "tools": [{
                "name": "lookup", "description": "Find a host",
                "inputSchema": {
                    "type": "object", "properties": { "host": { "type": "string" } }, "required": ["host"]
                },
            }]}),
            "tools/call" => {
                calls += 1;
                let arguments = &params["arguments"];
                let text = |text: String| json!({ "content": [{ "type": "text", "text": text }] });
                match params["name"].as_str().unwrap_or_default() {
                    "lookup" if arguments["host"] == "db-1" => text("db-1 rack 4".into()),
                    "lookup" => {
                        json!({ "content": [{ "type": "text", "text": "no such host" }], "isError": true })
                    }
                    "calls" => text(calls.to_string()),
                    "client" => text(client.to_string()),
                    "env" => {
                        let mut all: Vec<String> =
                            std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
                        all.sort();
                        text(all.join("\n"))
                    }
                    "parts" => json!({ "content": [
                        { "type": "text", "text": "a" },
                        { "type": "image", "data": "AAAA", "mimeType": "image/png" },
                        { "type": "audio", "data": "AAAA", "mimeType": "audio/wav" },
                        { "type": "text", "text": "b" },
                    ]}),
                    "large" => text("x\n".repeat(20_000)),
                    "sleep" => {
                        std::thread::sleep(std::time::Duration::from_secs(arguments["s"].as_u64().unwrap()));
                        text("slept".into())
                    }
                    "die" => std::process::exit(1),
                    other => {
                        let error = json!({ "code": -32602, "message": format!("unknown tool {other}") });
                        println!("{}", json!({ "jsonrpc": "2.0", "id": id, "error": error }));
                        continue;
                    }
                }
            }
            _ => json!({}),
        };
        println!("{}", json!({ "jsonrpc": "2.0", "id": id, "result": result }));
        std::io::stdout().flush().unwrap();
    }
}
