//! Text a regular expression cannot match without, so that it is only run where that text was found.

use regex_syntax::hir::{Class, Hir, HirKind};

use crate::glob::fold_char;

/// Literals shorter than this are found too often to be worth looking for.
const MIN: usize = 3;
/// More alternatives than this are not worth it either.
const MAX_ALTERNATIVES: usize = 32;

/// Folded literals of which at least one is in every (folded) text that matches; `None` if nothing is known.
pub(crate) fn required_literals(pattern: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let found = walk(&hir)?;
    (found.len() <= MAX_ALTERNATIVES && found.iter().all(|text| text.chars().count() >= MIN)).then_some(found)
}

fn walk(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Concat(parts) => concat(parts),
        HirKind::Alternation(parts) => {
            let each: Option<Vec<Vec<String>>> = parts.iter().map(walk).collect();
            each.map(|sets| sets.concat())
        }
        HirKind::Capture(capture) => walk(&capture.sub),
        HirKind::Repetition(repeat) if repeat.min >= 1 => walk(&repeat.sub),
        _ => letters(hir).filter(|text| !text.is_empty()).map(|text| vec![text]),
    }
}

/// The best of the parts, where neighbouring literals count as one.
fn concat(parts: &[Hir]) -> Option<Vec<String>> {
    let mut candidates: Vec<Vec<String>> = Vec::new();
    let mut run = String::new();
    for part in parts {
        if let Some(text) = letters(part) {
            run.push_str(&text);
            continue;
        }
        if !run.is_empty() {
            candidates.push(vec![std::mem::take(&mut run)]);
        }
        candidates.extend(walk(part));
    }
    if !run.is_empty() {
        candidates.push(vec![run]);
    }
    candidates
        .into_iter()
        .filter(|set| set.len() <= MAX_ALTERNATIVES)
        .max_by_key(|set| set.iter().map(|text| text.chars().count()).min().unwrap_or(0))
}

/// The folded text of a part that can only match that text, in any case.
fn letters(hir: &Hir) -> Option<String> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            Some(text.chars().flat_map(fold_char).collect())
        }
        HirKind::Class(Class::Unicode(class)) => {
            let mut folded: Option<String> = None;
            for range in class.ranges() {
                if range.len() > 4 {
                    return None;
                }
                for c in range.start()..=range.end() {
                    let this: String = fold_char(c).collect();
                    match &folded {
                        Some(seen) if *seen != this => return None,
                        _ => folded = Some(this),
                    }
                }
            }
            folded
        }
        HirKind::Capture(capture) => letters(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(letters).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found() {
        let get = |pattern: &str| required_literals(pattern);
        assert_eq!(get("(?i)PowerShell.*-enc"), Some(vec!["powershell".into()]));
        assert_eq!(get("(foo|barb)+x?"), Some(vec!["foo".into(), "barb".into()]));
        assert_eq!(get("a(bc)d"), Some(vec!["abcd".into()]));
        assert_eq!(get("(?:cmd)?[0-9]+"), None);
        assert_eq!(get(".*"), None);
        assert_eq!(get("foo|.*"), None);
    }
}
