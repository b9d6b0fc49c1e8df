//! All rules' tests of one field in one structure: a value is looked at once, however many rules there are.
//!
//! Exact values are a hash lookup, literals of all patterns one Aho-Corasick pass, regular expressions run only where
//! a literal they need was found (those without one share a regex set), networks a lookup per prefix length.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ahash::AHashMap;
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use ipnet::IpNet;
use regex::{RegexSet, RegexSetBuilder};

use crate::atom::{Compare, Test};
use crate::glob::{Glob, Shape, fold};
use crate::required::required_literals;

/// A regular expression; what the linear engine does not know (look-around, back-references) runs in one that gives
/// up after a bounded number of steps, and then does not match.
#[derive(Debug)]
pub(crate) enum Expression {
    Linear(Box<regex::Regex>),
    Backtracking(Box<fancy_regex::Regex>),
}

impl Expression {
    pub fn new(pattern: &str) -> Result<Self, String> {
        match regex::Regex::new(pattern) {
            Ok(regex) => Ok(Expression::Linear(Box::new(regex))),
            Err(error) => match fancy_regex::Regex::new(pattern) {
                Ok(regex) => Ok(Expression::Backtracking(Box::new(regex))),
                Err(_) => Err(error.to_string().lines().last().unwrap_or("not valid").to_owned()),
            },
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Expression::Linear(regex) => regex.is_match(text),
            Expression::Backtracking(regex) => regex.is_match(text).unwrap_or(false),
        }
    }
}

/// What finding a literal means for an atom.
#[derive(Debug, Clone, Copy)]
enum Use {
    Contains(u32),
    Starts(u32),
    Ends(u32),
    /// The pattern at this place of `globs` has to be tried.
    Glob(u32, u32),
    /// The expression at this place of `expressions` has to be tried.
    Regex(u32, u32),
}

/// Tests on text where case counts, or on folded text.
#[derive(Debug, Default)]
struct Texts {
    exact: AHashMap<String, Vec<u32>>,
    literals: BTreeMap<String, Vec<Use>>,
    automaton: Option<AhoCorasick>,
    uses: Vec<Vec<Use>>,
    globs: Vec<Glob>,
    /// Patterns without any literal, such as `??`.
    bare: Vec<(u32, u32)>,
}

/// The tests of one field.
/// Atoms by the first address of their network.
type NetAtoms = AHashMap<IpAddr, Vec<u32>>;

#[derive(Debug, Default)]
pub(crate) struct FieldIndex {
    folded: Texts,
    cased: Texts,
    expressions: Vec<Expression>,
    /// Expressions without a literal: a set of the linear ones, and the others one by one.
    set: Option<RegexSet>,
    set_atoms: Vec<u32>,
    loose: Vec<(u32, u32)>,
    /// By family (true is IPv6) and length of the prefix.
    nets: Vec<((bool, u8), NetAtoms)>,
    numbers: Vec<(Compare, f64, u32)>,
}

/// Up to so many bytes of patterns the automaton is the fastest kind, whose table takes some 200 times that.
const DFA_MAX: usize = 256 << 10;

/// Marks what was already found for the value at hand.
#[derive(Debug, Default)]
pub(crate) struct Found {
    stamp: Vec<u32>,
    tried: Vec<u32>,
    round: u32,
    /// The atoms hit.
    pub atoms: Vec<u32>,
}

impl Found {
    pub fn new(atoms: usize) -> Self {
        Found { stamp: vec![0; atoms], tried: vec![0; atoms], round: 0, atoms: Vec::new() }
    }

    pub fn clear(&mut self) {
        self.atoms.clear();
        self.round = self.round.wrapping_add(1);
        if self.round == 0 {
            self.stamp.fill(0);
            self.tried.fill(0);
            self.round = 1;
        }
    }

    fn hit(&mut self, atom: u32) {
        let stamp = &mut self.stamp[atom as usize];
        if *stamp != self.round {
            *stamp = self.round;
            self.atoms.push(atom);
        }
    }

    /// Whether a costly test still has to be run for this value (lists of values clear it between elements).
    fn untried(&mut self, atom: u32) -> bool {
        if self.stamp[atom as usize] == self.round || self.tried[atom as usize] == self.round {
            return false;
        }
        self.tried[atom as usize] = self.round;
        true
    }
}

impl FieldIndex {
    /// Adds a test; its answer is told as `atom`.
    pub fn add(&mut self, atom: u32, test: &Test) {
        match test {
            Test::Text { glob, cased } => {
                let texts = if *cased { &mut self.cased } else { &mut self.folded };
                texts.add(atom, glob);
            }
            Test::Regex(pattern) => {
                // The rule was refused if the expression is not valid.
                let Ok(expression) = Expression::new(pattern) else { return };
                let linear = matches!(expression, Expression::Linear(_));
                let at = self.expressions.len() as u32;
                self.expressions.push(expression);
                match required_literals(pattern).filter(|_| linear) {
                    Some(literals) => {
                        for literal in literals {
                            self.folded.literals.entry(literal).or_default().push(Use::Regex(atom, at));
                        }
                    }
                    None => self.loose.push((atom, at)),
                }
            }
            Test::Cidr(net) => {
                let kind = (net.addr().is_ipv6(), net.prefix_len());
                let at = match self.nets.iter().position(|(k, _)| *k == kind) {
                    Some(at) => at,
                    None => {
                        self.nets.push((kind, AHashMap::new()));
                        self.nets.len() - 1
                    }
                };
                self.nets[at].1.entry(net.network()).or_default().push(atom);
            }
            Test::Number(compare, limit) => self.numbers.push((*compare, limit.get(), atom)),
        }
    }

    /// Builds the automata once every test is in.
    pub fn finish(&mut self) {
        self.folded.finish();
        self.cased.finish();
        let linear = |at: u32| match &self.expressions[at as usize] {
            Expression::Linear(regex) => Some(regex.as_str().to_owned()),
            Expression::Backtracking(_) => None,
        };
        let (in_set, rest): (Vec<_>, Vec<_>) = self.loose.iter().partition(|(_, at)| linear(*at).is_some());
        let patterns: Vec<String> = in_set.iter().filter_map(|(_, at)| linear(*at)).collect();
        // A set too large to build is run one by one instead: slower, never wrong.
        if patterns.len() > 1
            && let Ok(set) = RegexSetBuilder::new(&patterns).size_limit(64 << 20).dfa_size_limit(16 << 20).build()
        {
            self.set = Some(set);
            self.set_atoms = in_set.iter().map(|(atom, _)| *atom).collect();
            self.loose = rest;
        }
    }

    /// Runs every test on one value. `number` is the value as a number, if it is one.
    pub fn run(&self, text: &str, number: Option<f64>, found: &mut Found) {
        if self.folded.in_use() {
            self.folded.run(&fold(text), text, &self.expressions, found);
        }
        if self.cased.in_use() {
            self.cased.run(text, text, &self.expressions, found);
        }
        if let Some(set) = &self.set {
            for n in set.matches(text) {
                found.hit(self.set_atoms[n]);
            }
        }
        for (atom, at) in &self.loose {
            if self.expressions[*at as usize].matches(text) {
                found.hit(*atom);
            }
        }
        if !self.nets.is_empty()
            && let Ok(address) = text.trim().parse::<IpAddr>()
        {
            self.networks(address, found);
        }
        if let Some(value) = number {
            for (compare, limit, atom) in &self.numbers {
                if compare.holds(value, *limit) {
                    found.hit(*atom);
                }
            }
        }
    }

    fn networks(&self, address: IpAddr, found: &mut Found) {
        // `::ffff:10.0.0.1` is 10.0.0.1.
        let address = address.to_canonical();
        for ((ipv6, prefix), nets) in &self.nets {
            if *ipv6 != address.is_ipv6() {
                continue;
            }
            let Ok(net) = IpNet::new(address, *prefix) else { continue };
            for atom in nets.get(&net.network()).into_iter().flatten() {
                found.hit(*atom);
            }
        }
    }

    pub fn wants_numbers(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// How rarely a test can be expected to hold; a guess from the length of its text.
    pub fn rarity(test: &Test) -> u32 {
        match test {
            Test::Text { glob, .. } => match glob.shape() {
                // A number or a short word is often one of few values.
                Shape::Exact(text) => text.chars().count() as u32 + 2,
                Shape::Starts(text) | Shape::Ends(text) | Shape::Contains(text) | Shape::General(text) => {
                    text.chars().count() as u32
                }
                Shape::Anything => 0,
            },
            Test::Regex(pattern) => {
                let literals = required_literals(pattern).unwrap_or_default();
                literals.iter().map(|l| l.chars().count() as u32).min().unwrap_or(0)
            }
            Test::Cidr(net) => u32::from(net.prefix_len()) / 4,
            Test::Number(..) => 0,
        }
    }
}

impl Texts {
    fn add(&mut self, atom: u32, glob: &Glob) {
        let (literal, how) = match glob.shape() {
            Shape::Exact(text) => {
                self.exact.entry(text.to_owned()).or_default().push(atom);
                return;
            }
            Shape::Starts(text) => (text, Use::Starts(atom)),
            Shape::Ends(text) => (text, Use::Ends(atom)),
            Shape::Contains(text) => (text, Use::Contains(atom)),
            Shape::General(text) => (text, Use::Glob(atom, self.globs.len() as u32)),
            Shape::Anything => ("", Use::Glob(atom, self.globs.len() as u32)),
        };
        if let Use::Glob(_, at) = how {
            self.globs.push(glob.clone());
            if literal.is_empty() {
                self.bare.push((atom, at));
                return;
            }
        }
        self.literals.entry(literal.to_owned()).or_default().push(how);
    }

    fn finish(&mut self) {
        let literals = std::mem::take(&mut self.literals);
        let (patterns, uses): (Vec<String>, Vec<Vec<Use>>) = literals.into_iter().unzip();
        self.uses = uses;
        if !patterns.is_empty() {
            // Only fails beyond 2^31 patterns; then nothing of them is found, which `finish` cannot say.
            let small = patterns.iter().map(String::len).sum::<usize>() <= DFA_MAX;
            self.automaton = AhoCorasick::builder().kind(small.then_some(AhoCorasickKind::DFA)).build(&patterns).ok();
        }
    }

    fn in_use(&self) -> bool {
        !self.exact.is_empty() || self.automaton.is_some() || !self.bare.is_empty()
    }

    fn run(&self, text: &str, original: &str, expressions: &[Expression], found: &mut Found) {
        for atom in self.exact.get(text).into_iter().flatten() {
            found.hit(*atom);
        }
        for (atom, at) in &self.bare {
            if self.globs[*at as usize].fits(text) {
                found.hit(*atom);
            }
        }
        let Some(automaton) = &self.automaton else { return };
        for at in automaton.find_overlapping_iter(text) {
            for how in &self.uses[at.pattern().as_usize()] {
                match *how {
                    Use::Contains(atom) => found.hit(atom),
                    Use::Starts(atom) if at.start() == 0 => found.hit(atom),
                    Use::Ends(atom) if at.end() == text.len() => found.hit(atom),
                    Use::Starts(_) | Use::Ends(_) => {}
                    Use::Glob(atom, n) => {
                        if found.untried(atom) && self.globs[n as usize].fits(text) {
                            found.hit(atom);
                        }
                    }
                    Use::Regex(atom, n) => {
                        if found.untried(atom) && expressions[n as usize].matches(original) {
                            found.hit(atom);
                        }
                    }
                }
            }
        }
    }
}
