//! The top-level members of a JSON object, as slices of its text.
//!
//! The text is read once and checked completely; values stay text until someone needs one. No
//! recursion, so depth costs no stack.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a text has no members.
#[derive(Debug, PartialEq, Eq)]
pub enum NoMembers {
    /// Not JSON; where it stops making sense.
    Syntax { line: usize, column: usize },
    /// JSON, but not an object.
    NotAnObject,
}

/// Every member whose name `key_of` knows, in order, with the text of its value. Duplicates are
/// kept, for the caller to judge.
pub fn members<K>(text: &str, key_of: impl Fn(&str) -> Option<K>) -> Result<Vec<(K, &str)>, NoMembers> {
    if !text.trim_start().starts_with('{') {
        return Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => NoMembers::NotAnObject,
            Err(e) => syntax(&e),
        });
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = deserializer.deserialize_map(Members(key_of)).map_err(|e| syntax(&e))?;
    deserializer.end().map_err(|e| syntax(&e))?;
    Ok(found)
}

/// Deepest nesting of objects and arrays in a JSON text.
pub fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Position of the first `\u` escape that is half a surrogate pair: no text, though it has the form
/// of JSON.
pub fn lone_surrogate(text: &str) -> Option<usize> {
    let unit = |at: usize| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut at = 0;
    while let Some(found) = text.get(at..)?.find('\\') {
        let escape = at + found;
        at = escape
            + match unit(escape) {
                Some(0xD800..=0xDBFF) => match unit(escape + 6) {
                    Some(0xDC00..=0xDFFF) => 12,
                    _ => return Some(escape),
                },
                Some(0xDC00..=0xDFFF) => return Some(escape),
                Some(_) => 6,
                None => 2,
            };
    }
    None
}

fn skip_string(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

fn syntax(error: &serde_json::Error) -> NoMembers {
    NoMembers::Syntax { line: error.line(), column: error.column() }
}

struct Members<F>(F);

impl<'de, K, F: Fn(&str) -> Option<K>> Visitor<'de> for Members<F> {
    type Value = Vec<(K, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::with_capacity(16);
        while let Some(key) = map.next_key_seed(Key(&self.0))? {
            match key {
                Some(key) => found.push((key, map.next_value::<&RawValue>()?.get())),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

struct Key<'f, F>(&'f F);

impl<'de, K, F: Fn(&str) -> Option<K>> DeserializeSeed<'de> for Key<'_, F> {
    type Value = Option<K>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<K, F: Fn(&str) -> Option<K>> Visitor<'_> for Key<'_, F> {
    type Value = Option<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok((self.0)(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_members_verbatim_also_behind_escaped_names() {
        let text = r#" {"a": {"x" : [1,  2]}, "skip": null, "\u0062":"é\n" , "a":2} "#;
        let found = members(text, |k| ["a", "b"].contains(&k).then(|| k.to_owned())).unwrap();
        let expected = [("a", r#"{"x" : [1,  2]}"#), ("b", r#""é\n""#), ("a", "2")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v)));
    }

    #[test]
    fn tells_broken_text_from_other_json() {
        let none = |_: &str| None::<()>;
        assert_eq!(members("[1]", none), Err(NoMembers::NotAnObject));
        assert_eq!(members("nope", none), Err(NoMembers::Syntax { line: 1, column: 2 }));
        assert_eq!(members("{\"a\":\n01}", none), Err(NoMembers::Syntax { line: 2, column: 2 }));
        assert!(matches!(members("{} {}", none), Err(NoMembers::Syntax { .. })));
        assert!(matches!(members("", none), Err(NoMembers::Syntax { .. })));
    }

    #[test]
    fn finds_half_pairs_and_lets_whole_ones_pass() {
        for text in [r#""\ud83d\ude00 \u00e9 \\ud83d""#, r#""\\""#, "\"\u{1F600}\""] {
            assert_eq!(lone_surrogate(text), None, "{text}");
        }
        for (text, at) in [(r#""\ud83d""#, 1), (r#""é\ude00""#, 3), (r#""\\\ud83d\n""#, 3), (r#""\uD83D\u0041""#, 1)] {
            assert_eq!(lone_surrogate(text), Some(at), "{text}");
        }
    }

    #[test]
    fn depth_ignores_brackets_inside_strings_and_survives_the_absurd() {
        assert_eq!(depth(r#"{"a":["[[[\"[{"]}"#), 2);
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(depth(&deep), 500_001);
        assert_eq!(members(&deep, |_| None::<()>).unwrap(), []);
    }
}
