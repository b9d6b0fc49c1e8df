//! Words near a candidate that speak for or against it.

/// How far back a word counts, in bytes.
const REACH: usize = 48;

/// Lower-cased text in front of a candidate.
pub(crate) struct Before {
    bytes: [u8; REACH],
    /// Where the text begins in `bytes`.
    from: usize,
}

/// A set of words; one that starts with `^` counts only at the beginning of a word, one that ends
/// with `$` only at the end of one.
pub(crate) struct Words {
    words: &'static [&'static str],
    /// First letters, one bit each, to pass over most positions without comparing.
    initials: u32,
}

impl Words {
    pub const fn new(words: &'static [&'static str]) -> Self {
        let mut initials = 0;
        let mut i = 0;
        while i < words.len() {
            let bytes = words[i].as_bytes();
            let first = if bytes[0] == b'^' { bytes[1] } else { bytes[0] };
            initials |= 1 << (first & 31);
            i += 1;
        }
        Self { words, initials }
    }

    fn begins(&self, text: &[u8], at: usize) -> bool {
        self.words.iter().any(|word| {
            let (word, open) = word.strip_prefix('^').map_or((*word, true), |word| (word, false));
            let (word, endless) = word.strip_suffix('$').map_or((word, true), |word| (word, false));
            // A byte of a longer character belongs to a word: the v of "vérifier" stands for no version.
            let letter = |at: Option<usize>| {
                at.and_then(|at| text.get(at)).is_some_and(|b| b.is_ascii_alphabetic() || !b.is_ascii())
            };
            text[at..].starts_with(word.as_bytes())
                && (open || !letter(at.checked_sub(1)))
                && (endless || !letter(Some(at + word.len())))
        })
    }
}

impl Before {
    /// The text in front of byte `at`, without what an earlier redaction wrote: a mask that says
    /// "phone" must not make a phone number of the next number.
    pub fn new(text: &[u8], at: usize) -> Self {
        let mut start = at.saturating_sub(REACH);
        let window = &text[start..at];
        for own in [&b"masked:"[..], b"tok_"] {
            if let Some(found) = memchr::memmem::rfind(window, own) {
                let word = window[found + own.len()..].iter();
                let word = word.take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
                start = start.max(at - window.len() + found + own.len() + word);
            }
        }
        let mut bytes = [0; REACH];
        let from = REACH - (at - start);
        bytes[from..].copy_from_slice(&text[start..at]);
        bytes.make_ascii_lowercase();
        Self { bytes, from }
    }

    /// Whether one of the words stands within `reach` bytes.
    pub fn mentions(&self, words: &Words, reach: usize) -> bool {
        let text = &self.bytes[self.from..];
        let first = text.len().saturating_sub(reach);
        (first..text.len())
            .any(|at| text[at] >= b'a' && words.initials & 1 << (text[at] & 31) != 0 && words.begins(text, at))
    }
}

/// Whether a byte belongs to a word.
pub(crate) fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
}
