//! The OpenAPI document, made from the operations and their types.

use std::collections::BTreeMap;

use legwork_api::{
    About, Access, Code, Content, GapEvent, Operation, OutputEvent, PathId, PodStateEvent, Problem,
    StateEvent, Visitor, visit_all,
};
use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

const TAGS: &[(&str, &str)] = &[
    ("tasks", "What is asked of runners, and what became of it."),
    ("approvals", "What waits for a person's yes."),
    ("runners", "The machines that work is done on."),
    ("tokens", "Who may ask, and for what."),
    ("pods", "Agents and workflows, and the task runners that carry them out."),
    ("api", "The API itself."),
];

/// Answers by the operation's name.
pub(crate) fn example_of_answer(id: &str) -> Option<Value> {
    let examples: Map<String, Value> = serde_json::from_str(include_str!("examples.json")).unwrap();
    examples.get(id).cloned()
}

/// The example that a type has.
pub(crate) fn example_of<T: JsonSchema>() -> Value {
    let schema = SchemaGenerator::default().into_root_schema_for::<T>();
    schema.get("examples").and_then(|examples| examples.get(0)).cloned().unwrap_or_default()
}

pub(crate) fn document() -> Value {
    let mut made = Made {
        requests: generator(Contract::Deserialize),
        answers: generator(Contract::Serialize),
        paths: BTreeMap::new(),
    };
    visit_all(&mut made);
    // What stands in the data of events.
    made.answers.subschema_for::<OutputEvent>();
    made.answers.subschema_for::<StateEvent>();
    made.answers.subschema_for::<GapEvent>();
    made.answers.subschema_for::<PodStateEvent>();
    made.answers.subschema_for::<Problem>();
    let mut schemas = made.answers.take_definitions(true);
    for (name, schema) in made.requests.take_definitions(true) {
        if let Some(other) = schemas.get(&name) {
            assert_eq!(*other, schema, "{name} is read otherwise than it is written: give it two types");
        }
        schemas.insert(name, schema);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Legwork hub",
            "version": "1",
            "summary": "Run commands, files, tools and workflows on machines that dial out.",
            "description": "Requests are read strictly: an unknown parameter or field is an error. Answers may have \
                more fields and words in later versions; read them tolerantly. Times are milliseconds since 1970.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The hub that shows this document." }],
        "tags": TAGS.iter().map(|(name, what)| json!({ "name": name, "description": what })).collect::<Vec<_>>(),
        "security": [{ "bearer": [] }],
        "paths": made.paths,
        "components": {
            "securitySchemes": { "bearer": {
                "type": "http", "scheme": "bearer", "description": "A token of the hub; `legwork token create` makes one.",
            } },
            "schemas": schemas,
        },
    })
}

fn generator(contract: Contract) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
        s.contract = contract;
    });
    settings.into_generator()
}

struct Made {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
    paths: BTreeMap<String, Map<String, Value>>,
}

impl Visitor for Made {
    fn visit<O: Operation>(&mut self) {
        let about = O::ABOUT;
        let (summary, rest) = about.doc.split_first().unwrap();
        let mut operation = json!({
            "operationId": about.id,
            "tags": [about.tag],
            "summary": summary.trim(),
            "description": described(&about, rest),
            "responses": self.responses::<O>(),
        });
        if about.access == Access::Anybody {
            operation["security"] = json!([]);
        }
        let parameters = self.parameters::<O>();
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if about.max_body > 0 {
            operation["requestBody"] = json!({
                "required": true,
                "description": format!("At most {} bytes.", about.max_body),
                "content": { "application/json": {
                    "schema": self.requests.subschema_for::<O::Body>(),
                    "example": example_of::<O::Body>(),
                } },
            });
        }
        let path = self.paths.entry(format!("/api/v1{}", about.path)).or_default();
        let before = path.insert(about.method.as_str().to_lowercase(), operation);
        assert!(before.is_none(), "two operations at one path");
    }
}

fn described(about: &About, rest: &[&str]) -> String {
    let who = match about.access {
        Access::Anybody => "It needs no token.".to_owned(),
        Access::AnyToken => "It needs a token of any role.".to_owned(),
        Access::Needs(role) => format!("It needs the role `{}`.", role.as_str()),
    };
    let words = rest.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    format!("{} {who}", words.trim()).trim().to_owned()
}

impl Made {
    fn parameters<O: Operation>(&mut self) -> Vec<Value> {
        let mut parameters = Vec::new();
        if O::ABOUT.path.contains("{id}") {
            let schema = inline::<O::Id>(&mut self.requests);
            let what = schema.get("description").cloned().unwrap_or_default();
            parameters.push(json!({
                "name": "id", "in": "path", "required": true, "schema": schema,
                "description": format!("The {}. {}", O::Id::WHAT, what.as_str().unwrap_or_default()),
            }));
        }
        let query = inline::<O::Query>(&mut self.requests);
        for (name, schema) in query.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let mut schema = schema.clone();
            let what = schema.as_object_mut().unwrap().remove("description").unwrap();
            // A query has no null.
            if let Some(types) = schema["type"].as_array_mut() {
                types.retain(|kind| kind != "null");
                schema["type"] = types[0].clone();
            }
            if let Some(any) = schema.get("anyOf").cloned() {
                schema = any[0].clone();
            }
            parameters.push(json!({ "name": name, "in": "query", "schema": schema, "description": what }));
        }
        if O::ABOUT.content == Content::Events && O::ABOUT.path.contains("{id}") {
            parameters.push(json!({
                "name": "Last-Event-ID", "in": "header", "schema": { "type": "string", "pattern": "^[0-9]{1,19}$" },
                "description": "Resume behind the event of this id.",
            }));
        }
        parameters
    }

    fn responses<O: Operation>(&mut self) -> Value {
        let about = O::ABOUT;
        let mut answer = json!({ "description": about.answer });
        match about.content {
            Content::Nothing => {}
            Content::Events => {
                answer["content"] = json!({ "text/event-stream": {
                    // Before OpenAPI 3.2 the schema of a stream is that of each event.
                    "schema": {
                        "type": "object",
                        "description": "An event.",
                        "properties": {
                            "id": { "type": "string", "description": "For `Last-Event-ID`." },
                            "event": { "type": "string", "description": "What it tells." },
                            "data": {
                                "type": "string", "contentMediaType": "application/json",
                                "description": "What there is to tell, as JSON.",
                            },
                        },
                        "required": ["data"],
                    },
                    "example": example_of_answer(&format!("{}.text", about.id)).unwrap(),
                } });
            }
            Content::Json => {
                answer["content"] = json!({ "application/json": {
                    "schema": self.answers.subschema_for::<O::Answer>(),
                    "example": example_of_answer(about.id).unwrap_or_else(|| panic!("{}: no example", about.id)),
                } });
            }
        }
        let mut responses = Map::new();
        responses.insert(about.status.to_string(), answer);
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in about.codes() {
            by_status.entry(code.status()).or_default().push(code);
        }
        for (status, codes) in by_status {
            let words: Vec<String> = codes
                .iter()
                .map(|code| format!("- `{}`: {}", code.as_str(), code.meaning().trim()))
                .collect();
            let examples: Map<String, Value> = codes
                .iter()
                .map(|code| {
                    let problem = Problem::new(*code, code.meaning().trim());
                    (code.as_str().to_owned(), json!({ "value": problem }))
                })
                .collect();
            let mut response = json!({
                "description": words.join("\n"),
                "content": { "application/problem+json": {
                    "schema": self.answers.subschema_for::<Problem>(),
                    "examples": examples,
                } },
            });
            if status == 429 {
                response["headers"] = json!({ "Retry-After": {
                    "description": "Seconds after which to try again.", "schema": { "type": "integer" },
                } });
            }
            responses.insert(status.to_string(), response);
        }
        responses.into()
    }
}

/// A type's schema itself, not a reference to it.
fn inline<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}
