//! Published JSON Schemas (draft 2020-12), generated from the field tables.

use serde_json::{Map, Value, json};

use crate::{Field, FieldType, Stream, field::MAX_IDENTIFIER_BYTES};

/// The JSON Schema of one event of a stream.
pub fn json_schema(stream: Stream) -> Value {
    let properties: Map<String, Value> = stream.fields().iter().map(|f| (f.name.to_owned(), property(f))).collect();
    let required: Vec<&str> = stream.fields().iter().filter(|f| f.required).map(|f| f.name).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:companyos:schema:{}:{}", stream.name(), stream.version()),
        "title": stream.name(),
        "version": stream.version(),
        "type": "object",
        "properties": properties,
        "required": required,
        // Unknown fields are welcome: they are kept inside payload.
        "additionalProperties": true,
    })
}

fn property(field: &Field) -> Value {
    let mut schema = match field.ty {
        FieldType::Identifier => {
            json!({"type": "string", "minLength": 1, "maxLength": MAX_IDENTIFIER_BYTES, "x-companyos-type": "identifier"})
        }
        FieldType::Text => json!({"type": "string", "x-companyos-type": "text"}),
        FieldType::Timestamp => json!({"type": ["string", "number"], "x-companyos-type": "timestamp"}),
        FieldType::Float => json!({"type": ["number", "string"], "x-companyos-type": "float"}),
        FieldType::Integer => json!({"type": ["integer", "string"], "x-companyos-type": "integer"}),
        FieldType::Enum(values) => json!({"type": "string", "enum": values, "x-companyos-type": "enum"}),
        FieldType::Json => json!({"x-companyos-type": "json"}),
    };
    if let Value::Object(map) = &mut schema {
        map.insert("description".to_owned(), json!(field.doc));
        if !field.required {
            allow_null(map);
        }
    }
    schema
}

fn allow_null(schema: &mut Map<String, Value>) {
    match schema.get_mut("type") {
        Some(Value::Array(types)) => types.push(json!("null")),
        Some(single) => *single = json!([single.clone(), "null"]),
        None => {}
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.push(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow_schema::{DAY, lineage_fields, table_schema};

    #[test]
    fn published_files_are_the_generated_ones() {
        for stream in Stream::ALL {
            let path = format!("{}/json/{}.v{}.json", env!("CARGO_MANIFEST_DIR"), stream.name(), stream.version());
            let generated = serde_json::to_string_pretty(&json_schema(stream)).unwrap() + "\n";
            if std::env::var_os("UPDATE_SCHEMAS").is_some() {
                std::fs::write(&path, &generated).unwrap();
            }
            let published = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(published, generated, "{path} is stale; rerun with UPDATE_SCHEMAS=1");
        }
    }

    #[test]
    fn arrow_and_json_schemas_agree() {
        for stream in Stream::ALL {
            let json = json_schema(stream);
            let arrow = table_schema(stream);
            let required: Vec<&str> =
                json["required"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
            let own: Vec<String> = lineage_fields().iter().map(|f| f.name().clone()).chain([DAY.to_owned()]).collect();
            for column in arrow.fields().iter().filter(|f| !own.contains(f.name())) {
                assert!(
                    json["properties"].get(column.name()).is_some(),
                    "{stream}.{} is in no JSON Schema",
                    column.name()
                );
                assert_eq!(
                    !column.is_nullable(),
                    required.contains(&column.name().as_str()),
                    "{stream}.{}",
                    column.name()
                );
            }
            assert_eq!(json["properties"].as_object().unwrap().len() + own.len(), arrow.fields().len());
        }
    }

    #[test]
    fn schemas_are_valid_2020_12() {
        for stream in Stream::ALL {
            assert!(jsonschema::draft202012::meta::is_valid(&json_schema(stream)), "{stream}");
        }
    }
}
