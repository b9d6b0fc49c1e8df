//! Adds one member to the text of a JSON object and leaves every other byte as it is.

/// Sets `name` to `value` (JSON text) in `object`, whose text must be a valid JSON object.
///
/// `present` is the text of the member's value where it already stands, as a slice of `object`; it
/// is replaced. Without it the member becomes the first one.
pub fn set_member(object: &str, name: &str, value: &str, present: Option<&str>) -> String {
    if let Some(start) = present.and_then(|p| (p.as_ptr() as usize).checked_sub(object.as_ptr() as usize)) {
        let end = start + present.map_or(0, str::len);
        return [&object[..start], value, &object[end..]].concat();
    }
    let open = object.find('{').map_or(0, |at| at + 1);
    let separator = if object[open..].trim_start().starts_with('}') { "" } else { "," };
    [&object[..open], "\"", name, "\":", value, separator, &object[open..]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::members::members;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 32, 6, |inner| {
            prop_oneof![
                collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                collection::btree_map("\\PC*", inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn only_the_added_member_changes(
            members_in in collection::btree_map("\\PC*", any_json(), 0..8),
            pretty in any::<bool>(),
            had_null in any::<bool>(),
        ) {
            let mut object: Map<String, Value> = members_in.into_iter().collect();
            object.remove("payload_hash");
            if had_null {
                object.insert("payload_hash".to_owned(), Value::Null);
            }
            let object = Value::Object(object);
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
            let text = format!(" {text}\n");
            let found = members(&text, |k| (k == "payload_hash").then_some(())).unwrap();
            let spliced = set_member(&text, "payload_hash", r#""sha256:x""#, found.first().map(|f| f.1));
            let mut expected = object;
            expected["payload_hash"] = json!("sha256:x");
            prop_assert_eq!(serde_json::from_str::<Value>(&spliced).unwrap(), expected);
            // Exactly one member of that name stands in the text: no parser can read another.
            prop_assert_eq!(members(&spliced, |k| (k == "payload_hash").then_some(())).unwrap().len(), 1);
        }
    }
}
