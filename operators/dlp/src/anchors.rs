//! Where something may begin: one pass over the text, 64 bytes at a time, that leaves a few
//! positions for the exact recognizers.
//!
//! An event mostly holds nothing to find, so this pass is what DLP costs. It compares 16 bytes at a
//! time and works on bit masks, one bit a byte; a mask is carried over from block to block so that
//! what lies across a border is seen.

use wide::u8x16;

const BLOCK: usize = 64;

/// A position worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// An `@`.
    At,
    /// The first digit of a number that no letter touches from the left.
    Number,
    /// The second digit of two after two letters that begin a word.
    LettersDigits,
    /// A colon with a letter, a digit or a colon to its left.
    Colon,
}

/// Classes of 64 bytes, one bit a byte.
#[derive(Clone, Copy, Default)]
struct Masks {
    at: u64,
    digit: u64,
    letter: u64,
    underscore: u64,
    colon: u64,
}

impl Masks {
    #[inline(always)]
    fn of(block: &[u8; BLOCK]) -> Self {
        let mut masks = Self::default();
        let (lanes, _) = block.as_chunks::<16>();
        for (lane, bytes) in lanes.iter().enumerate() {
            let bytes = u8x16::from(*bytes);
            let shift = lane * 16;
            let bits = |mask: u8x16| u64::from(mask.to_bitmask()) << shift;
            let equal = |byte: u8| bits(bytes.simd_eq(u8x16::splat(byte)));
            let digit = bytes - u8x16::splat(b'0');
            let letter = (bytes | u8x16::splat(0x20)) - u8x16::splat(b'a');
            masks.digit |= bits(digit.min(u8x16::splat(9)).simd_eq(digit));
            masks.letter |= bits(letter.min(u8x16::splat(25)).simd_eq(letter));
            masks.at |= equal(b'@');
            masks.underscore |= equal(b'_');
            masks.colon |= equal(b':');
        }
        masks
    }
}

/// Calls `visit` for every anchor in order until it has seen them all. `visit` gives back the byte
/// from which numbers are anchors again, so that a number is looked at once.
#[inline]
pub(crate) fn each(text: &[u8], mut visit: impl FnMut(Anchor, usize) -> usize) {
    let mut before = Masks::default();
    let mut numbers_from = 0;
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    for (index, block) in blocks.iter().chain((!rest.is_empty()).then_some(&last)).enumerate() {
        let now = Masks::of(block);
        let shifted = |of: fn(&Masks) -> u64, by: u32| of(&now) << by | of(&before) >> (64 - by);
        let word = |masks: &Masks| masks.digit | masks.letter | masks.underscore;
        let word_before = word(&now) << 1 | word(&before) >> 63;
        let number = now.digit & !word_before;
        let letters_digits = now.digit
            & shifted(|m| m.digit, 1)
            & shifted(|m| m.letter, 2)
            & shifted(|m| m.letter, 3)
            & !shifted(|m| m.digit | m.letter | m.underscore, 4);
        let colon = now.colon & (shifted(|m| m.digit | m.letter | m.colon, 1));
        before = now;
        let mut all = number | letters_digits | colon | now.at;
        while all != 0 {
            let bit = all & all.wrapping_neg();
            all ^= bit;
            let at = index * BLOCK + bit.trailing_zeros() as usize;
            if number & bit != 0 {
                if at >= numbers_from {
                    numbers_from = visit(Anchor::Number, at).max(numbers_from);
                }
            } else if colon & bit != 0 {
                visit(Anchor::Colon, at);
            } else if now.at & bit != 0 {
                visit(Anchor::At, at);
            } else {
                visit(Anchor::LettersDigits, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(text: &[u8]) -> Vec<(Anchor, usize)> {
        let get = |i: usize, back: usize| i.checked_sub(back).map_or(0, |i| text[i]);
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let mut found = Vec::new();
        for (i, b) in text.iter().enumerate() {
            if *b == b'@' {
                found.push((Anchor::At, i));
            } else if *b == b':' && (get(i, 1).is_ascii_alphanumeric() || get(i, 1) == b':') {
                found.push((Anchor::Colon, i));
            } else if b.is_ascii_digit() && !word(get(i, 1)) {
                found.push((Anchor::Number, i));
            } else if b.is_ascii_digit()
                && get(i, 1).is_ascii_digit()
                && get(i, 2).is_ascii_alphabetic()
                && get(i, 3).is_ascii_alphabetic()
                && !word(get(i, 4))
            {
                found.push((Anchor::LettersDigits, i));
            }
        }
        found
    }

    #[test]
    fn sees_the_same_across_block_borders_as_byte_by_byte() {
        let seed = "a@b DE89 12:34 ::1 x_9 7é3 AB12CD34 (030) z9:: ";
        let long = seed.repeat(9);
        for start in 0..seed.len() {
            for text in [long.get(start..), long.get(..long.len() - start)].into_iter().flatten() {
                let mut found = Vec::new();
                each(text.as_bytes(), |anchor, at| {
                    found.push((anchor, at));
                    0
                });
                assert_eq!(found, naive(text.as_bytes()), "{text}");
            }
        }
    }
}
