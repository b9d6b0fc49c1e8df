//! The smallest questions about an event, shared by all rules that ask them, and what rules make of the answers.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::glob::Glob;

/// A question about one value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    /// A normalized pattern fits; `cased` if case counts.
    Text { glob: Glob, cased: bool },
    /// A regular expression, flags included, matches somewhere.
    Regex(String),
    /// An address lies in a network.
    Cidr(IpNet),
    /// A number compares so.
    Number(Compare, Bits),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Compare {
    Lt,
    Lte,
    Gt,
    Gte,
}

/// A float that can be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bits(u64);

impl Bits {
    pub fn new(value: f64) -> Self {
        Bits(value.to_bits())
    }

    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl Compare {
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Compare::Lt => value < limit,
            Compare::Lte => value <= limit,
            Compare::Gt => value > limit,
            Compare::Gte => value >= limit,
        }
    }
}

/// A comparison of two fields of the same event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FieldRef {
    pub field: u32,
    pub other: u32,
    pub how: RefHow,
    pub cased: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RefHow {
    Equal,
    Starts,
    Ends,
    Contains,
}

/// A rule's condition over atoms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// The atom's test holds for a value of its field.
    Hit(u32),
    /// The field is not in the event.
    Null(u32),
    /// Two fields compare.
    Ref(u32),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    /// At least so many hold.
    AtLeast(usize, Vec<Node>),
}

/// Atoms and fields of all rules, each once.
#[derive(Debug, Default)]
pub(crate) struct Atoms {
    pub fields: Vec<String>,
    field_ids: HashMap<String, u32>,
    pub tests: Vec<(u32, Test)>,
    test_ids: HashMap<(u32, Test), u32>,
    pub refs: Vec<FieldRef>,
}

impl Atoms {
    pub fn field(&mut self, name: &str) -> u32 {
        if let Some(id) = self.field_ids.get(name) {
            return *id;
        }
        let id = self.fields.len() as u32;
        self.fields.push(name.to_owned());
        self.field_ids.insert(name.to_owned(), id);
        id
    }

    pub fn test(&mut self, field: u32, test: Test) -> Node {
        let key = (field, test);
        if let Some(id) = self.test_ids.get(&key) {
            return Node::Hit(*id);
        }
        let id = self.tests.len() as u32;
        self.tests.push(key.clone());
        self.test_ids.insert(key, id);
        Node::Hit(id)
    }

    pub fn field_ref(&mut self, reference: FieldRef) -> Node {
        self.refs.push(reference);
        Node::Ref(self.refs.len() as u32 - 1)
    }
}

impl Node {
    pub fn not(self) -> Node {
        Node::Not(Box::new(self))
    }

    pub fn any(mut nodes: Vec<Node>) -> Node {
        if nodes.len() == 1 { nodes.swap_remove(0) } else { Node::Or(nodes) }
    }

    pub fn all(mut nodes: Vec<Node>) -> Node {
        if nodes.len() == 1 { nodes.swap_remove(0) } else { Node::And(nodes) }
    }

    /// Whether the condition holds; the three functions answer for one event.
    pub fn holds(&self, hit: &impl Fn(u32) -> bool, null: &impl Fn(u32) -> bool, refs: &impl Fn(u32) -> bool) -> bool {
        match self {
            Node::Hit(atom) => hit(*atom),
            Node::Null(field) => null(*field),
            Node::Ref(id) => refs(*id),
            Node::And(nodes) => nodes.iter().all(|n| n.holds(hit, null, refs)),
            Node::Or(nodes) => nodes.iter().any(|n| n.holds(hit, null, refs)),
            Node::Not(node) => !node.holds(hit, null, refs),
            Node::AtLeast(count, nodes) => {
                nodes.iter().filter(|n| n.holds(hit, null, refs)).take(*count).count() >= *count
            }
        }
    }

    /// Every atom in it, as often as it is there.
    pub fn atoms(&self, each: &mut impl FnMut(u32)) {
        match self {
            Node::Hit(atom) => each(*atom),
            Node::And(nodes) | Node::Or(nodes) | Node::AtLeast(_, nodes) => nodes.iter().for_each(|n| n.atoms(each)),
            Node::Not(node) => node.atoms(each),
            Node::Null(_) | Node::Ref(_) => {}
        }
    }

    /// Atoms of which at least one is hit whenever the condition holds, chosen to be hit as rarely as possible.
    pub fn triggers<R: Ord>(&self, rarity: &impl Fn(u32) -> R) -> Option<Vec<u32>> {
        let union = |nodes: &[Node]| -> Option<Vec<u32>> {
            let sets: Option<Vec<Vec<u32>>> = nodes.iter().map(|n| n.triggers(rarity)).collect();
            let mut all = sets?.concat();
            all.sort_unstable();
            all.dedup();
            Some(all)
        };
        match self {
            Node::Hit(atom) => Some(vec![*atom]),
            Node::And(nodes) => {
                let sets = nodes.iter().filter_map(|n| n.triggers(rarity));
                // The commonest of a set says how often the rule is looked at.
                sets.max_by_key(|set| (set.iter().map(|a| rarity(*a)).min(), std::cmp::Reverse(set.len())))
            }
            Node::Or(nodes) => union(nodes),
            Node::AtLeast(count, nodes) if *count >= 1 => union(nodes),
            Node::AtLeast(..) | Node::Not(_) | Node::Null(_) | Node::Ref(_) => None,
        }
    }
}
