//! Text: trimmed, and for identifiers folded and bounded.

use companyos_schemas::field::MAX_IDENTIFIER_BYTES;

/// What [`identifier`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Already in its final form.
    Clean,
    /// Its final form was appended to the output.
    Folded,
    /// Nothing but white space.
    Blank,
    /// Why it cannot be used.
    Invalid(&'static str),
}

/// Printable ASCII that neither trimming nor folding changes.
const CLEAN: u8 = 1;
/// Clean, and harmless inside an object-store path.
const PATH: u8 = 2;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        classes[byte] = match byte as u8 {
            b'A'..=b'Z' => 0,
            b'/' | b'\\' => CLEAN,
            _ => CLEAN | PATH,
        };
        byte += 1;
    }
    classes
};

/// Checks an identifier; appends its trimmed, lower-cased form to `out` if that differs. `path`
/// also refuses slashes, for names that become part of object-store paths.
#[inline]
pub(crate) fn identifier(text: &str, path: bool, out: &mut String) -> Word {
    let want = if path { CLEAN | PATH } else { CLEAN };
    let clean = text.bytes().fold(want, |all, byte| all & CLASSES[usize::from(byte)]);
    if clean == want && !text.is_empty() && text.len() <= MAX_IDENTIFIER_BYTES {
        return Word::Clean;
    }
    fold(text, path, out)
}

#[cold]
fn fold(text: &str, path: bool, out: &mut String) -> Word {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Word::Blank;
    }
    // Folding changes a text's length by a small factor, so far longer ones need not be tried.
    if trimmed.len() > 4 * MAX_IDENTIFIER_BYTES {
        return Word::Invalid("longer than 256 bytes");
    }
    let start = out.len();
    out.extend(trimmed.chars().flat_map(char::to_lowercase));
    let folded = out.get(start..).unwrap_or_default();
    let problem = match folded {
        f if f.len() > MAX_IDENTIFIER_BYTES => Some("longer than 256 bytes"),
        f if f.chars().any(char::is_control) => Some("a control character"),
        f if path && f.contains(['/', '\\']) => Some("a slash"),
        _ => None,
    };
    match problem {
        Some(problem) => {
            out.truncate(start);
            Word::Invalid(problem)
        }
        None => Word::Folded,
    }
}

/// `text` without the white space around it.
#[inline]
pub(crate) fn trim(text: &str) -> &str {
    match text.as_bytes() {
        [0x21..=0x7e, .., 0x21..=0x7e] => text,
        _ => text.trim(),
    }
}

/// Whether there is nothing but white space in `text`.
#[inline]
pub(crate) fn is_blank(text: &str) -> bool {
    trim(text).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_only_what_needs_it() {
        let mut out = String::new();
        assert_eq!(identifier("eu-west-1", true, &mut out), Word::Clean);
        assert_eq!(identifier("a/b", false, &mut out), Word::Clean);
        assert!(out.is_empty());
        for (text, folded) in
            [(" Alpha\t", "alpha"), ("ÉTÉ", "été"), ("two words", "two words"), ("\u{a0}X\u{2003}", "x")]
        {
            out.clear();
            assert_eq!(identifier(text, true, &mut out), Word::Folded, "{text}");
            assert_eq!(out, folded);
        }
    }

    #[test]
    fn refuses_what_could_not_be_a_name() {
        let mut out = String::new();
        assert_eq!(identifier(" \u{3000} ", true, &mut out), Word::Blank);
        assert_eq!(identifier("", true, &mut out), Word::Blank);
        for (text, problem) in [
            ("../etc", "a slash"),
            ("a\\b", "a slash"),
            ("a\u{0}b", "a control character"),
            ("a\u{85}b", "a control character"),
            (&*"a".repeat(257), "longer than 256 bytes"),
            (&*"É".repeat(5000), "longer than 256 bytes"),
        ] {
            assert_eq!(identifier(text, true, &mut out), Word::Invalid(problem), "{text}");
        }
        assert!(out.is_empty());
        assert_eq!(identifier(&"a".repeat(256), true, &mut out), Word::Clean);
    }
}
