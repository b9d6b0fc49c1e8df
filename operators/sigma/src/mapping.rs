//! How the field names in rules become the columns of events: renames, prefixes and values for placeholders.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::batch::LogSource;

/// A mapping file is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("field mapping: {0}")]
pub struct MappingError(#[from] serde_yaml_ng::Error);

/// Renames fields by log source. The default leaves every name as it is.
///
/// ```yaml
/// prefix: ""                      # for fields no entry names
/// placeholders:
///   Administrators: [root, "adm_*"]
/// mappings:
///   - logsource: {product: aws, service: cloudtrail}
///     prefix: "aws."
///     fields:
///       eventName: action
///       user: [user_name, user_email]   # any of them
/// ```
///
/// The first entry that fits the rule's log source and names the field wins; else the prefix of the first entry that
/// fits; else the file's prefix.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMapping {
    #[serde(default)]
    prefix: String,
    #[serde(default, deserialize_with = "lists")]
    placeholders: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    mappings: Vec<Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    logsource: LogSource,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default, deserialize_with = "lists")]
    fields: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn lists<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let read = BTreeMap::<String, OneOrMany>::deserialize(input)?;
    let list = |value| match value {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    };
    Ok(read.into_iter().map(|(key, value)| (key, list(value))).collect())
}

impl FieldMapping {
    /// Reads a mapping file.
    pub fn from_yaml(text: &str) -> Result<FieldMapping, MappingError> {
        Ok(serde_yaml_ng::from_str(text)?)
    }

    /// Adds values for a placeholder, which stand for `%name%` in rules with the `expand` modifier.
    #[must_use]
    pub fn placeholder(mut self, name: &str, values: Vec<String>) -> Self {
        self.placeholders.insert(name.to_owned(), values);
        self
    }

    pub(crate) fn values(&self, placeholder: &str) -> Option<&[String]> {
        self.placeholders.get(placeholder).map(Vec::as_slice)
    }

    /// The columns a rule's field stands for; any of them may match.
    pub(crate) fn columns(&self, source: &LogSource, field: &str) -> Vec<String> {
        // An entry fits when everything it asks for is what the rule asks for.
        let fitting = || self.mappings.iter().filter(|entry| entry.logsource.fits(source));
        if let Some(names) = fitting().find_map(|entry| entry.fields.get(field)).filter(|names| !names.is_empty()) {
            return names.clone();
        }
        let prefix = fitting().find_map(|entry| entry.prefix.as_deref()).unwrap_or(&self.prefix);
        vec![format!("{prefix}{field}")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fitting_entry_wins() {
        let mapping = FieldMapping::from_yaml(
            "prefix: raw.\nmappings:\n- logsource: {product: aws}\n  prefix: aws.\n  fields: {eventName: action}\n- fields: {eventName: other, user: [a, b]}\n",
        )
        .unwrap();
        let aws = LogSource { product: Some("AWS".into()), ..Default::default() };
        let none = LogSource::default();
        assert_eq!(mapping.columns(&aws, "eventName"), ["action"]);
        assert_eq!(mapping.columns(&none, "eventName"), ["other"]);
        assert_eq!(mapping.columns(&aws, "user"), ["a", "b"]);
        assert_eq!(mapping.columns(&aws, "x"), ["aws.x"]);
        assert_eq!(mapping.columns(&none, "x"), ["raw.x"]);
        assert!(FieldMapping::from_yaml("mapings: []").is_err());
    }
}
