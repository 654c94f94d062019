//! The tools: names, what they take, what they do to the world, and the role that they need.

use legwork_api::Role;
use serde_json::{Value, json};

/// A tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    title: &'static str,
    about: &'static str,
    pub(super) role: Role,
    /// It changes nothing.
    reads: bool,
    /// What it changes may be lost.
    destroys: bool,
    /// Twice is the same as once.
    again: bool,
    /// Fields: name, type, description, whether it must be given.
    fields: &'static [(&'static str, &'static str, &'static str, bool)],
}

const MACHINE: (&str, &str, &str, bool) = ("machine", "string", "The machine, by name or id", true);
const TASK: (&str, &str, &str, bool) = ("task", "string", "The task's id, such as tsk_…", true);

/// Reads nothing but what the hub or a machine shows.
const fn reading(
    name: &'static str,
    title: &'static str,
    about: &'static str,
    role: Role,
    fields: &'static [(&'static str, &'static str, &'static str, bool)],
) -> Tool {
    Tool { name, title, about, role, reads: true, destroys: false, again: true, fields }
}

pub(super) const ALL: &[Tool] = &[
    reading(
        "list_machines",
        "List machines",
        "Lists machines by name, labels and status. All labels that are given must be there.",
        Role::Viewer,
        &[
            ("labels", "strings", "Labels that it must have, such as os:linux", false),
            ("name", "string", "A glob for its name, such as web-*", false),
            ("online", "boolean", "Only those that are connected now", false),
            ("limit", "integer", "At most so many; 100 by default, 500 at most", false),
        ],
    ),
    reading(
        "machine_facts",
        "Facts of a machine",
        "Shows what is known of a machine: system, processors, memory, load, labels, version.",
        Role::Viewer,
        &[MACHINE],
    ),
    reading(
        "read_file",
        "Read a file",
        "Reads a file beneath a machine's workspace, as text where it is UTF-8.",
        Role::Operator,
        &[
            MACHINE,
            ("path", "string", "Relative to the workspace", true),
            ("offset", "integer", "The first byte; 0 by default", false),
            ("limit", "integer", "Bytes; 16384 by default and at most", false),
        ],
    ),
    Tool {
        name: "write_file",
        title: "Write a file",
        about: "Writes a file beneath a machine's workspace, in place of what is there.",
        role: Role::Operator,
        reads: false,
        destroys: true,
        again: true,
        fields: &[
            MACHINE,
            ("path", "string", "Relative to the workspace", true),
            ("content", "string", "The whole text of the file", true),
        ],
    },
    reading(
        "list_files",
        "List a folder",
        "Lists a folder beneath a machine's workspace.",
        Role::Operator,
        &[
            MACHINE,
            ("path", "string", "Relative to the workspace; empty for the workspace itself", false),
            ("recursive", "boolean", "All levels", false),
        ],
    ),
    reading(
        "find_files",
        "Find files by name",
        "Finds files beneath a machine's workspace by a glob such as **/*.conf.",
        Role::Operator,
        &[MACHINE, ("pattern", "string", "The glob", true)],
    ),
    reading(
        "search_files",
        "Search in files",
        "Finds lines by a regular expression in files beneath a machine's workspace; ignored and hidden files are left out.",
        Role::Operator,
        &[
            MACHINE,
            ("pattern", "string", "The regular expression", true),
            ("include", "strings", "Globs of files to look into, such as *.log", false),
        ],
    ),
    Tool {
        name: "run",
        title: "Run a command",
        about: "Runs a line of bash on a machine, or on several by labels. A short one is answered with its output; one that takes longer \
                than wait_s is answered with its task, which goes on. A refusal says which rule refused it, and what to write \
                instead where that is known.",
        role: Role::Operator,
        reads: false,
        destroys: true,
        again: false,
        fields: &[
            ("command", "string", "The line of bash", true),
            ("machine", "string", "The machine, by name or id; or give labels", false),
            ("labels", "strings", "Labels that the machines must have", false),
            ("count", "integer", "On how many of those with the labels; 1 by default, 0 for all", false),
            ("workdir", "string", "A folder beneath the workspace", false),
            ("timeout_s", "integer", "Seconds that the command may take; 120 by default", false),
            ("wait_s", "integer", "Seconds to wait for its end; 20 by default, 120 at most", false),
            ("reason", "string", "Why: people read it who are asked for their yes", false),
        ],
    },
    reading(
        "task_status",
        "Status of a task",
        "Shows where a task stands on each machine, and the output of what is over.",
        Role::Viewer,
        &[TASK, ("wait_s", "integer", "Seconds to wait for its end; none by default, 120 at most", false)],
    ),
    reading(
        "task_output",
        "Output of a task",
        "Reads on in a task's output, while it runs or after it: pass `next` of the answer as `after`.",
        Role::Viewer,
        &[TASK, ("after", "integer", "Where to go on; 0 by default: from the beginning", false)],
    ),
    Tool {
        name: "cancel_task",
        title: "Cancel a task",
        about: "Ends what a task runs.",
        role: Role::Operator,
        reads: false,
        destroys: true,
        again: true,
        fields: &[TASK],
    },
    reading(
        "list_approvals",
        "What waits for a yes",
        "Lists commands that wait for a person's yes, exactly as they would run.",
        Role::Viewer,
        &[("all", "boolean", "Those that were decided as well", false)],
    ),
    Tool {
        name: "answer_approval",
        title: "Say yes or no",
        about: "Answers an approval. A yes is asked of the person at this client, who sees what would run; without a client that can ask, only no.",
        role: Role::Approver,
        reads: false,
        destroys: true,
        again: false,
        fields: &[
            ("approval", "string", "The approval's id, such as apr_…", true),
            ("answer", "string", "yes or no", true),
            ("note", "string", "What there is to say about it", false),
        ],
    },
];

/// The tools that a role may use, in an order that stays.
pub(super) fn of(role: Role) -> Vec<Value> {
    ALL.iter().filter(|tool| role.reaches(tool.role)).map(shown).collect()
}

fn shown(tool: &Tool) -> Value {
    let kind = |kind: &str| match kind {
        "strings" => json!({ "type": "array", "items": { "type": "string" } }),
        other => json!({ "type": other }),
    };
    let field = |(name, of, about, _): &(&str, &str, &str, bool)| {
        let mut schema = kind(of);
        schema["description"] = (*about).into();
        ((*name).to_owned(), schema)
    };
    let needed: Vec<&str> = tool.fields.iter().filter(|field| field.3).map(|field| field.0).collect();
    json!({
        "name": tool.name, "title": tool.title, "description": tool.about,
        "inputSchema": {
            "type": "object", "properties": tool.fields.iter().map(field).collect::<serde_json::Map<_, _>>(),
            "required": needed, "additionalProperties": false,
        },
        "annotations": {
            "title": tool.title, "readOnlyHint": tool.reads, "destructiveHint": tool.destroys,
            "idempotentHint": tool.again, "openWorldHint": tool.name == "run",
        },
    })
}

impl Tool {
    /// What is wrong with arguments: what is missing, of another type, or not known.
    pub(super) fn wrong(&self, given: &serde_json::Map<String, Value>) -> Option<String> {
        let names = || self.fields.iter().map(|field| field.0).collect::<Vec<_>>().join(", ");
        if let Some(name) =
            given.keys().find(|name| !self.fields.iter().any(|field| field.0 == name.as_str()))
        {
            return Some(format!("there is no argument '{name}'; there are {}", names()));
        }
        self.fields.iter().find_map(|(name, kind, _, needed)| {
            let value = given.get(*name).filter(|value| !value.is_null());
            let fits = match (value, *kind) {
                (None, _) => !needed,
                (Some(value), "string") => value.is_string(),
                (Some(value), "boolean") => value.is_boolean(),
                (Some(value), "integer") => value.is_u64(),
                (Some(value), _) => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
            };
            match (fits, value) {
                (true, _) => None,
                (false, None) => Some(format!("the argument '{name}' is missing")),
                (false, Some(_)) => Some(format!("the argument '{name}' must be of the type {kind}")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_sees_what_it_may_use_and_annotations_are_true() {
        let names = |role| of(role).iter().map(|tool| tool["name"].clone()).collect::<Vec<_>>();
        assert!(
            !names(Role::Viewer).contains(&json!("run"))
                && names(Role::Viewer).contains(&json!("task_output"))
        );
        assert!(names(Role::Operator).contains(&json!("run")));
        assert!(!names(Role::Operator).contains(&json!("answer_approval")));
        assert_eq!(names(Role::Admin).len(), ALL.len());
        assert!(names(Role::Runner).is_empty());
        for tool in ALL {
            assert!(!(tool.reads && tool.destroys), "{}", tool.name);
        }
    }

    #[test]
    fn arguments_are_told_what_is_wrong_with_them() {
        let run = ALL.iter().find(|tool| tool.name == "run").expect("there");
        let wrong = |json: Value| run.wrong(json.as_object().expect("object"));
        assert_eq!(wrong(json!({ "command": "ls", "machine": "a", "count": null })), None);
        assert!(wrong(json!({})).is_some_and(|why| why.contains("'command' is missing")));
        assert!(wrong(json!({ "command": 7 })).is_some_and(|why| why.contains("type string")));
        assert!(
            wrong(json!({ "command": "ls", "machin": "a" }))
                .is_some_and(|why| why.contains("no argument 'machin'"))
        );
        assert!(wrong(json!({ "command": "ls", "count": -1 })).is_some_and(|why| why.contains("integer")));
    }
}
