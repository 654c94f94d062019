//! One function per parser of what a stranger sends. Each must return for any
//! input; what it asserts must hold for any input.

use std::collections::BTreeMap;
use std::path::Path;

use legwork_dialout::config::{Flags, Source, load};
use legwork_policy::{Decision, Policy, fuzzing};
use legwork_proto::dialout::operation::{McpCallArgs, SyncSkillArgs, WebfetchArgs};
use legwork_proto::dialout::{
    Heartbeat, Incoming, McpCall, TaskOutput, TaskRequest, TaskResult, TaskResume, Welcome,
};

/// A target and inputs to start from.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What is fuzzed.
    pub run: fn(&[u8]),
    /// Inputs that reach deep.
    pub seeds: &'static [&'static str],
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frame",
        run: frame,
        seeds: &[
            r#"{"id":"m","type":"task.request","payload":{"task_id":"t","operation":"bash","args":{"command":"ls"}},"timestamp":1}"#,
            r#"{"type":"task.output","payload":{"task_id":"t","stream":"stdout","data":"x","offset":7,"data_base64":null}}"#,
            r#"{"type":"mcp.call","payload":{"call_id":"c","server":{"name":"n","transport":"stdio","args":["a"],"env":{"A":"b"}},"tool_name":"t","arguments":{"x":[1]}}}"#,
            r#"{"type":"welcome","worknode_id":"w","payload":{"labels":null,"features":["ack"]}}"#,
        ],
    },
    Target {
        name: "config",
        run: config,
        seeds: &[
            "token: t\napi_url: ws://h/\nlabels: [a, b]\npermission:\n  bash:\n    \"*\": deny\n    \"ls *\": allow\nlog:\n  level: debug\n",
            "api_key: k\nAPI_url: wss://h\nunknown: &a [*a]\n",
        ],
    },
    Target {
        name: "policy",
        run: policy,
        seeds: &[
            "ls -la | grep 'a b' && echo \"$(cat x)\" > out/y 2>&1",
            "for i in {1..3}; do [[ $i -eq 2 ]] || echo ${x:-`id`} $((i+1)); done",
            "cat <<EOF | tee >(wc) &\n$(ls) ${a[0]}\nEOF\nf() { case $1 in a|b) ls;; esac; }; FOO=1 f",
        ],
    },
    Target {
        name: "page",
        run: page,
        seeds: &[
            "<html><head><style>a{}</style></head><body><h1>T</h1><p>a <b>b</b><!-- c --><ul><li>x</ul></body></html>",
            "<table><tr><td>1</td></tr></table><pre><code>x</code></pre><a href='/x'>&amp;l&#39;</a><script>if(a<b){}</script>",
        ],
    },
    Target {
        name: "archive",
        run: archive,
        // As it comes: in base64.
        seeds: &[
            "UEsDBBQAAAAAAAAAIVzw6WBGBwAAAAcAAAAIAAAAU0tJTEwubWQjIGRlbW8KUEsBAhQDFAAAAAAAAAAhXPDpYEYHAAAABwAAAAgAAAAAAAAAAAAAAKSBAAAAAFNLSUxMLm1kUEsFBgAAAAABAAEANgAAAC0AAAAAAA==",
        ],
    },
    Target {
        name: "rules",
        run: rules,
        seeds: &[
            "*\tdeny\nls *\tallow\nkubectl * secret*\tdeny\n> out/*\task\n\nls $x > out/y; kubectl get secret",
            "*\tallow\nrm -rf *\tdeny\n\nsudo rm $x -rf \"a b\"",
            "FOO=* ls *\tallow\nenv *\task\n\nFOO=1 ls; env FOO=\"$x\" ls",
        ],
    },
    Target {
        name: "tables",
        run: tables,
        seeds: &[
            "env -i A=1 timeout -k 1 5 nice -n 3 ls | xargs -I{} -n 1 echo {} && find . -name 'x' -exec ls {} + -o -execdir echo {} \\;",
            "bash -euc 'ls; sh -c \"echo a | ls\"' x; su - nobody -c 'ls'; flock -n f -c ls; trap 'ls' EXIT; eval ls '&&' echo",
            "awk -F: '$3>1 && /a|b\\/c/ {print $1; if (x) y++} END {printf \"%s\" > \"/dev/stderr\"}' f | sed -n -e '1,/x/{s/[[:a:]]b/\\1/g;p}' -e 'y/a/b/;:a;ta'",
            "git -C /x --no-pager log -n 1 -- a; tar -xzf a -C b; ip -n x netns exec y ls; curl -sH 'a: b' -o x u; sort -k 2 -t, -- $x",
        ],
    },
    Target {
        name: "micro",
        run: micro,
        seeds: &[
            r#"{"type":"CMD","timestamp":"2026-01-01T00:00:00.5Z","data":{"id":"a","type":"exec","timeout":30,"params":{"command":"x","args":["y"],"env":{"A":"b"}}}}"#,
            "{\"TYPE\":\"CMD\",\"data\":{\"id\":\"a\",\"type\":\"file.read\",\"timeout\":1,\"params\":null,\"metadata\":{}}}\r\n\n{not json\n",
        ],
    },
    Target {
        name: "workspace",
        run: legwork_serve::fuzzing::wire,
        seeds: &[
            "42[\"fetchDir\",{\"path\":\"/workspace/a/../b\"}]\u{1e}3\u{1e}bAQI=",
            "451-7[\"terminal:write\",{\"data\":{\"_placeholder\":true,\"num\":0}}]",
            "bytes=0-99",
            "/workspace/%2e%2e/x",
            "<!doctype html><a href=/x srcset='/a 1x, /b 2x' style=\"b:url(&quot;/c&quot;)\"><style>@import '/d'</style><!-- -->",
            "\u{1b}[?1049h\u{1b}[2J\u{1b}[3;5Hä\u{1b}]0;t\u{7}\u{1b}[38;2;1;2;3mx",
        ],
    },
    Target {
        name: "task",
        run: task,
        seeds: &[
            r#"{"type":"agent","model":"m","messages":[{"role":"user","content":"x"}],"tools":["shell"],"max_turns":5,"budget":{"tokens":9},"mcp_servers":[{"name":"a","command":"b","tools":["*"]}]}"#,
            "jobs:\n  a:\n    needs: [b]\n    if: always() && needs.b.result == 'success'\n    steps:\n      - run: echo\n        env: {X: \"${{ steps.s.outputs.o }}\"}\n  b: {steps: [{id: s, type: checkout}]}\n",
            r#"{"runner_id":1,"task":{"id":7,"config":{"type":"workflow","steps":[]}},"callback_url":"http://h/"}"#,
            "{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1}}}\n{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"n\",\"input\":{}}}\n{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n{\"type\":\"content_block_stop\",\"index\":0}\n{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{}}\n{\"type\":\"message_stop\"}",
        ],
    },
    Target {
        name: "sql",
        run: sql,
        seeds: &[
            "select replace(a, 'b''c', $$d$$) from \"t\" where x = 'y' -- z\n and b in (1, 2)",
            "explain (analyze, format json) with x as (select count(*) from t) select * from x; show all",
            "\\dt+ public.*",
            "select `a` from t\\G use b; show tables # c\n; select \"d\" /* e */",
            "pragma table_info(x); select [a] from b; values ($1, :c, @d)",
        ],
    },
];

/// What a controller sends to a micro-runner, cut wherever it is cut.
fn micro(bytes: &[u8]) {
    use legwork_micro::input::{Line, Lines};
    let lines_of = |size: usize| {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in bytes.chunks(size) {
            lines.push(chunk);
            found.extend(std::iter::from_fn(|| lines.next_line()));
        }
        found.extend(lines.last_line());
        found
    };
    let whole = lines_of(bytes.len().max(1));
    assert_eq!(whole, lines_of(1));
    for line in whole {
        if let Line::Complete(line) = line {
            assert_ne!(legwork_micro::fuzzing::reason(&line).as_deref(), Some(""));
        }
    }
}

fn frame(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(incoming) = serde_json::from_str::<Incoming<'_>>(text) else { return };
    let Some(payload) = incoming.payload.map(serde_json::value::RawValue::get) else { return };
    let _ = serde_json::from_str::<TaskRequest<'_>>(payload);
    let _ = serde_json::from_str::<TaskResume>(payload);
    let _ = serde_json::from_str::<McpCall>(payload);
    let _ = serde_json::from_str::<McpCallArgs>(payload);
    let _ = serde_json::from_str::<WebfetchArgs>(payload);
    let _ = serde_json::from_str::<SyncSkillArgs>(payload);
    let _ = serde_json::from_str::<Heartbeat>(payload);
    let _ = serde_json::from_str::<Welcome>(payload);
    // What is read can be written, and read again.
    if let Ok(output) = serde_json::from_str::<TaskOutput>(payload) {
        let again = serde_json::to_string(&output).ok().and_then(|t| serde_json::from_str(&t).ok());
        assert_eq!(Some(output), again);
    }
    if let Ok(result) = serde_json::from_str::<TaskResult>(payload) {
        assert!(serde_json::to_string(&result).is_ok());
    }
}

fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for original in [false, true] {
        let source = Source { path: "fuzz.yaml".into(), text: text.to_owned(), original };
        if let Ok(config) = load(&source, &BTreeMap::new(), &Flags::default(), Path::new("/home/fuzz")) {
            assert!(config.url.starts_with("ws") && config.max_tasks > 0);
        }
    }
}

fn policy(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    let rules = [("*", "deny"), ("ls *", "allow"), ("echo *", "allow"), ("> out/*", "allow")];
    let Ok(policy) = Policy::from_pairs(rules) else { return };
    let verdict = policy.judge(line);
    assert_eq!(verdict.decision == Decision::Allow, verdict.message().is_none());
    assert!(verdict.parts.iter().all(|p| p.span.start <= p.span.end && p.span.end <= line.len()));
    // A line on which the parsers differ is never allowed.
    if fuzzing::parsers_agree(line) == Some(false) {
        assert_eq!(verdict.decision, Decision::Deny, "{line:?}");
    }
    // The canonical printing is a fixed point that both parsers read alike.
    if verdict.decision == Decision::Allow
        && let Some(printed) = verdict.run.filter(|r| r.reprinted).map(|r| r.text)
    {
        assert_eq!(fuzzing::parsers_agree(&printed), Some(true), "{line:?} became {printed:?}");
        assert_eq!(fuzzing::printed(&printed).as_ref(), Some(&printed));
    }
}

fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((rules, line)) = text.split_once("\n\n") else { return };
    let pairs: Vec<(&str, &str)> = rules.lines().filter_map(|l| l.split_once('\t')).collect();
    let Ok(policy) = Policy::from_pairs(pairs.iter().copied()) else { return };
    let _ = (policy.notes(), policy.order_notes(), policy.programs());
    let verdict = policy.judge(line);
    // What is denied stays denied when more is denied, however it is said.
    for more in ["ls *", "* x", "rm*", "*"] {
        let with = pairs.iter().copied().filter(|(p, _)| *p != more).chain([(more, "deny")]);
        let Ok(stricter) = Policy::from_pairs(with) else { continue };
        if verdict.decision == Decision::Deny && pairs.iter().all(|(p, _)| *p != more) {
            assert_eq!(stricter.judge(line).decision, Decision::Deny, "{rules:?} and {more}: {line:?}");
        }
    }
    let _ = legwork_policy::suggest(&policy, [line]);
}

fn tables(data: &[u8]) {
    const PROGRAMS: &[&str] = &[
        "env", "timeout", "nice", "xargs", "find", "bash", "sh", "su", "flock", "trap", "eval", "awk", "sed",
        "git", "tar", "ip", "curl", "sort", "sudo", "command", "exec", "strace", "watch", "ls", "echo",
    ];
    let Ok(line) = std::str::from_utf8(data) else { return };
    let patterns: Vec<String> = PROGRAMS.iter().map(|p| format!("{p} *")).collect();
    let pairs = [("*", "deny")].into_iter().chain(patterns.iter().map(|p| (p.as_str(), "allow")));
    let Ok(policy) = Policy::from_pairs(pairs) else { return };
    let verdict = policy.judge(line);
    if verdict.decision != Decision::Allow {
        return;
    }
    // Whatever is run in turn was found by a rule as well.
    for part in verdict.parts.iter().filter(|p| p.depth > 0 && p.rule.is_some()) {
        let program = part.command.split(' ').find(|w| !w.contains('=')).unwrap_or_default();
        assert!(PROGRAMS.contains(&program) || program.is_empty(), "{line:?} runs {part:?}");
    }
}

/// What passes ends where it seems to: no quote or comment swallows a statement after it.
fn sql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for (dialect, passes) in fuzzing::sql(text) {
        if !passes {
            continue;
        }
        for more in ["\n; drop table t", "\n; copy t to program 'id'", "\n\\! id"] {
            let longer = format!("{text}{more}");
            let again = fuzzing::sql(&longer).into_iter().find(|(other, _)| *other == dialect);
            assert_eq!(again, Some((dialect, false)), "{dialect}: {longer:?}");
        }
    }
}

fn page(data: &[u8]) {
    let Ok(html) = std::str::from_utf8(data) else { return };
    legwork_runner::fuzzing::page(html);
}

fn archive(data: &[u8]) {
    use base64::Engine;
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(data) else { return };
    // One folder beside which nothing may appear.
    let Ok(dir) = tempfile::tempdir() else { return };
    let Ok(root) = legwork_workspace::Root::open(&dir.path().join("root")) else { return };
    let unpacked = root.replace_by_zip("a/skill", &bytes, (".checksum", "x")).is_ok();
    let names = |path: &Path| {
        let entries =
            std::fs::read_dir(path).map(|entries| entries.flatten().map(|e| e.file_name()).collect());
        entries.unwrap_or_else(|_| Vec::new())
    };
    assert_eq!(names(dir.path()), ["root"]);
    let there = names(&dir.path().join("root/a"));
    assert!(if unpacked { there == ["skill"] } else { there.is_empty() }, "{there:?}");
}

fn task(data: &[u8]) {
    legwork_task::fuzzing::read(data);
}
