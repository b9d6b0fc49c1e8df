//! A correlator's state in parts, each under a key of its own, so that only what changed has to be stored again.
//!
//! A key says what the part belongs to: the correlation and its definition, the scope and the group. Keys mean the
//! same in every process; a part whose correlation is gone or defined otherwise is never read as another's.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::correlation::CorrelationSet;
use crate::correlator::{CorrelatorStats, GroupKey, HeldKey};
use crate::group::{Group, Item};

/// One part of the state, to be stored. Plain structs and sequences only, so that any serde format can hold it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CorrelatorPart(pub(crate) Part);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Part {
    Group(Group),
    Held(Item),
}

/// The part there is one of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CorrelatorHead {
    pub(crate) version: u32,
    pub(crate) watermark_us: i64,
    pub(crate) stats: CorrelatorStats,
}

/// Changes whenever old state would be misread.
pub(crate) const VERSION: u32 = 2;

/// What changed since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub groups: BTreeSet<GroupKey>,
    pub held: BTreeSet<HeldKey>,
    /// Keys of parts that nothing here stands for any more.
    pub orphans: BTreeSet<String>,
}

/// What a key stands for.
#[derive(Debug, PartialEq)]
pub(crate) enum Place {
    Group(GroupKey),
    Held(HeldKey),
}

const GROUP: &str = "group";
const HELD: &str = "held";

pub(crate) fn group_key(set: &CorrelationSet, key: &GroupKey) -> String {
    let (at, scope, group) = key;
    joined([GROUP].into_iter().chain(of(set, *at)).chain([scope.as_str()]).chain(group.iter().map(String::as_str)))
}

pub(crate) fn held_key(set: &CorrelationSet, key: &HeldKey) -> String {
    let (time, event, (at, scope, group), input) = key;
    let (time, input) = (time.to_string(), input.to_string());
    let own = [time.as_str(), event, input.as_str()];
    let parts = [HELD].into_iter().chain(of(set, *at)).chain([scope.as_str()]).chain(own);
    joined(parts.chain(group.iter().map(String::as_str)))
}

fn of(set: &CorrelationSet, at: u32) -> [&str; 2] {
    [set.correlations()[at as usize].key(), &set.specs[at as usize].definition]
}

/// What a key stands for in this set; nothing if its correlation is not there or defined otherwise.
pub(crate) fn place(set: &CorrelationSet, key: &str) -> Option<Place> {
    let parts = split(key)?;
    let (head, rest) = parts.split_at_checked(4)?;
    let [kind, correlation, definition, scope] = head else { return None };
    let at = set.correlations().iter().position(|c| c.key() == *correlation)?;
    if set.specs[at].definition != *definition {
        return None;
    }
    let owned = |parts: &[&str]| parts.iter().map(|p| (*p).to_owned()).collect::<Vec<String>>();
    let group = |parts: &[&str]| (at as u32, (*scope).to_owned(), owned(parts));
    match (*kind, rest) {
        (GROUP, parts) => Some(Place::Group(group(parts))),
        (HELD, [time, event, input, parts @ ..]) => {
            Some(Place::Held((time.parse().ok()?, (*event).to_owned(), group(parts), input.parse().ok()?)))
        }
        _ => None,
    }
}

/// Each part after its length: values hold any text, and two lists of them never look alike.
fn joined<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    parts.fold(String::new(), |key, part| format!("{key}{}:{part}", part.len()))
}

fn split(mut key: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    while !key.is_empty() {
        let (len, rest) = key.split_once(':')?;
        let (part, rest) = rest.split_at_checked(len.parse().ok()?)?;
        parts.push(part);
        key = rest;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_whatever_they_hold() {
        for parts in [vec!["a", "", "1:b", "é\u{1f}\n"], vec![], vec![""]] {
            assert_eq!(split(&joined(parts.iter().copied())), Some(parts));
        }
        assert_ne!(joined(["a", "b"].into_iter()), joined(["ab"].into_iter()));
        for broken in ["3:ab", "x:a", "1", "1:é"] {
            assert_eq!(split(broken), None, "{broken}");
        }
    }
}
