//! The line of a field in a YAML document, for people who have to mend it.
//!
//! The parser tells lines with errors only. So the document is read once more by something that
//! goes to the field and fails there: once for what is refused, and for each member of a list.

use std::{fmt, sync::Arc};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The text a document was read from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Of the whole YAML document.
    pub text: Arc<str>,
    /// Line of the file that the text begins at, from 1.
    pub first_line: usize,
    /// Position in the list the YAML document is, if it is one.
    pub member: Option<usize>,
}

impl Source {
    /// Line of a field, or of the closest field around it that is there. What follows a parenthesis
    /// is in another document.
    pub fn line(&self, field: &str) -> usize {
        let field = field.split('(').next().unwrap_or_default();
        let member = self.member.map(|at| format!("[{at}]")).unwrap_or_default();
        let mut path = match (member.as_str(), field) {
            (member, "." | "") => member.to_owned(),
            ("", field) => field.to_owned(),
            (member, field) => format!("{member}.{field}"),
        };
        while !path.is_empty() {
            if let Some(line) = line_of(&self.text, &path) {
                return self.first_line + line - 1;
            }
            // Keys may have dots in them; then this ends too far out, but not wrong.
            let end = path.rfind(['.', '[']).unwrap_or_default();
            path.truncate(end);
        }
        self.first_line
    }
}

/// What the reader fails with when it is there.
const HERE: &str = "\u{1}here";

fn line_of(text: &str, path: &str) -> Option<usize> {
    match Go(path).deserialize(serde_yaml_ng::Deserializer::from_str(text)) {
        Err(error) if error.to_string().contains(HERE) => error.location().map(|at| at.line()),
        _ => None,
    }
}

/// Goes along a path such as `spec.objectives[0].target`.
struct Go<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Go<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! not_here {
    ($($method:ident: $ty:ty),*) => {
        $(fn $method<E: Error>(self, _: $ty) -> Result<(), E> {
            if self.0.is_empty() { Err(E::custom(HERE)) } else { Ok(()) }
        })*
    };
}

impl<'de> Visitor<'de> for Go<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    not_here!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.0.is_empty() { Err(E::custom(HERE)) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.0.is_empty() {
            return Err(A::Error::custom(HERE));
        }
        let inside = self.0.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let wanted = inside.and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest)));
        for index in 0.. {
            let more = match wanted {
                Some((at, rest)) if at == index => {
                    items.next_element_seed(Go(rest.strip_prefix('.').unwrap_or(rest)))?.is_some()
                }
                _ => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        if self.0.is_empty() {
            return Err(A::Error::custom(HERE));
        }
        while let Some(rest) = members.next_key_seed(Key(self.0))? {
            match rest {
                Some(rest) => members.next_value_seed(Go(rest))?,
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A key: the end of the path if it is all of it, else what is left if it is the beginning of it.
struct Key<'a>(&'a str);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, 'a> Visitor<'de> for Key<'a> {
    type Value = Option<&'a str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        match self.0.strip_prefix(key) {
            Some("") => Err(E::custom(HERE)),
            Some(rest) if rest.starts_with('[') => Ok(Some(rest)),
            Some(rest) => Ok(rest.strip_prefix('.')),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
kind: SLO
metadata:
  annotations:
    a.b/c: x
spec:
  objectives:
    - target: 1
    - op: lt

      target: 2
";

    #[test]
    fn fields_are_found_by_path_and_missing_ones_by_what_is_around_them() {
        let source = Source { text: TEXT.into(), first_line: 11, member: None };
        let lines = [
            ("kind", 11),
            ("metadata.annotations.a.b/c", 14),
            ("spec.objectives[1].target", 20),
            ("spec.objectives[1]", 18),
            ("spec.objectives[1].value", 18),
            ("spec.objectives[7].value", 16),
            ("spec.indicatorRef(other).spec.ratioMetric", 15),
            ("status", 11),
            (".", 11),
        ];
        for (field, line) in lines {
            assert_eq!(source.line(field), line, "{field}");
        }
        let list = format!("- kind: Service\n- {}", TEXT.replace('\n', "\n  "));
        let member = Source { text: list.into(), first_line: 1, member: Some(1) };
        assert_eq!(member.line("spec.objectives[1].target"), 11);
        assert_eq!(member.line("."), 2);
    }
}
