//! A number as people write it: groups of digits with separators between them.

/// Most digits looked at.
const MAX_DIGITS: usize = 32;
/// Most groups looked at.
pub(crate) const MAX_GROUPS: usize = 10;

/// Consecutive groups of digits.
pub(crate) struct Number {
    /// Digits of all groups, as values 0 to 9.
    digits: [u8; MAX_DIGITS],
    groups: [Group; MAX_GROUPS],
    count: usize,
}

/// One group: where it stands, which of the digits are its own, what stands before it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Group {
    pub start: usize,
    pub end: usize,
    /// Its first digit in the number's digits.
    first: u8,
    /// What separates it from the group before; zero for the first, `b'*'` for more than one byte.
    pub separator: u8,
}

impl Group {
    pub fn len(&self) -> usize {
        self.end - self.start
    }
}

impl Number {
    /// Reads the number at `at`, and the byte where the next may begin. None where fewer than four
    /// digits or more than can be anything are found.
    #[inline]
    pub fn read(text: &[u8], at: usize) -> (usize, Option<Self>) {
        let mut end = at + 1;
        while text.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        // Most numbers are short or part of an id; they end here.
        let next = text.get(end).copied().unwrap_or(b'"');
        if is_letter(next) && !matches!(next, b'x' | b'X' | b'e' | b'E') || end - at > 19 {
            return (end, None);
        }
        if end - at < 7 && !is_separator(next) && next != 0xC2 {
            return (end, None);
        }
        Self::read_groups(text, at)
    }

    fn read_groups(text: &[u8], at: usize) -> (usize, Option<Self>) {
        let mut number = Self { digits: [0; MAX_DIGITS], groups: [Group::default(); MAX_GROUPS], count: 0 };
        let mut total = 0;
        let mut start = at;
        let mut separator = 0;
        let mut after = at;
        while number.count < MAX_GROUPS {
            let first = total;
            let mut end = start;
            while let Some(digit) = text.get(end).filter(|b| b.is_ascii_digit()) {
                if total == MAX_DIGITS {
                    return (end, None);
                }
                number.digits[total] = digit - b'0';
                total += 1;
                end += 1;
            }
            // Digits that a letter touches are an id's, unless the letter begins an extension.
            let next = text.get(end).copied().unwrap_or_default();
            let extension = matches!(next, b'x' | b'X' | b'e' | b'E') && first + (end - start) >= 7;
            if (is_letter(next) || next == b'_') && !extension {
                after = end;
                break;
            }
            number.groups[number.count] = Group { start, end, first: first as u8, separator };
            number.count += 1;
            after = end;
            let mut from = end;
            while from < end + 3 && text.get(from).is_some_and(|b| is_separator(*b)) {
                from += 1;
            }
            // A no-break space, as some locales group with.
            if from == end && text.get(end..end + 2) == Some("\u{a0}".as_bytes()) {
                from = end + 2;
            }
            if from == end || !text.get(from).is_some_and(u8::is_ascii_digit) {
                break;
            }
            separator = match from - end {
                1 => text[end],
                2 if text[end] == 0xC2 => b' ',
                _ => b'*',
            };
            start = from;
        }
        let digits = number.groups[..number.count].last().map_or(0, |g| g.first as usize + g.len());
        (after.max(at + 1), (digits >= 4).then_some(number))
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups[..self.count]
    }

    /// Digits of the groups `from` to `to`, both included.
    pub fn digits(&self, from: usize, to: usize) -> &[u8] {
        let (from, to) = (&self.groups[from], &self.groups[to]);
        &self.digits[from.first as usize..to.first as usize + to.len()]
    }

    /// How many digits in all.
    pub fn total(&self) -> usize {
        self.groups().last().map_or(0, |g| g.first as usize + g.len())
    }

    /// Whether the first groups are a calendar date, which must not be read as anything else.
    pub fn is_date(&self) -> bool {
        let [a, b, c, ..] = self.groups() else { return false };
        let value = |g: usize| self.digits(g, g).iter().fold(0u32, |n, d| n.saturating_mul(10) + u32::from(*d));
        let lengths = (a.len(), b.len(), c.len());
        let even = b.separator == c.separator && matches!(b.separator, b'-' | b'.' | b'/');
        even && match lengths {
            (4, 1..=2, 1..=2) => (1900..2100).contains(&value(0)) && value(1) <= 12 && value(2) <= 31,
            (1..=2, 1..=2, 4) => {
                (1900..2100).contains(&value(2)) && value(0).min(value(1)) <= 12 && value(0).max(value(1)) <= 31
            }
            _ => false,
        }
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'-' | b'.' | b'/' | b'(' | b')')
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic()
}
