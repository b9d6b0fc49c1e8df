//! Whether a word looks random.

/// Shannon entropy of the bytes, in bits a byte.
pub(crate) fn bits(text: &[u8]) -> f32 {
    let mut counts = [0u16; 256];
    for byte in text {
        counts[usize::from(*byte)] = counts[usize::from(*byte)].saturating_add(1);
    }
    let total = text.len() as f32;
    counts.iter().filter(|c| **c > 0).map(|c| f32::from(*c) / total).map(|p| -p * p.log2()).sum()
}

/// How the bytes of a word mix.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mix {
    pub lower: usize,
    pub upper: usize,
    pub digits: usize,
    pub symbols: usize,
    pub hex: bool,
}

impl Mix {
    pub fn of(word: &[u8]) -> Self {
        let mut mix = Self { hex: word.iter().all(u8::is_ascii_hexdigit), ..Self::default() };
        for byte in word {
            match byte {
                b'a'..=b'z' => mix.lower += 1,
                b'A'..=b'Z' => mix.upper += 1,
                b'0'..=b'9' => mix.digits += 1,
                _ => mix.symbols += 1,
            }
        }
        mix
    }

    /// Kinds of bytes that occur.
    pub fn classes(&self) -> usize {
        [self.lower, self.upper, self.digits, self.symbols].iter().filter(|n| **n > 0).count()
    }
}

/// Eight, four, four, four and twelve hex digits.
pub(crate) fn is_uuid(word: &[u8]) -> bool {
    word.len() == 36
        && word.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// Whether a word among prose is random enough to be a credential: long, mixed, and not made of
/// words, versions or paths.
pub(crate) fn is_random(word: &[u8]) -> bool {
    let mix = Mix::of(word);
    if word.len() < 12 || mix.digits == 0 || mix.lower + mix.upper == 0 || mix.digits == word.len() {
        return false;
    }
    if mix.hex {
        return word.len() >= 24 && bits(word) >= 3.0;
    }
    // Identifiers such as service-v2-2024 are many short pieces, each a word or a number.
    let longest = word
        .split(|b| matches!(b, b'-' | b'_' | b'.' | b'/' | b':'))
        .filter(|piece| {
            let piece = Mix::of(piece);
            piece.digits > 0 && piece.lower + piece.upper > 0 || piece.lower > 1 && piece.upper > 1 || piece.symbols > 0
        })
        .map(<[u8]>::len)
        .max()
        .unwrap_or(0);
    let floor = if word.len() >= 20 { 3.3 } else { 2.9 };
    longest >= 8 && mix.classes() >= 2 && bits(word) >= floor
}
