//! What is wrong with a file that is to be a task, though every word of it could be ignored.

use legwork_yaml::{Node, Value};

const AGENT: &[&str] = &[
    "ask",
    "ask_s",
    "budget",
    "compaction",
    "context_window",
    "fork_of",
    "guided",
    "live_usage",
    "max_tokens",
    "max_turns",
    "mcp_servers",
    "messages",
    "model",
    "output_schema",
    "prices",
    "result",
    "secrets",
    "shell_session",
    "source",
    "sub_agent",
    "system_prompt",
    "thinking",
    "tools",
    "type",
];
const WORKFLOW: &[&str] = &[
    "concurrency",
    "defaults",
    "env",
    "github",
    "inputs",
    "jobs",
    "masks",
    "name",
    "on",
    "parallel",
    "permissions",
    "result",
    "run-name",
    "secrets",
    "source",
    "steps",
    "type",
    "vars",
    "workflow",
];

/// All slips, by line.
pub(super) fn find(node: &Node) -> Vec<String> {
    // What is no dictionary is told by whoever reads it.
    let Value::Map(entries) = &node.value else { return Vec::new() };
    let kind = match node.get("type").map(|node| &node.value) {
        Some(Value::Text(kind)) => Some(kind.as_str()),
        Some(_) => return Vec::new(),
        None if node.get("jobs").is_some() => Some("workflow"),
        None if ["messages", "system_prompt", "tools"].iter().any(|key| node.get(key).is_some()) => {
            Some("agent")
        }
        None => None,
    };
    let (known, needed): (Vec<&str>, &[&str]) = match kind {
        Some("agent") => (AGENT.to_vec(), &["messages"]),
        Some("workflow") => (WORKFLOW.to_vec(), &["jobs", "steps", "workflow"]),
        Some(_) => return Vec::new(),
        None => (AGENT.iter().chain(WORKFLOW).copied().collect(), &[]),
    };
    let mut found: Vec<String> = entries
        .iter()
        .filter(|entry| !known.contains(&entry.key.as_str()))
        .map(|entry| {
            let place = if entry.line == 0 { String::new() } else { format!("line {}: ", entry.line) };
            let near = known.iter().find(|key| is_near(&entry.key, key));
            let hint = near.map_or_else(String::new, |key| format!("; did you mean '{key}'?"));
            format!("{place}'{}' is not known here{hint}", entry.key)
        })
        .collect();
    match kind {
        None => found.insert(
            0,
            "this is neither a workflow (which has 'jobs') nor a task (which has 'messages', or a 'type' and 'steps')"
                .into(),
        ),
        Some(kind) if !needed.iter().any(|key| node.get(key).is_some()) => {
            found.insert(0, format!("a task of type {kind} without {} does nothing", needed.join(", ")));
        }
        Some(_) => {}
    }
    if let Some(Node { value: Value::Map(jobs), .. }) = node.get("jobs") {
        let is_empty = |node: &Node| {
            matches!(node.value, Value::Map(_))
                && node.get("uses").is_none()
                && node.get("steps").is_none_or(|s| s.value == Value::List(Vec::new()))
        };
        if jobs.is_empty() {
            found.push("jobs: a workflow without a job does nothing".into());
        }
        let idle = jobs.iter().filter(|job| is_empty(&job.node));
        found.extend(
            idle.map(|job| format!("line {}: jobs.{} has no steps, and does nothing", job.line, job.key)),
        );
    }
    found
}

/// Whether one word is another with a slip or two.
fn is_near(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()] <= 2 && row[b.len()] < b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slips(text: &str) -> Vec<String> {
        find(&legwork_yaml::parse(text).expect("yaml"))
    }

    #[test]
    fn a_file_that_is_no_task_is_not_said_to_be_right() {
        for (text, want) in [
            ("foo: bar", "neither a workflow"),
            ("job: {a: {steps: [{run: x}]}}", "did you mean 'jobs'?"),
            ("mesages: [x]\ntool: [shell]", "did you mean 'messages'?"),
            ("messages: []\ntool: [shell]", "'tool' is not known here; did you mean 'tools'?"),
            ("tools: [shell]", "without messages does nothing"),
            ("type: workflow", "without jobs, steps, workflow does nothing"),
            ("jobs: {}", "without a job does nothing"),
            ("jobs: {a: {needs: []}}", "jobs.a has no steps"),
            ("jobs: {a: {steps: []}}", "jobs.a has no steps"),
            ("{}", "neither a workflow"),
        ] {
            let found = slips(text);
            assert!(found.iter().any(|slip| slip.contains(want)), "{text}: {found:?}");
        }
        for good in [
            "messages: [{role: user, content: x}]\ntools: [shell]\nmax_turns: 3",
            "name: ci\non: push\njobs: {a: {steps: [{run: x}]}}",
            "type: workflow\nsteps: [{run: x}]",
            "type: nothing",
        ] {
            assert_eq!(slips(good), [""; 0], "{good}");
        }
    }
}
