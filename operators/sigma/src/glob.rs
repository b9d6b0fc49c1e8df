//! Text patterns: literal text with `*` and `?`, and how text is folded where case does not count.

use rsigma_parser::{SpecialChar, StringPart};

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Piece {
    Lit(String),
    /// `?`: exactly one character.
    One,
    /// `*`: any text, also none.
    Many,
}

/// A pattern that must fit a whole value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Glob(pub Vec<Piece>);

/// What a pattern asks for, in the order of how cheap it is to find.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape<'a> {
    Anything,
    Exact(&'a str),
    Starts(&'a str),
    Ends(&'a str),
    Contains(&'a str),
    /// Has to be tried, but only where this text was found; empty if there is none.
    General(&'a str),
}

/// A character where case does not count. `ſ` is folded to `s` as regular expressions do, so that a literal taken
/// out of one never misses.
pub(crate) fn fold_char(c: char) -> impl Iterator<Item = char> {
    let c = if c == 'ſ' { 's' } else { c };
    c.to_lowercase()
}

/// Text where case does not count.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.chars().flat_map(fold_char).collect() }
}

impl Glob {
    pub fn from_parts(parts: &[StringPart]) -> Glob {
        let piece = |part: &StringPart| match part {
            StringPart::Plain(text) => Piece::Lit(text.clone()),
            StringPart::Special(SpecialChar::WildcardMulti) => Piece::Many,
            StringPart::Special(SpecialChar::WildcardSingle) => Piece::One,
        };
        Glob(parts.iter().map(piece).collect())
    }

    pub fn literal(text: &str) -> Glob {
        Glob(vec![Piece::Lit(text.to_owned())])
    }

    /// The text, if there are no wildcards.
    pub fn plain(&self) -> Option<String> {
        self.0.iter().map(|p| if let Piece::Lit(text) = p { Some(text.as_str()) } else { None }).collect()
    }

    pub fn open_start(&mut self) {
        self.0.insert(0, Piece::Many);
    }

    pub fn open_end(&mut self) {
        self.0.push(Piece::Many);
    }

    /// Joins neighbours and folds case unless it counts.
    pub fn normalized(self, cased: bool) -> Glob {
        let mut out: Vec<Piece> = Vec::new();
        for piece in self.0 {
            match (out.last_mut(), piece) {
                (_, Piece::Lit(text)) if text.is_empty() => {}
                (Some(Piece::Lit(last)), Piece::Lit(text)) => last.push_str(&text),
                (Some(Piece::Many), Piece::Many) => {}
                (_, piece) => out.push(piece),
            }
        }
        if !cased {
            for piece in &mut out {
                if let Piece::Lit(text) = piece {
                    *text = fold(text);
                }
            }
        }
        Glob(out)
    }

    /// What a normalized pattern asks for.
    pub fn shape(&self) -> Shape<'_> {
        match self.0.as_slice() {
            [] => Shape::Exact(""),
            [Piece::Many] => Shape::Anything,
            [Piece::Lit(text)] => Shape::Exact(text),
            [Piece::Lit(text), Piece::Many] => Shape::Starts(text),
            [Piece::Many, Piece::Lit(text)] => Shape::Ends(text),
            [Piece::Many, Piece::Lit(text), Piece::Many] => Shape::Contains(text),
            pieces => {
                let lits = pieces.iter().filter_map(|p| if let Piece::Lit(text) = p { Some(text) } else { None });
                Shape::General(lits.max_by_key(|text| text.len()).map_or("", String::as_str))
            }
        }
    }

    /// Whether a value, folded like the pattern, fits. Linear but for the last `*`, to which it goes back.
    pub fn fits(&self, value: &str) -> bool {
        let (pieces, mut rest) = (&self.0, value);
        let mut at = 0;
        let mut back: Option<(usize, &str)> = None;
        loop {
            let step = match pieces.get(at) {
                Some(Piece::Many) => {
                    back = Some((at + 1, rest));
                    Some(rest)
                }
                Some(Piece::Lit(text)) => rest.strip_prefix(text.as_str()),
                Some(Piece::One) => rest.chars().next().map(|c| &rest[c.len_utf8()..]),
                None if rest.is_empty() => return true,
                None => None,
            };
            match (step, back) {
                (Some(next), _) => {
                    rest = next;
                    at += 1;
                }
                (None, Some((from, text))) => {
                    let Some(c) = text.chars().next() else { return false };
                    let shorter = &text[c.len_utf8()..];
                    back = Some((from, shorter));
                    (at, rest) = (from, shorter);
                }
                (None, None) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsigma_parser::SigmaString;

    fn glob(text: &str) -> Glob {
        Glob::from_parts(&SigmaString::new(text).parts).normalized(false)
    }

    #[test]
    fn wildcards_and_escapes() {
        for (pattern, value, fits) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xaxbx", true),
            ("*ab", "aab", true),
            (r"a\*c", "a*c", true),
            (r"a\*c", "abc", false),
            (r"a\\*c", r"a\bc", true),
            (r"c:\win*", r"c:\windows", true),
            ("", "", true),
            ("", "a", false),
            ("?*", "", false),
        ] {
            assert_eq!(glob(pattern).fits(value), fits, "{pattern} on {value}");
        }
    }

    #[test]
    fn shapes() {
        assert_eq!(glob("AB").shape(), Shape::Exact("ab"));
        assert_eq!(glob("*A**").shape(), Shape::Contains("a"));
        assert_eq!(glob("a*bcd*").shape(), Shape::General("bcd"));
        assert_eq!(glob("**").shape(), Shape::Anything);
    }
}
