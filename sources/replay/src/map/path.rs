//! Where a value is found: `a.b[0]`, `["key.with.dots"].c`, or `$line` and other facts about the
//! row itself.

use serde_json::{Map, Value};

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Path {
    /// Into the row's fields; never empty, and starts with a key.
    Field(Vec<Segment>),
    /// A fact about the row.
    Fact(Fact),
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// A key of an object.
    Key(String),
    /// A position in an array.
    Index(usize),
}

/// What is known of a row besides its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// `$row`: number of the row, from 1, header and blank CSV lines not counted.
    Row,
    /// `$line`: line the row starts on, from 1.
    Line,
    /// `$row_hash`: SHA-256 over the row's number and its bytes; the same in every replay of the file.
    RowHash,
    /// `$file`: name of the file without folders and compression suffix.
    File,
    /// `$record`: the whole row.
    Record,
}

impl Path {
    /// Reads a path; the error says what is wrong and where.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(fact) = text.strip_prefix('$') {
            return match fact {
                "row" => Ok(Path::Fact(Fact::Row)),
                "line" => Ok(Path::Fact(Fact::Line)),
                "row_hash" => Ok(Path::Fact(Fact::RowHash)),
                "file" => Ok(Path::Fact(Fact::File)),
                "record" => Ok(Path::Fact(Fact::Record)),
                _ => Err(format!("path {text:?}: expected $row, $line, $row_hash, $file or $record")),
            };
        }
        let mut segments = Vec::new();
        let mut rest = text;
        while !rest.is_empty() || segments.is_empty() {
            let at = text.len() - rest.len();
            let wrong = |what: &str| Err(format!("path {text:?}: {what} at character {}", at + 1));
            if let Some(quoted) = rest.strip_prefix("[\"") {
                let Some((key, after)) = quoted.split_once("\"]") else { return wrong("[\" without \"]") };
                segments.push(Segment::Key(key.to_owned()));
                rest = after;
            } else if let Some(bracket) = rest.strip_prefix('[') {
                let Some((index, after)) = bracket.split_once(']') else { return wrong("[ without ]") };
                let Ok(index) = index.parse() else { return wrong("expected a number or a quoted key in [ ]") };
                if segments.is_empty() {
                    return wrong("a row has no positions, only fields");
                }
                segments.push(Segment::Index(index));
                rest = after;
            } else {
                let key = match (rest.strip_prefix('.'), segments.is_empty()) {
                    (Some(_), true) | (None, false) => return wrong("expected a field name"),
                    (Some(key), false) => key,
                    (None, true) => rest,
                };
                let end = key.find(['.', '[']).unwrap_or(key.len());
                if end == 0 {
                    return wrong("expected a field name");
                }
                segments.push(Segment::Key(key[..end].to_owned()));
                rest = &key[end..];
            }
        }
        Ok(Path::Field(segments))
    }

    /// The field of the row that this path takes whole, if it does.
    pub(crate) fn top_level(&self) -> Option<&str> {
        match self {
            Path::Field(segments) => match segments.as_slice() {
                [Segment::Key(key)] => Some(key),
                _ => None,
            },
            Path::Fact(_) => None,
        }
    }

    /// Last key of the path, which names the value where nothing else does.
    pub(crate) fn last_key(&self) -> Option<&str> {
        match self {
            Path::Field(segments) => segments.iter().rev().find_map(|segment| match segment {
                Segment::Key(key) => Some(key.as_str()),
                Segment::Index(_) => None,
            }),
            Path::Fact(_) => None,
        }
    }
}

/// Follows a path through the row's fields.
pub(crate) fn lookup<'a>(fields: &'a Map<String, Value>, segments: &[Segment]) -> Option<&'a Value> {
    let (Segment::Key(first), rest) = segments.split_first()? else { return None };
    rest.iter().try_fold(fields.get(first)?, |value, segment| match segment {
        Segment::Key(key) => value.get(key),
        Segment::Index(index) => value.get(index),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn get(path: &str) -> Option<Value> {
        let row = json!({"a": {"b": [10, {"c": "deep"}]}, "x.y": {"z": 1}, "@timestamp": "t", "n": null});
        match Path::parse(path).unwrap() {
            Path::Field(segments) => lookup(row.as_object().unwrap(), &segments).cloned(),
            Path::Fact(_) => panic!("{path} is a fact"),
        }
    }

    #[test]
    fn finds_nested_values_and_nothing_else() {
        assert_eq!(get("a.b[0]"), Some(json!(10)));
        assert_eq!(get("a.b[1].c"), Some(json!("deep")));
        assert_eq!(get("[\"x.y\"].z"), Some(json!(1)));
        assert_eq!(get("a[\"b\"][1][\"c\"]"), Some(json!("deep")));
        assert_eq!(get("@timestamp"), Some(json!("t")));
        assert_eq!(get("n"), Some(Value::Null));
        for missing in ["b", "a.c", "a.b[2]", "a.b.c", "n.x", "a[0]"] {
            assert_eq!(get(missing), None, "{missing}");
        }
    }

    #[test]
    fn says_where_a_path_is_wrong() {
        for (bad, at) in [("", 1), (".a", 1), ("a..b", 2), ("a.", 2), ("a[x]", 2), ("a[0", 2), ("[0]", 1), ("a[0]b", 5)]
        {
            let message = Path::parse(bad).unwrap_err();
            assert!(message.ends_with(&format!("at character {at}")), "{bad:?}: {message}");
        }
        assert!(Path::parse("$lines").unwrap_err().contains("$line,"));
    }
}
