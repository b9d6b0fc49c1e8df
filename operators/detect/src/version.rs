//! Versions of rules: the date their author gave, and a hash of what they say.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Version by rule key (id, else name, else title), of every document in a YAML text.
///
/// `modified`, else `date`, is followed by the head of a hash of the document's content, so that a
/// change without a new date is still another version, and a change of layout or comment is not.
pub fn versions(text: &str) -> HashMap<String, String> {
    let mut all = HashMap::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let Ok(document) = Value::deserialize(document) else { continue };
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        if let Some(key) = text("id").or_else(|| text("name")).or_else(|| text("title")) {
            all.insert(key.to_owned(), version(&document));
        }
    }
    all
}

fn version(document: &Value) -> String {
    // The canonical form does not depend on the order of keys.
    let text = serde_json_canonicalizer::to_vec(document).unwrap_or_else(|_| document.to_string().into_bytes());
    let hash = hex::encode(&Sha256::digest(&text)[..4]);
    match document.get("modified").or_else(|| document.get("date")).and_then(Value::as_str) {
        Some(date) => format!("{}+{hash}", date.replace('/', "-")),
        None => hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_and_layout_does_not() {
        let one = versions("id: a\ntitle: T\ndate: 2026-01-02\ndetection: {sel: {x: 1}, condition: sel}\n");
        let same =
            versions("# note\ntitle: T\nid: a\ndetection:\n  condition: sel\n  sel:\n    x: 1\ndate: 2026-01-02\n");
        let other = versions("id: a\ntitle: T\ndate: 2026-01-02\ndetection: {sel: {x: 2}, condition: sel}\n");
        assert_eq!(one["a"], same["a"]);
        assert_ne!(one["a"], other["a"]);
        assert!(one["a"].starts_with("2026-01-02+"), "{}", one["a"]);
    }

    #[test]
    fn each_document_of_a_file_has_its_own() {
        let all = versions("id: a\ntitle: A\n---\nname: b\ntitle: B\n");
        assert_eq!(all.len(), 2);
        assert!(all.contains_key("b"));
    }
}
