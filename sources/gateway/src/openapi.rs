//! The OpenAPI 3.1 description served at `/openapi.json`: the written document, with the events'
//! own schemas put in.

use std::sync::OnceLock;

use companyos_schemas::{Stream, json_schema::json_schema};
use serde_json::Value;

const WRITTEN: &str = include_str!("../openapi.json");

/// The whole document.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        // Checked by this module's test; an unreadable file is null, not a panic.
        let mut document: Value = serde_json::from_str(WRITTEN).unwrap_or_default();
        if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
            schemas.extend(Stream::ALL.map(|stream| (stream.name().to_owned(), event_schema(stream))));
        }
        document
    })
}

/// The published schema, less what the gateway fills in.
fn event_schema(stream: Stream) -> Value {
    let mut schema = json_schema(stream);
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|name| name != "payload_hash");
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|v| references(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_holds_together() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        let mut found = Vec::new();
        references(document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
        }
        for stream in Stream::ALL {
            let names = document.pointer("/components/parameters/Stream/schema/enum").unwrap().as_array().unwrap();
            assert!(names.iter().any(|n| n == stream.name()), "{stream}");
        }
    }

    #[test]
    fn the_readme_names_every_path_and_every_status() {
        let readme = include_str!("../README.md");
        let (_, answers) = readme.split_once("## Answers").unwrap();
        let rows = answers.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
        let named: BTreeSet<&str> =
            rows.flat_map(|cell| cell.split(", ")).filter(|c| c.parse::<u16>().is_ok()).collect();
        let mut documented = BTreeSet::new();
        for (path, operations) in document()["paths"].as_object().unwrap() {
            for (method, operation) in
                operations.as_object().unwrap().iter().filter(|(m, _)| *m == "get" || *m == "post")
            {
                let endpoint = format!("| `{} {path}` |", method.to_uppercase());
                assert!(readme.contains(&endpoint), "the README does not name {endpoint}");
                if method == "post" {
                    documented.extend(operation["responses"].as_object().unwrap().keys().map(String::as_str));
                }
            }
        }
        documented.remove("500");
        documented.remove("404");
        assert_eq!(named, documented);
    }
}
