//! Finite floats and 64-bit integers from JSON number text.

use crate::json::{Kind, Nesting, Scanner};

/// Reads a finite number; none if `text` is not a JSON number or too large for one.
pub(crate) fn float(text: &str) -> Option<f64> {
    if !is_json_number(text) {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// Reads an integer; `7.0` is one, as JSON Schema sees it. None if it has a fraction or does not fit.
pub(crate) fn integer(text: &str) -> Option<i64> {
    if !is_json_number(text) {
        return None;
    }
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    whole.parse().ok()
}

/// Rust also parses "inf", "NaN", "+1" and "1."; JSON's own grammar is the rule.
fn is_json_number(text: &str) -> bool {
    let mut scanner = Scanner::new(text.as_bytes(), 0);
    let number = scanner.value(&mut Nesting::default()).is_ok_and(|node| node.kind == Kind::Number);
    number && scanner.position() == text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finite_json_numbers_are_floats() {
        for (text, value) in [("1", 1.0), ("-0.5e1", -5.0), ("0", 0.0), ("5e-324", 5e-324)] {
            assert_eq!(float(text), Some(value));
        }
        for text in ["NaN", "Infinity", "inf", "-inf", "1e999", "+1", "1.", ".5", "0x10", "1 ", "", "1,0", "[1]"] {
            assert_eq!(float(text), None, "{text}");
        }
    }

    #[test]
    fn only_whole_numbers_that_fit_are_integers() {
        for (text, value) in [("3002", 3002), ("-7.0", -7), ("9223372036854775807", i64::MAX)] {
            assert_eq!(integer(text), Some(value));
        }
        for text in ["1.5", "9223372036854775808", "1e3", "", "-", "1.x"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }
}
