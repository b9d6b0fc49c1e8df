//! Values that are lists or maps themselves. The parser would take them for the text of their debug form, which never
//! matches anything; so they are looked for before.

use serde_yaml_ng::Value;

/// The field, or the detection, with such a value, if there is one in the document's detections.
pub(crate) fn nested_value(document: &str) -> Option<String> {
    // What is no YAML is the parser's to tell.
    let document: Value = serde_yaml_ng::from_str(document).ok()?;
    let detections = ["detection", "filter"].into_iter().find_map(|key| document.get(key)?.as_mapping())?;
    let named = detections.iter().filter_map(|(name, detection)| Some((name.as_str()?, detection)));
    named.filter(|(name, _)| !["condition", "timeframe", "rules"].contains(name)).find_map(|(name, d)| inside(name, d))
}

fn inside(name: &str, detection: &Value) -> Option<String> {
    match detection {
        Value::Sequence(parts) => parts.iter().find_map(|part| match part {
            Value::Sequence(_) => Some(name.to_owned()),
            part => inside(name, part),
        }),
        Value::Mapping(fields) => fields.iter().find_map(|(field, value)| {
            let field = field.as_str()?;
            let compound = |value: &Value| value.is_sequence() || value.is_mapping();
            let bad = match value {
                Value::Sequence(values) => values.iter().any(compound),
                // `field[any]` is refused with a better reason later.
                value => value.is_mapping() && !field.contains('['),
            };
            bad.then(|| field.to_owned())
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_deep_is_told() {
        let found = |detection: &str| nested_value(&format!("title: t\ndetection: {{{detection}, condition: s}}\n"));
        for fine in ["s: {a: 1, b: [1, x, null]}", "s: [{a: [1]}, {b: 2}]", "s: [one, two, {a: b}]", "s: {'|all': [x]}"]
        {
            assert_eq!(found(fine), None, "{fine}");
        }
        assert_eq!(found("s: {a: [[1]]}"), Some("a".to_owned()));
        assert_eq!(found("s: [{'b|contains': [x, {c: d}]}]"), Some("b|contains".to_owned()));
        assert_eq!(found("s: {a: {b: c}}"), Some("a".to_owned()));
        assert_eq!(found("s: [[a]]"), Some("s".to_owned()));
        assert_eq!(nested_value("a: [unclosed"), None);
    }
}
