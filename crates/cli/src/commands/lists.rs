//! `legwork runners` and `legwork tasks`.

use anyhow::{Result, bail};
use legwork_api::{
    CancelTask, ChangeRunner, Client, GetRunner, GetTask, ListRunners, ListTasks, NoQuery, Open, Received,
    RemoveRunner, RunnerChange, RunnerFilter, RunnerName, Task, TaskFilter, TaskId,
};
use legwork_base::clock::now_ms;

use crate::args::{RunnersArgs, RunnersCommand, TasksArgs};
use crate::client;

/// Most tasks that are looked at for those that a filter lets through.
const MOST_LOOKED_AT: usize = 20_000;
/// Most that a page of a list has.
const MOST_ON_A_PAGE: u32 = 500;

pub(crate) async fn runners(args: RunnersArgs) -> Result<u8> {
    if let Some(command) = args.command {
        return change(command).await;
    }
    let args = args.list;
    let client = client::from_args(&args.hub)?;
    let first = RunnerFilter { limit: Some(MOST_ON_A_PAGE), ..RunnerFilter::default() };
    let items = client.all::<ListRunners, _, _>(first, |query, cursor| query.cursor = Some(cursor)).await?;
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
            let name = match &r.display_name {
                Some(shown) => format!("{} ({shown})", r.name),
                None => r.name.clone(),
            };
            let status = if r.drained { format!("{}, drained", r.status) } else { r.status.to_string() };
            [name.as_str(), &status, r.id.as_str(), &r.version, &r.labels.join(",")].map(cell).to_vec()
        })
        .collect();
    table(&["NAME", "STATUS", "ID", "VERSION", "LABELS"], &rows);
    Ok(0)
}

async fn change(command: RunnersCommand) -> Result<u8> {
    match command {
        RunnersCommand::Set { runner, label, no_labels, display_name, drain, undrain, hub } => {
            let change = RunnerChange {
                labels: (no_labels || !label.is_empty()).then_some(label),
                display_name,
                drained: (drain || undrain).then_some(drain),
            };
            if change == RunnerChange::default() {
                bail!("say what to set: --label, --no-labels, --display-name, --drain or --undrain");
            }
            let client = client::from_args(&hub)?;
            let changed = client.send::<ChangeRunner>(&RunnerName(runner), &NoQuery {}, &change).await?;
            println!("set {}", cell(&changed.name));
        }
        RunnersCommand::Remove { runner, hub } => {
            let runner = RunnerName(runner);
            client::from_args(&hub)?.ask::<RemoveRunner>(&runner).await?;
            println!("removed {}", visible(runner.as_str()));
        }
    }
    Ok(0)
}

pub(crate) async fn tasks(args: TasksArgs) -> Result<u8> {
    let client = client::from_args(&args.hub)?;
    if let Some(id) = &args.task {
        let id = TaskId(id.clone());
        let task = match args.cancel {
            true => client.ask::<CancelTask>(&id).await?,
            false => client.ask::<GetTask>(&id).await?,
        };
        println!("{}", serde_json::to_string_pretty(&task)?);
        return Ok(0);
    }
    let items = wanted_tasks(&client, &args).await?;
    if items.is_empty() {
        is_known(&client, &args).await?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&items)?);
        return Ok(0);
    }
    let now = now_ms();
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|t| {
            let on = match t.runs.as_slice() {
                [run] => run.runner.clone(),
                runs => format!("{} runners", runs.len()),
            };
            let age = age(now.saturating_sub(t.created_at_ms) / 1000);
            [t.id.as_str(), &age, t.state.as_str(), &exits(t), &on, &t.operation, &t.subject()]
                .map(cell)
                .to_vec()
        })
        .collect();
    table(&["TASK", "AGE", "STATE", "EXIT", "ON", "OPERATION", "SUBJECT"], &rows);
    Ok(0)
}

/// What dial-out runners and the pool are asked for.
const OPERATIONS: &[&str] = &[
    "bash",
    "read",
    "write",
    "list",
    "glob",
    "grep",
    "webfetch",
    "mcp_call",
    "mcp_list_tools",
    "sync_skill",
    "agent",
    "workflow",
];

/// Whether what a list without tasks was filtered by is known at all: else a misspelt name looks
/// like a quiet day.
async fn is_known(client: &Client, args: &TasksArgs) -> Result<()> {
    if let Some(runner) = &args.runner {
        client.ask::<GetRunner>(&RunnerName(runner.clone())).await?;
    }
    match &args.operation {
        Some(operation) if !OPERATIONS.contains(&operation.as_str()) => {
            bail!("no task has the operation '{}'; there are {}", visible(operation), OPERATIONS.join(", "))
        }
        _ => Ok(()),
    }
}

/// The newest tasks that the filters let through.
async fn wanted_tasks(client: &Client, args: &TasksArgs) -> Result<Vec<Received<Task>>> {
    let since = match &args.since {
        Some(text) => Some(now_ms().saturating_sub(seconds(text)? * 1000)),
        None => None,
    };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let filters = args.state.is_some() || args.operation.is_some() || since.is_some();
    let asked = args.limit.min(MOST_ON_A_PAGE);
    let mut query = TaskFilter {
        limit: Some(if filters { MOST_ON_A_PAGE } else { asked }),
        runner: args.runner.clone().map(RunnerName),
        // A hub of version 0.1 takes no notice of it: what comes is looked at here as well.
        state: args.state.as_deref().map(Open::from),
        ..TaskFilter::default()
    };
    let (mut items, mut looked_at) = (Vec::new(), 0);
    loop {
        let page = client.list::<ListTasks>(&query).await?;
        query.cursor.clone_from(&page.next);
        for task in page.into_items() {
            looked_at += 1;
            // Newest first: the rest is older.
            if since.is_some_and(|since| task.created_at_ms < since) {
                return Ok(items);
            }
            let is_wanted = args.operation.as_ref().is_none_or(|wanted| task.operation == *wanted)
                && args.state.as_ref().is_none_or(|wanted| task.has_state(wanted));
            if is_wanted {
                items.push(task);
            }
            if items.len() >= limit {
                return Ok(items);
            }
        }
        if query.cursor.is_none() {
            return Ok(items);
        }
        if looked_at >= MOST_LOOKED_AT {
            eprintln!("legwork: only the newest {looked_at} tasks were looked at");
            return Ok(items);
        }
    }
}

/// How its commands exited.
fn exits(task: &Task) -> String {
    let mut codes: Vec<i32> = task.runs.iter().filter_map(|run| run.exit_code).collect();
    codes.sort_unstable();
    codes.dedup();
    match codes.as_slice() {
        [] => "-".into(),
        codes if codes.len() > 3 => format!("{},…", codes[0]),
        codes => codes.iter().map(i32::to_string).collect::<Vec<_>>().join(","),
    }
}

/// An age in one unit.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m", s / 60),
        s if s < 86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// Seconds of a time span as people write it.
pub(super) fn seconds(text: &str) -> Result<u64> {
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

/// What fits into a table.
pub(super) fn cell(text: &str) -> String {
    const WIDTH: usize = 120;
    visible(&text.chars().take(WIDTH).collect::<String>())
}

/// Most blanks in a row that are shown as they are.
const MOST_BLANKS: usize = 32;

/// One line that shows all that is in it: names and commands come from elsewhere. They must not
/// drive the terminal, and whoever approves them must read what will be done: nothing in them
/// turns the order of letters, hides between them, or is pushed out of sight by blanks.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| is_blank(c) != is_blank(first)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        match run.chars().count() {
            blanks if is_blank(first) && blanks > MOST_BLANKS => out.push_str(&format!("[{blanks} blanks]")),
            _ => out.push_str(&escaped(run)),
        }
        rest = after;
    }
    out
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() && !is_hidden(c)
}

/// A line of output: blanks are its layout, all else is as in [`visible`].
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Whether a character is not seen where it stands: control characters, those that only say how
/// others are set (Unicode's category Cf, all that turn the direction of text among them), ends
/// of lines and paragraphs, and those that are drawn as nothing.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character turns the direction of what follows it.
pub(crate) fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

    /// What a person approves must be what they read.
    #[test]
    fn nothing_hides_in_a_line() {
        for (text, want) in [
            ("a\x1b[2Kb\r\n\u{9b}", "a\\u{1b}[2Kb\\r\\n\\u{9b}"),
            ("rm \u{202e}txt.exe\u{2069}", "rm \\u{202e}txt.exe\\u{2069}"),
            ("\u{200b}a\u{200d}b\u{feff}\u{ad}\u{2060}", "\\u{200b}a\\u{200d}b\\u{feff}\\u{ad}\\u{2060}"),
            ("a\u{2028}b\u{61c}\u{180e}\u{3164}", "a\\u{2028}b\\u{61c}\\u{180e}\\u{3164}"),
            ("\u{e0041}\u{fe0f}\u{1d173}", "\\u{e0041}\\u{fe0f}\\u{1d173}"),
            (
                "na\u{ef}ve \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{4f60}",
                "na\u{ef}ve \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{4f60}",
            ),
            ("a  b", "a  b"),
            ("", ""),
        ] {
            assert_eq!(visible(text), want, "{text:?}");
        }
        let far = format!("ls{}; rm -rf /", " ".repeat(4000));
        assert_eq!(visible(&far), "ls[4000 blanks]; rm -rf /");
        let mixed = format!("ls{};x", "\u{a0} \u{3000}\u{2003}".repeat(10));
        assert_eq!(visible(&mixed), "ls[40 blanks];x");
        assert_eq!(escaped(&far), far, "output keeps its layout");
    }

    #[test]
    fn a_label_of_megabytes_is_cut_and_no_panic() {
        assert_eq!(cell(&"x".repeat(20 << 20)).len(), 120);
        table(&["A"], &[vec!["x".repeat(70_000)]]);
    }
}
