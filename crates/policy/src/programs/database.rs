//! Clients of databases: what they are told in their arguments may ask, not write files,
//! start programs or load libraries. Read only where what they start is judged as well;
//! else a rule must spell the whole command.

use super::{Finding, refuse, refuse_unseen};
use crate::script::Word;

/// Words of statements that reach files, programs or libraries, on this machine or the
/// server's.
const ACTS: &[&str] = &[
    "system",
    "tee",
    "pager",
    "edit",
    "source",
    "outfile",
    "dumpfile",
    "infile",
    "load",
    "load_file",
    "load_extension",
    "program",
    "copy",
    "attach",
    "writefile",
    "readfile",
    "fts3_tokenizer",
    "lo_import",
    "lo_export",
    "pg_read_file",
    "pg_execute_server_program",
    "plugin",
    "soname",
    "extension",
    "delimiter",
];

/// Commands of sqlite3 that only show.
const SHOWS: &[&str] = &[
    ".tables",
    ".schema",
    ".databases",
    ".indexes",
    ".dbinfo",
    ".headers",
    ".mode",
    ".show",
    ".help",
    ".stats",
    ".timeout",
    ".width",
    ".separator",
    ".nullvalue",
    ".echo",
    ".fullschema",
    ".version",
];

/// Commands of redis that change what the server runs or writes, or run text there.
const CHANGES: &[&str] = &[
    "eval",
    "evalsha",
    "eval_ro",
    "evalsha_ro",
    "fcall",
    "fcall_ro",
    "function",
    "script",
    "config",
    "module",
    "debug",
    "save",
    "bgsave",
    "bgrewriteaof",
    "shutdown",
    "slaveof",
    "replicaof",
    "migrate",
    "restore",
    "acl",
    "failover",
    "cluster",
];

pub(super) fn check(name: &str, args: &[Word]) -> Finding {
    let unjudged = || {
        refuse(format!(
            "'{name}' with these words can write files, load or run something else; only a rule that spells the whole \
             command allows it"
        ))
    };
    let texts: Option<Vec<String>> = args.iter().map(Word::literal).collect();
    let Some(texts) = texts else {
        return super::refuse_computed(
            format!("a computed word stands where '{name}' takes an option or a statement"),
            true,
        );
    };
    let fine = match name {
        "redis-cli" => redis(&texts),
        "sqlite3" => sqlite(&texts),
        _ => sql(name, &texts),
    };
    if !fine {
        return unjudged();
    }
    if name == "psql" && texts.iter().all(|text| text == "-l" || text == "--list") {
        return Ok(Vec::new());
    }
    refuse_unseen(format!(
        "'{name}' can run other commands in ways that can't be judged; only a rule that spells the whole command \
         allows it"
    ))
}

/// Whether statements only ask.
fn asks(text: &str) -> bool {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    !text.contains('\\') && !words.map(str::to_ascii_lowercase).any(|word| ACTS.contains(&word.as_str()))
}

fn redis(texts: &[String]) -> bool {
    const VALUES: &[&str] = &["-h", "-p", "-n", "-a", "-u", "-r", "-i", "--user", "--pass"];
    const FLAGS: &[&str] = &[
        "--raw",
        "--no-raw",
        "--csv",
        "--json",
        "--tls",
        "--no-auth-warning",
        "--stat",
        "--latency",
        "-c",
        "-e",
    ];
    let mut at = 0;
    while let Some(text) = texts.get(at).filter(|text| text.starts_with('-')) {
        match text.as_str() {
            text if VALUES.contains(&text) => at += 2,
            text if FLAGS.contains(&text) => at += 1,
            _ => return false,
        }
    }
    texts.get(at).is_some_and(|command| !CHANGES.contains(&command.to_ascii_lowercase().as_str()))
}

fn sqlite(texts: &[String]) -> bool {
    const FLAGS: &[&str] = &[
        "-readonly",
        "-header",
        "-noheader",
        "-csv",
        "-json",
        "-column",
        "-line",
        "-list",
        "-box",
        "-table",
        "-markdown",
        "-batch",
        "-safe",
        "-bail",
    ];
    let mut rest = texts.iter().skip_while(|text| {
        FLAGS.contains(&text.strip_prefix('-').filter(|t| t.starts_with('-')).unwrap_or(text))
    });
    let statements = |text: &String| match text.trim_start().starts_with('.') {
        true => {
            SHOWS.contains(&text.split_whitespace().next().unwrap_or_default())
                && !text.contains(['\n', '|', '\\'])
        }
        // A dot at the start of a later line is a command as well.
        false => asks(text) && !text.lines().any(|line| line.trim_start().starts_with('.')),
    };
    // The file, then at least one statement: else they are read from the input.
    let file = rest.next().is_some_and(|file| !file.starts_with('-'));
    let given: Vec<&String> = rest.collect();
    file && !given.is_empty() && given.iter().all(|text| !text.starts_with('-') && statements(text))
}

fn sql(name: &str, texts: &[String]) -> bool {
    let (values, flags, statement): (&[&str], &str, char) = match name {
        "psql" => (
            &["-h", "--host", "-p", "--port", "-U", "--username", "-d", "--dbname", "-F", "-R", "-P"],
            "AtqXxwWeHz0",
            'c',
        ),
        _ => (&["-h", "--host", "-P", "--port", "-u", "--user", "-D", "--database"], "ABbNrstvEGfHX", 'e'),
    };
    let long = if name == "psql" { "--command" } else { "--execute" };
    const PLAIN: &[&str] = &[
        "--tuples-only",
        "--no-align",
        "--quiet",
        "--no-psqlrc",
        "--csv",
        "--expanded",
        "--no-password",
        "--batch",
        "--skip-column-names",
        "--raw",
        "--silent",
        "--table",
        "--vertical",
        "--ssl",
        "--compress",
        "--html",
        "--xml",
    ];
    let mut at = 0;
    let mut asked = false;
    while let Some(text) = texts.get(at) {
        at += 1;
        if values.contains(&text.as_str()) {
            at += 1;
        } else if text == long {
            asked = true;
            if !texts.get(at).is_some_and(|text| asks(text)) {
                return false;
            }
            at += 1;
        } else if let Some(cluster) = text.strip_prefix('-').filter(|t| !t.starts_with('-') && !t.is_empty())
        {
            let attached_value = values.iter().any(|o| o.len() == 2 && text.starts_with(o))
                || name != "psql" && text.starts_with("-p");
            match cluster.split_once(statement) {
                Some((before, after)) if before.chars().all(|c| flags.contains(c)) => {
                    asked = true;
                    let given =
                        if after.is_empty() { texts.get(at).map(String::as_str) } else { Some(after) };
                    if !given.is_some_and(asks) {
                        return false;
                    }
                    at += usize::from(after.is_empty());
                }
                None if cluster.chars().all(|c| flags.contains(c)) || attached_value => {}
                _ if attached_value => {}
                _ => return false,
            }
        } else if text.starts_with("--") {
            let (option, value) = text.split_once('=').map_or((text.as_str(), None), |(o, v)| (o, Some(v)));
            match value {
                Some(value) if option == long => {
                    asked = true;
                    if !asks(value) {
                        return false;
                    }
                }
                Some(_) if values.contains(&option) || option == "--password" => {}
                _ if PLAIN.contains(&option) => {}
                _ => return false,
            }
        }
    }
    // psql takes `\copy` and variables from a connection string as little as from a name.
    asked || name == "psql" && texts.iter().any(|text| text == "-l" || text == "--list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_ask_are_told_from_those_that_act() {
        for (name, words, seen) in [
            ("psql", vec!["-Atc", "select state, count(*) from pg_stat_activity group by 1"], true),
            ("psql", vec!["postgres://h/db", "-c", "select 1"], true),
            ("psql", vec!["-c", "copy t to program 'id'"], false),
            ("psql", vec!["-c", "\\! id"], false),
            ("psql", vec!["-f", "x"], false),
            ("psql", vec!["-Ato", "x", "-c", "select 1"], false),
            ("psql", vec!["db"], false),
            ("mysql", vec!["-h", "db1", "-e", "show processlist"], true),
            ("mysql", vec!["-h", "db1", "-esystem id"], false),
            ("mysql", vec!["-e", "select 1 into outfile 'x'"], false),
            ("mysql", vec!["--tee=x", "-e", "select 1"], false),
            ("mysql", vec!["--plugin-dir=.", "-e", "select 1"], false),
            ("redis-cli", vec!["-h", "cache", "ping"], true),
            ("redis-cli", vec!["-h", "cache", "CONFIG", "SET", "dir", "/"], false),
            ("redis-cli", vec!["--rdb", "x"], false),
            ("redis-cli", vec![], false),
            ("sqlite3", vec!["app.db", ".tables"], true),
            ("sqlite3", vec!["-readonly", "app.db", "select 1"], true),
            ("sqlite3", vec!["app.db", ".shell id"], false),
            ("sqlite3", vec!["app.db", "select writefile('x', 'y')"], false),
            ("sqlite3", vec!["app.db", "select 1;\n.output x"], false),
            ("sqlite3", vec!["-cmd", ".shell id", "app.db", "select 1"], false),
            ("sqlite3", vec!["app.db"], false),
        ] {
            let words: Vec<Word> = words.iter().map(|word| Word::of(word)).collect();
            let refusal = check(name, &words).expect_err("never allowed by itself");
            assert_eq!(refusal.seen, seen, "{name} {words:?}");
        }
    }
}
