//! The evolution rule: a new optional field is compatible, every other change is named and refused.

use std::fmt;

use serde_json::{Map, Value};

/// Compares two published JSON Schemas. An empty list means `new` may replace `old`.
///
/// Errors name a document that is not an object schema with `properties`.
pub fn check(old: &Value, new: &Value) -> Result<Vec<Incompatibility>, NotASchema> {
    let (old_fields, new_fields) = (properties(old, "old")?, properties(new, "new")?);
    let (old_required, new_required) = (required(old), required(new));
    let mut found = Vec::new();
    for (name, old_type) in old_fields {
        let Some(new_type) = new_fields.get(name) else {
            found.push(Incompatibility::Removed { field: name.clone() });
            continue;
        };
        compare_types(name, old_type, new_type, &mut found);
        match (old_required.contains(&name.as_str()), new_required.contains(&name.as_str())) {
            (false, true) => found.push(Incompatibility::BecameRequired { field: name.clone() }),
            (true, false) => found.push(Incompatibility::BecameOptional { field: name.clone() }),
            _ => {}
        }
    }
    for name in new_fields.keys().filter(|name| !old_fields.contains_key(*name)) {
        if new_required.contains(&name.as_str()) {
            found.push(Incompatibility::NewRequired { field: name.clone() });
        }
    }
    Ok(found)
}

/// One change that would break a producer, a reader or the table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // The variants' sentences are in Display.
pub enum Incompatibility {
    Removed { field: String },
    NewRequired { field: String },
    BecameRequired { field: String },
    BecameOptional { field: String },
    TypeChanged { field: String, old: String, new: String },
    ValuesChanged { field: String, removed: Vec<String>, added: Vec<String> },
    ConstraintChanged { field: String, keyword: String, old: String, new: String },
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Incompatibility::*;
        match self {
            Removed { field } => write!(f, "{field}: removed; readers of the column would break"),
            NewRequired { field } => write!(f, "{field}: new and required; existing producers do not send it"),
            BecameRequired { field } => {
                write!(f, "{field}: was optional and is now required; existing producers may leave it out")
            }
            BecameOptional { field } => {
                write!(f, "{field}: was required and is now optional; readers rely on its presence")
            }
            TypeChanged { field, old, new } => write!(f, "{field}: type changed from {old} to {new}"),
            ValuesChanged { field, removed, added } => {
                write!(f, "{field}: allowed values changed (removed {removed:?}, added {added:?})")
            }
            ConstraintChanged { field, keyword, old, new } => {
                write!(f, "{field}: {keyword} changed from {old} to {new}")
            }
        }
    }
}

/// A document that is not a schema this check can read.
#[derive(Debug, thiserror::Error)]
#[error("the {which} document is not a JSON Schema with an object of properties")]
pub struct NotASchema {
    which: &'static str,
}

fn properties<'a>(schema: &'a Value, which: &'static str) -> Result<&'a Map<String, Value>, NotASchema> {
    schema.get("properties").and_then(Value::as_object).ok_or(NotASchema { which })
}

fn required(schema: &Value) -> Vec<&str> {
    let list = schema.get("required").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn compare_types(name: &str, old: &Value, new: &Value, found: &mut Vec<Incompatibility>) {
    let (old_type, new_type) = (type_name(old), type_name(new));
    if old_type != new_type {
        found.push(Incompatibility::TypeChanged { field: name.to_owned(), old: old_type, new: new_type });
        return;
    }
    let (old_values, new_values) = (values(old), values(new));
    if old_values != new_values {
        let missing = |from: &[String], other: &[String]| from.iter().filter(|v| !other.contains(v)).cloned().collect();
        found.push(Incompatibility::ValuesChanged {
            field: name.to_owned(),
            removed: missing(&old_values, &new_values),
            added: missing(&new_values, &old_values),
        });
    }
    const CONSTRAINTS: [&str; 8] =
        ["format", "pattern", "minLength", "maxLength", "minimum", "maximum", "items", "properties"];
    for keyword in CONSTRAINTS {
        if old.get(keyword) != new.get(keyword) {
            let show = |v: Option<&Value>| v.map_or_else(|| "none".to_owned(), Value::to_string);
            found.push(Incompatibility::ConstraintChanged {
                field: name.to_owned(),
                keyword: keyword.to_owned(),
                old: show(old.get(keyword)),
                new: show(new.get(keyword)),
            });
        }
    }
}

/// Our own type word where there is one, else the JSON types without `null` (which `required` says).
fn type_name(property: &Value) -> String {
    if let Some(own) = property.get("x-companyos-type").and_then(Value::as_str) {
        return own.to_owned();
    }
    let mut types: Vec<&str> = match property.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
        _ => return "any".to_owned(),
    };
    types.sort_unstable();
    types.join("|")
}

fn values(property: &Value) -> Vec<String> {
    let list = property.get("enum").and_then(Value::as_array);
    let mut values: Vec<String> = list.into_iter().flatten().filter(|v| !v.is_null()).map(Value::to_string).collect();
    values.sort_unstable();
    values
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Stream, json_schema::json_schema};

    #[test]
    fn a_new_optional_field_is_compatible_and_the_same_schema_too() {
        let old = json_schema(Stream::ProductEvents);
        let mut new = old.clone();
        new["properties"]["plan"] = json!({"type": ["string", "null"], "x-companyos-type": "text"});
        assert_eq!(check(&old, &old).unwrap(), vec![]);
        assert_eq!(check(&old, &new).unwrap(), vec![]);
    }

    #[test]
    fn every_other_change_is_named() {
        let old = json_schema(Stream::ProductEvents);
        let mut new = old.clone();
        new["properties"].as_object_mut().unwrap().remove("client");
        new["properties"]["feature"]["x-companyos-type"] = json!("integer");
        new["properties"]["pii_classification"]["enum"] = json!(["none", "secret"]);
        new["properties"]["role"]["maxLength"] = json!(3);
        new["properties"]["plan"] = json!({"type": "string"});
        new["required"] = json!([
            "event_id",
            "occurred_at",
            "tenant",
            "role",
            "feature",
            "region",
            "env",
            "pii_classification",
            "user_id",
            "plan"
        ]);
        let named: Vec<String> = check(&old, &new).unwrap().iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(named.join("\n"));
    }

    #[test]
    fn refuses_what_is_not_a_schema() {
        assert!(check(&json!({}), &json_schema(Stream::OpsEvents)).is_err());
    }
}
