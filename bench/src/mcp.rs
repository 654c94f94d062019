//! MCP calls through a runner, against the SDK's own client on the same server.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rmcp::model::{CallToolRequestParams, ClientConfig};
use rmcp::service::ServiceExt;
use serde_json::json;

use crate::report;
use crate::runner::connected;

const CALLS: u32 = 1000;

/// The server's line: LEGWORK_BENCH_MCP (with its tool in LEGWORK_BENCH_MCP_TOOL and
/// that tool's arguments), else a minimal one of ours.
fn server() -> (Vec<String>, String, serde_json::Map<String, serde_json::Value>) {
    let ours = legwork_e2e::binary().with_file_name("test-mcp").display().to_string();
    let line = std::env::var("LEGWORK_BENCH_MCP").unwrap_or(ours);
    let tool =
        std::env::var("LEGWORK_BENCH_MCP_TOOL").unwrap_or_else(|_| "lookup {\"host\":\"db-1\"}".into());
    let (tool, arguments) = tool.split_once(' ').unwrap();
    (line.split(' ').map(str::to_owned).collect(), tool.to_owned(), serde_json::from_str(arguments).unwrap())
}

pub(crate) async fn calls() {
    let (argv, tool, arguments) = server();
    if !std::path::Path::new(&argv[0]).exists() {
        println!("skip mcp: {} is not built (cargo build --release -p legwork-e2e)", argv[0]);
        return;
    }
    let mut child = tokio::process::Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let wires = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    let sdk =
        ClientConfig::new(Default::default(), rmcp::model::Implementation::new("flashduty-runner", "1"))
            .with_protocol_version(rmcp::model::ProtocolVersion::V_2025_06_18)
            .serve(wires)
            .await
            .unwrap();
    let (_dir, _runner, mut ws) = connected(legwork_e2e::ALLOW_ALL, &["ack"]).await;
    let server = json!({ "name": "b", "transport": "stdio", "command": argv[0], "args": argv[1..] });
    // One at a time, as a model calls: the sum is what it waits.
    let (mut bare, mut ours) = (Duration::ZERO, Duration::ZERO);
    for n in 0..=CALLS {
        let start = Instant::now();
        let params = CallToolRequestParams::new(tool.clone()).with_arguments(arguments.clone());
        sdk.call_tool(params).await.unwrap();
        let took = start.elapsed();
        let id = format!("t{n}");
        let args = json!({ "server": server, "tool_name": tool, "args": arguments });
        let start = Instant::now();
        ws.say("task.request", json!({ "task_id": id, "operation": "mcp_call", "args": args })).await;
        let result = ws.result_of(&id).await;
        // The first one starts the server.
        if n > 0 {
            bare += took;
            ours += start.elapsed();
        }
        assert_eq!(result["payload"]["success"], true, "{result}");
        ws.say("ack", json!({ "id": result["id"] })).await;
    }
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    report(
        "mcp: 1,000 calls of a stdio server",
        &format!("{ours:?}, the SDK's own client {bare:?}: {ratio:.2} x"),
        "1.5 x",
        ratio / 1.5,
    );
}
