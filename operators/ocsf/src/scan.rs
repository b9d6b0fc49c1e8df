//! Picks the wanted fields out of JSON text in one pass, without building a document.
//!
//! Wanted paths form a trie; the scan follows the text with it and skips every value that no path
//! leads into. Arrays fan out: `resources.ARN` is the `ARN` of every element. Keys may themselves
//! hold dots, as Kubernetes annotations do. Repeated keys give several values, so a field cannot
//! be hidden behind a second one of the same name.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use sonic_rs::LazyValue;

/// Nesting followed; anything deeper is passed over, so hostile input cannot exhaust the stack.
const MAX_DEPTH: u32 = 64;
/// Nesting accepted; `serde_json`, which reads the same text on the cold road, has the same limit.
const MAX_NESTING: usize = 127;

/// The wanted paths.
#[derive(Debug, Clone)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    children: HashMap<Box<str>, u32>,
    /// One path may be wanted under several names.
    slots: Vec<u32>,
    /// Some child's name is a number, so positions in arrays matter.
    indexed: bool,
}

impl Trie {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    /// Wants a path: `a.b`, `a[0].b` or `a.0.b`; the empty path is the document itself.
    pub(crate) fn insert(&mut self, path: &str, slot: u32) {
        let mut at = 0usize;
        for part in path.split(['.', '[']).map(|p| p.trim_end_matches(']')).filter(|p| !p.is_empty()) {
            let next = match self.nodes[at].children.get(part) {
                Some(&next) => next as usize,
                None => {
                    let next = self.nodes.len();
                    self.nodes[at].children.insert(part.into(), next as u32);
                    self.nodes[at].indexed |= part.bytes().all(|b| b.is_ascii_digit());
                    self.nodes.push(Node::default());
                    next
                }
            };
            at = next;
        }
        self.nodes[at].slots.push(slot);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.len() == 1 && self.nodes[0].slots.is_empty()
    }

    /// Adds what the text has of the wanted paths; false if it is not JSON, or nested too deep.
    pub(crate) fn scan(&self, json: &str, out: &mut Slots) -> bool {
        if too_deep(json) {
            return false;
        }
        let mut de = sonic_rs::Deserializer::from_str(json);
        let seed = NodeSeed { trie: self, node: 0, out, depth: 0 };
        seed.deserialize(&mut de).is_ok() && de.end().is_ok()
    }

    /// Child by key, following the dots inside the key if the whole of it is no child.
    fn child(&self, node: u32, key: &str) -> Option<u32> {
        if let Some(&child) = self.nodes[node as usize].children.get(key) {
            return Some(child);
        }
        // Fields that are not in the contract are kept here by ingestion.
        if node == 0 && key == "_unknown" {
            return Some(0);
        }
        if !key.contains('.') {
            return None;
        }
        key.split('.').try_fold(node, |at, part| self.nodes[at as usize].children.get(part).copied())
    }
}

/// Whether nesting goes beyond what the parser's recursion may follow. Most texts have few brackets,
/// which a plain count tells without looking at strings.
fn too_deep(json: &str) -> bool {
    let brackets = json.bytes().filter(|b| matches!(b, b'[' | b'{')).count();
    if brackets <= MAX_NESTING {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_NESTING {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Values found, by slot, in one buffer that is reused from event to event.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    text: String,
    spans: Vec<Vec<(usize, usize)>>,
}

impl Slots {
    pub(crate) fn new(slots: usize) -> Self {
        Self { text: String::new(), spans: vec![Vec::new(); slots] }
    }

    pub(crate) fn clear(&mut self, slots: usize) {
        self.text.clear();
        self.spans.iter_mut().for_each(Vec::clear);
        if self.spans.len() < slots {
            self.spans.resize_with(slots, Vec::new);
        }
    }

    pub(crate) fn values(&self, slot: usize) -> impl Iterator<Item = &str> {
        self.spans.get(slot).into_iter().flatten().map(|&(from, to)| &self.text[from..to])
    }

    pub(crate) fn has(&self, slot: usize) -> bool {
        self.spans.get(slot).is_some_and(|s| !s.is_empty())
    }

    fn push(&mut self, slot: u32, value: &str) {
        let from = self.text.len();
        self.text.push_str(value);
        if let Some(spans) = self.spans.get_mut(slot as usize) {
            spans.push((from, self.text.len()));
        }
    }
}

struct NodeSeed<'t, 's> {
    trie: &'t Trie,
    node: u32,
    out: &'s mut Slots,
    depth: u32,
}

impl NodeSeed<'_, '_> {
    /// Takes a value whose text is wanted, or whose positions are.
    fn take(&mut self, value: &LazyValue<'_>) -> Result<(), sonic_rs::Error> {
        let node = &self.trie.nodes[self.node as usize];
        let raw = value.as_raw_str();
        match raw.as_bytes().first() {
            Some(b'{') => {
                for &slot in &node.slots {
                    self.out.push(slot, raw);
                }
                if !node.children.is_empty() {
                    let mut de = sonic_rs::Deserializer::from_str(raw);
                    let inner = NodeSeed { trie: self.trie, node: self.node, out: self.out, depth: self.depth + 1 };
                    de.deserialize_any(inner)?;
                }
            }
            Some(b'[') => {
                if self.depth >= MAX_DEPTH {
                    return Ok(());
                }
                let elements: Vec<LazyValue<'_>> = sonic_rs::from_str(raw)?;
                for (index, element) in elements.iter().enumerate() {
                    let depth = self.depth + 1;
                    NodeSeed { trie: self.trie, node: self.node, out: self.out, depth }.take(element)?;
                    if node.indexed
                        && let Some(&child) = node.children.get(index.to_string().as_str())
                    {
                        NodeSeed { trie: self.trie, node: child, out: self.out, depth }.take(element)?;
                    }
                }
            }
            Some(b'"') => {
                if !node.slots.is_empty() {
                    let text = sonic_rs::from_str::<Text<'_>>(raw)?.0;
                    node.slots.iter().for_each(|&slot| self.out.push(slot, &text));
                }
            }
            Some(b'n') | None => {}
            Some(_) => {
                for &slot in &node.slots {
                    self.out.push(slot, raw);
                }
            }
        }
        Ok(())
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for NodeSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        let node = &self.trie.nodes[self.node as usize];
        if self.depth >= MAX_DEPTH {
            IgnoredAny::deserialize(deserializer)?;
            Ok(())
        } else if !node.slots.is_empty() || node.indexed {
            let value = LazyValue::deserialize(deserializer)?;
            self.take(&value).map_err(serde::de::Error::custom)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(KeySeed { trie: self.trie, node: self.node })? {
            match child {
                Some(node) => {
                    map.next_value_seed(NodeSeed { trie: self.trie, node, out: &mut *self.out, depth: self.depth + 1 })?
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(NodeSeed {
                trie: self.trie,
                node: self.node,
                out: &mut *self.out,
                depth: self.depth + 1,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

struct KeySeed<'t> {
    trie: &'t Trie,
    node: u32,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<u32>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.trie.child(self.node, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, paths: &[&str]) -> Vec<Vec<String>> {
        let mut trie = Trie::new();
        for (slot, path) in paths.iter().enumerate() {
            trie.insert(path, slot as u32);
        }
        let mut out = Slots::new(paths.len());
        assert!(trie.scan(json, &mut out), "{json}");
        (0..paths.len()).map(|slot| out.values(slot).map(str::to_owned).collect()).collect()
    }

    #[test]
    fn follows_objects_arrays_positions_and_dotted_keys() {
        let json = r#"{"a":{"b":1,"c":"x\u0041\n"},"r":[{"id":"p"},{"id":"q","n":null}],
            "annotations":{"k8s.io/decision":"allow"},"t":true,"f":1.5,"_unknown":{"u":"seen"},"a2":{"b":[[1],[2]]}}"#;
        assert_eq!(
            find(
                json,
                &["a.b", "a.c", "r.id", "r[1].id", "r.0.id", "annotations.k8s.io/decision", "t", "f", "u", "r.n"]
            ),
            [
                vec!["1"],
                vec!["xA\n"],
                vec!["p", "q"],
                vec!["q"],
                vec!["p"],
                vec!["allow"],
                vec!["true"],
                vec!["1.5"],
                vec!["seen"],
                vec![]
            ]
        );
        assert_eq!(find(json, &["a", "a.b", "a2.b"]), [vec![r#"{"b":1,"c":"x\u0041\n"}"#], vec!["1"], vec!["1", "2"]]);
    }

    #[test]
    fn repeated_keys_are_all_seen() {
        assert_eq!(find(r#"{"a":"x","a":"y"}"#, &["a"]), [vec!["x", "y"]]);
    }

    #[test]
    fn what_is_not_json_is_told_and_depth_is_bounded() {
        let mut trie = Trie::new();
        trie.insert("a.b", 0);
        for bad in ["", "{", r#"{"a":"#, r#"{"a":{"b":1}"#, "{} {}"] {
            assert!(!trie.scan(bad, &mut Slots::new(1)), "{bad}");
        }
        let mut slot = Trie::new();
        slot.insert("a", 0);
        for deep in [format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)), "[".repeat(100_000)] {
            assert!(!slot.scan(&deep, &mut Slots::new(1)));
            assert!(!trie.scan(&deep, &mut Slots::new(1)));
        }
    }
    #[test]
    fn one_path_under_two_names_and_many_brackets_in_strings() {
        let json = format!(r#"{{"a":"{}\"","b":[1,2]}}"#, "[".repeat(500));
        assert_eq!(find(&json, &["b", "b"]), [vec!["1", "2"], vec!["1", "2"]]);
    }
}
