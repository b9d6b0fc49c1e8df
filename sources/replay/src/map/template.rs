//! Text with holes: `"{channel}-{page}"`; `{{` and `}}` stand for braces.

use std::borrow::Cow;

/// A parsed template whose holes have been resolved to `S`.
#[derive(Debug, Clone)]
pub(crate) struct Template<S> {
    parts: Vec<Part<S>>,
}

#[derive(Debug, Clone)]
enum Part<S> {
    Text(String),
    Slot(S),
}

impl<S> Template<S> {
    /// Reads a template, resolving what stands between braces with `slot`.
    pub(crate) fn parse(text: &str, slot: impl Fn(&str) -> Result<S, String>) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(doubled) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = doubled;
                continue;
            }
            let inside = after.split_once('}').filter(|_| brace == "{");
            let Some((name, after)) = inside else {
                return Err(format!("template {text:?}: unmatched {brace:?}; write it twice if it is meant as text"));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Slot(slot(name).map_err(|reason| format!("template {text:?}: {reason}"))?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// The holes, in order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &S> {
        self.parts.iter().filter_map(|part| match part {
            Part::Slot(slot) => Some(slot),
            Part::Text(_) => None,
        })
    }

    /// The text with every hole filled, or none if one has no value.
    pub(crate) fn render<'a, E>(
        &'a self,
        mut value: impl FnMut(&'a S) -> Result<Option<Cow<'a, str>>, E>,
    ) -> Result<Option<String>, E> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Slot(slot) => match value(slot)? {
                    Some(filled) => text.push_str(&filled),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<Option<String>, String> {
        Template::parse(template, |name| match name {
            "" => Err("empty hole".to_owned()),
            name => Ok(name.to_owned()),
        })?
        .render(|name| Ok((name != "missing").then(|| Cow::Owned(name.to_uppercase()))))
    }

    #[test]
    fn fills_holes_and_keeps_doubled_braces() {
        assert_eq!(render("{a}-{b.c[0]}"), Ok(Some("A-B.C[0]".to_owned())));
        assert_eq!(render("{{{a}}}"), Ok(Some("{A}".to_owned())));
        assert_eq!(render("plain"), Ok(Some("plain".to_owned())));
        assert_eq!(render("{a}{missing}"), Ok(None));
        for bad in ["{a", "a}", "{}", "}{"] {
            assert!(render(bad).is_err(), "{bad}");
        }
    }
}
