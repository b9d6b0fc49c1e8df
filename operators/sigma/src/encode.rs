//! The encoding modifiers: `base64`, `base64offset`, the `utf16` family and `windash`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Dashes that Windows tools take for one another.
const DASHES: [char; 5] = ['-', '/', '–', '—', '―'];
/// More spellings of one value than this are refused; five dashes make 3125.
const MAX_SPELLINGS: usize = 3125;

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The text that base64 of anything containing `bytes` must contain, for each of the three places it can begin at.
pub(crate) fn base64_offsets(bytes: &[u8]) -> Vec<String> {
    let cut = |shift: usize| {
        let mut padded = vec![b' '; shift];
        padded.extend_from_slice(bytes);
        let text = STANDARD.encode(&padded);
        // Characters that also hold bits of what stands before or after are left out.
        let start = [0, 2, 3][shift];
        let end = text.len() - [0, 3, 2][padded.len() % 3];
        text.get(start..end).unwrap_or("").to_owned()
    };
    (0..3).map(cut).filter(|text| !text.is_empty()).collect()
}

pub(crate) fn utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

pub(crate) fn utf16be(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// Little endian after a byte order mark.
pub(crate) fn utf16_with_mark(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xfe];
    bytes.extend(utf16le(text));
    bytes
}

/// Every spelling of the flags in `text`; `None` if there are too many. A flag's dash follows no word character and
/// is followed by one.
pub(crate) fn windash(text: &str) -> Option<Vec<String>> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut spellings = vec![String::new()];
    let mut before = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let flag = DASHES.contains(&c) && !before.is_some_and(word) && chars.peek().copied().is_some_and(word);
        if flag {
            if spellings.len() * DASHES.len() > MAX_SPELLINGS {
                return None;
            }
            spellings = spellings.iter().flat_map(|s| DASHES.iter().map(move |dash| format!("{s}{dash}"))).collect();
        } else {
            spellings.iter_mut().for_each(|s| s.push(c));
        }
        before = Some(c);
    }
    Some(spellings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_found_wherever_the_value_stands() {
        // The example of the pySigma documentation.
        assert_eq!(base64_offsets(b"foobar"), ["Zm9vYmFy", "Zvb2Jhc", "mb29iYX"]);
        for shift in 0..6 {
            for tail in 0..4 {
                let whole = format!("{}http://x{}", "q".repeat(shift), "z".repeat(tail));
                let encoded = base64(whole.as_bytes());
                assert!(base64_offsets(b"http://x").iter().any(|part| encoded.contains(part)), "{shift} {tail}");
            }
        }
    }

    #[test]
    fn only_flags_are_respelled() {
        assert_eq!(windash("a-b c").unwrap(), ["a-b c"]);
        let all = windash(" -f -x").unwrap();
        assert_eq!(all.len(), 25);
        assert!(all.contains(&" /f —x".to_owned()));
        assert!(windash("-a -b -c -d -e -f").is_none());
    }

    #[test]
    fn wide_text() {
        assert_eq!(utf16le("a"), [0x61, 0]);
        assert_eq!(utf16be("a"), [0, 0x61]);
        assert_eq!(utf16_with_mark("a"), [0xff, 0xfe, 0x61, 0]);
    }
}
