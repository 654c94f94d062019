//! The types of the web page, made from the document's schemas.

use serde_json::{Map, Value};

pub(crate) fn types(document: &Value) -> String {
    let mut text =
        "// Made from the contract by `cargo test -p legwork-api`; crates/api says what each field means.\n"
            .to_owned();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        // What is only asked for as a part of a path or a query.
        text.push('\n');
        comment(&mut text, "", schema);
        match schema.get("properties").and_then(Value::as_object) {
            Some(properties) => interface(&mut text, name, schema, properties),
            None => text.push_str(&format!("export type {name} = {};\n", kind(schema))),
        }
    }
    text
}

fn comment(text: &mut String, indent: &str, schema: &Value) {
    if let Some(words) = schema["description"].as_str() {
        let first = words.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        text.push_str(&format!("{indent}/** {first} */\n"));
    }
}

fn interface(text: &mut String, name: &str, schema: &Value, properties: &Map<String, Value>) {
    text.push_str(&format!("export interface {name} {{\n"));
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (field, schema) in properties {
        comment(text, "  ", schema);
        let mark = if required.contains(&field.as_str()) { "" } else { "?" };
        text.push_str(&format!("  {field}{mark}: {};\n", kind(schema)));
    }
    text.push_str("}\n");
}

/// A schema as a type.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(word) = schema.get("const") {
        return word.to_string();
    }
    for any in ["oneOf", "anyOf"] {
        if let Some(options) = schema[any].as_array() {
            return options.iter().map(kind).collect::<Vec<_>>().join(" | ");
        }
    }
    match &schema["type"] {
        Value::Array(types) => {
            let one = |name: &Value| {
                let mut schema = schema.clone();
                schema["type"] = name.clone();
                kind(&schema)
            };
            types.iter().map(one).collect::<Vec<_>>().join(" | ")
        }
        Value::String(name) => match name.as_str() {
            "integer" | "number" => "number".into(),
            "array" => format!("{}[]", kind(&schema["items"])),
            "object" => "Record<string, unknown>".into(),
            plain => plain.to_owned(),
        },
        _ => "unknown".into(),
    }
}
