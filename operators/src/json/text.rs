//! JSON strings to text and back.

/// Appends the text of a JSON string (without its quotes, already validated) to `out`.
pub(crate) fn unescape_into(escaped: &str, out: &mut String) {
    let mut rest = escaped;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let (decoded, length) = decode(escape);
        out.push(decoded);
        rest = escape.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
}

/// The character an escape stands for and the escape's length.
fn decode(escape: &str) -> (char, usize) {
    let simple = match escape.as_bytes().get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let high = code_unit(escape, 2);
            if let 0xd800..=0xdbff = high {
                let low = code_unit(escape, 8);
                let code = 0x10000 + ((high - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff);
                return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
            }
            return (char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), 6);
        }
        Some(other) => char::from(*other),
        None => char::REPLACEMENT_CHARACTER,
    };
    (simple, 2)
}

fn code_unit(escape: &str, at: usize) -> u32 {
    escape.get(at..at + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0xfffd)
}

/// Appends `text` to `out` as a JSON string with its quotes.
pub(crate) fn quote_into(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => {
                out.push_str("\\u00");
                out.push(char::from_digit(c as u32 >> 4, 16).unwrap_or('0'));
                out.push(char::from_digit(c as u32 & 15, 16).unwrap_or('0'));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decodes_every_kind_of_escape() {
        let mut out = String::new();
        unescape_into(r#"a\"\\\/\b\f\n\r\té€😀z"#, &mut out);
        assert_eq!(out, "a\"\\/\u{8}\u{c}\n\r\té€😀z");
        out.clear();
        unescape_into(r#"a\u00e9\u20ac\ud83d\ude00z"#, &mut out);
        assert_eq!(out, "aé€😀z");
    }

    proptest! {
        #[test]
        fn quoting_round_trips(text in any::<String>()) {
            let mut quoted = String::new();
            quote_into(&text, &mut quoted);
            prop_assert_eq!(&serde_json::from_str::<String>(&quoted).unwrap(), &text);
            let mut back = String::new();
            unescape_into(&quoted[1..quoted.len() - 1], &mut back);
            prop_assert_eq!(back, text);
        }
    }
}
