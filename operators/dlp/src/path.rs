//! Patterns for the paths of fields.

/// A path pattern, ready to be matched.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Name(String),
    One,
    Any,
}

impl Pattern {
    pub fn new(path: &str) -> Self {
        let part = |(index, name): (usize, &str)| match name {
            "**" => Part::Any,
            "*" if index == 0 => Part::Any,
            "*" => Part::One,
            name => Part::Name(name.to_lowercase()),
        };
        Self { parts: path.split('.').enumerate().map(part).collect() }
    }

    /// The key that a matching path ends with, in lower case; none if that can be any.
    pub fn last(&self) -> Option<&str> {
        match self.parts.last() {
            Some(Part::Name(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether the pattern matches the column and the keys below it.
    pub fn matches(&self, path: &[&str]) -> bool {
        matches(&self.parts, path)
    }
}

fn matches(parts: &[Part], path: &[&str]) -> bool {
    match (parts.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((Part::Any, rest)), _) => {
            matches(rest, path) || path.split_first().is_some_and(|(_, below)| matches(parts, below))
        }
        (Some((part, rest)), Some((key, below))) => {
            let same = match part {
                Part::Name(name) => key.eq_ignore_ascii_case(name) || key.to_lowercase() == *name,
                Part::One | Part::Any => true,
            };
            same && matches(rest, below)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_names_and_wildcards() {
        for (pattern, path, expected) in [
            ("payload.customer.email", "payload.Customer.EMAIL", true),
            ("payload.customer.email", "payload.email", false),
            ("payload.*.email", "payload.a.email", true),
            ("payload.*.email", "payload.a.b.email", false),
            ("payload.**.email", "payload.a.b.email", true),
            ("payload.**.email", "payload.email", true),
            ("*.ssn", "evidence.a.b.ssn", true),
            ("*.ssn", "ssn", true),
            ("user_id", "user_id", true),
            ("user_id", "payload.user_id", false),
        ] {
            let path: Vec<&str> = path.split('.').collect();
            assert_eq!(Pattern::new(pattern).matches(&path), expected, "{pattern} {path:?}");
        }
    }
}
