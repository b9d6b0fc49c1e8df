//! Compiled rules and their evaluation over a batch.
//!
//! Each column's distinct values are tested once; a row then only looks at the rules of which something it needs was
//! found in that row, and at the few that can match without any text being there. So cost grows with the data.

use std::cmp::Reverse;

use ahash::AHashMap;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use rsigma_parser::ast::FilterRuleTarget;

use crate::atom::{Atoms, FieldRef, Node, RefHow};
use crate::batch::{BatchSource, EventBatch, LogSource};
use crate::field_index::{FieldIndex, Found};
use crate::glob::fold;
use crate::load::{Loaded, LoadedRule, Refused};
use crate::lower::Lowering;
use crate::mapping::FieldMapping;

/// What is known of a rule besides its condition.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleInfo {
    /// The rule's id.
    pub id: Option<String>,
    /// The name correlations call it by.
    pub name: Option<String>,
    /// The rule's title.
    pub title: String,
    /// What it finds.
    pub description: Option<String>,
    /// `informational` to `critical`.
    pub level: Option<String>,
    /// `stable` to `unsupported`.
    pub status: Option<String>,
    /// Tags such as `attack.t1078`.
    pub tags: Vec<String>,
    /// The events it asks for.
    pub source: LogSource,
    /// The file it stands in.
    pub file: String,
    /// The line its document begins at.
    pub line: u32,
    /// Whether a match is a finding of its own; `false` if it only feeds correlations that do not `generate`.
    pub standalone: bool,
    /// The columns it looks at.
    pub fields: Vec<String>,
}

impl RuleInfo {
    /// What to call the rule: its id, else its name, else its title.
    pub fn key(&self) -> &str {
        self.id.as_deref().or(self.name.as_deref()).unwrap_or(&self.title)
    }
}

/// Rules ready to be evaluated.
#[derive(Debug, Default)]
pub struct RuleSet {
    infos: Vec<RuleInfo>,
    nodes: Vec<Node>,
    /// The distinct log sources that rules ask for, and each rule's.
    sources: Vec<LogSource>,
    rule_source: Vec<u32>,
    fields: Vec<String>,
    indexes: Vec<FieldIndex>,
    refs: Vec<FieldRef>,
    atoms: usize,
    /// By atom, the rules to look at where it is hit.
    triggers: Vec<Vec<u32>>,
    /// By log source, the rules to look at in every row.
    always: Vec<Vec<u32>>,
}

/// A text shorter than this is often there by chance.
const SHORT: u32 = 4;

/// The rules that matched, in order of index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// One entry for every rule that matched.
    pub hits: Vec<RuleHits>,
}

/// Where a rule matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleHits {
    /// The rule's index.
    pub rule: u32,
    /// The rows, ascending.
    pub rows: Vec<u32>,
}

impl RuleSet {
    /// Compiles what was loaded. A rule that cannot be evaluated is left out and told.
    pub fn compile(loaded: &Loaded, mapping: &FieldMapping) -> (RuleSet, Vec<Refused>) {
        let mut atoms = Atoms::default();
        let mut set = RuleSet::default();
        let mut refused = Vec::new();
        let mut seen: AHashMap<&str, &LoadedRule> = AHashMap::new();
        for loaded_rule in &loaded.rules {
            let rule = &loaded_rule.rule;
            if let Some(id) = &rule.id
                && let Some(first) = seen.insert(id, loaded_rule)
            {
                let reason = format!("the id is already used in {}:{}", first.place.file, first.place.line);
                refused.push(loaded_rule.place.refuse(&rule.id, &rule.title, "id:", reason));
                seen.insert(id, first);
                continue;
            }
            match lower(loaded, loaded_rule, mapping, &mut atoms) {
                Ok((node, fields)) => set.push(loaded, loaded_rule, node, fields),
                Err(refusal) => refused.push(refusal),
            }
        }
        set.finish(atoms);
        (set, refused)
    }

    /// The rules, by index.
    pub fn rules(&self) -> &[RuleInfo] {
        &self.infos
    }

    /// The columns that evaluation looks at, sorted.
    pub fn fields(&self) -> Vec<String> {
        let mut fields: Vec<String> = self.infos.iter().flat_map(|info| info.fields.iter().cloned()).collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    fn push(&mut self, loaded: &Loaded, rule: &LoadedRule, node: Node, fields: Vec<String>) {
        let source = source_of(rule);
        let source_id = match self.sources.iter().position(|s| *s == source) {
            Some(at) => at,
            None => {
                self.sources.push(source.clone());
                self.sources.len() - 1
            }
        };
        let place = &rule.place;
        let rule = &rule.rule;
        self.infos.push(RuleInfo {
            id: rule.id.clone(),
            name: rule.name.clone(),
            title: rule.title.clone(),
            description: rule.description.clone(),
            level: rule.level.map(|l| l.as_str().to_owned()),
            status: rule.status.map(|s| format!("{s:?}").to_lowercase()),
            tags: rule.tags.clone(),
            source,
            file: place.file.clone(),
            line: place.line,
            standalone: standalone(loaded, &rule.id, &rule.name, &rule.title),
            fields,
        });
        self.nodes.push(node);
        self.rule_source.push(source_id as u32);
    }

    fn finish(&mut self, atoms: Atoms) {
        self.indexes.resize_with(atoms.fields.len(), FieldIndex::default);
        for (atom, (field, test)) in atoms.tests.iter().enumerate() {
            self.indexes[*field as usize].add(atom as u32, test);
        }
        self.indexes.iter_mut().for_each(FieldIndex::finish);
        // What many rules ask for is common (the name of a shell, say), however long it is; and each hit of it would
        // have all those rules looked at.
        let mut used = vec![0u32; atoms.tests.len()];
        for node in &self.nodes {
            let mut own = Vec::new();
            node.atoms(&mut |atom| own.push(atom));
            own.sort_unstable();
            own.dedup();
            own.into_iter().for_each(|atom| used[atom as usize] += 1);
        }
        let rarity: Vec<_> = atoms
            .tests
            .iter()
            .zip(used)
            .map(|((_, test), used)| {
                let length = FieldIndex::rarity(test);
                (length >= SHORT, Reverse(used), length)
            })
            .collect();
        self.triggers = vec![Vec::new(); atoms.tests.len()];
        self.always = vec![Vec::new(); self.sources.len()];
        for (rule, node) in self.nodes.iter().enumerate() {
            match node.triggers(&|atom| rarity[atom as usize]) {
                Some(needed) => needed.iter().for_each(|atom| self.triggers[*atom as usize].push(rule as u32)),
                None => self.always[self.rule_source[rule] as usize].push(rule as u32),
            }
        }
        self.atoms = atoms.tests.len();
        self.fields = atoms.fields;
        self.refs = atoms.refs;
    }

    /// Which rows each rule matches. Columns of other types than [`EventBatch`] names are read as text if they can
    /// be, else as if they were missing; so is a column that is not as long as the batch.
    pub fn evaluate(&self, batch: &EventBatch) -> Matches {
        let mut found = Found::new(self.atoms);
        let columns: Vec<Option<Column>> = self.fields.iter().map(|name| Column::new(batch, name)).collect();
        let tested: Vec<Option<Tested>> = columns
            .iter()
            .zip(&self.indexes)
            .map(|(column, index)| column.as_ref().map(|c| Tested::new(c, index, batch.rows, &mut found)))
            .collect();
        let present: Vec<&Tested> = tested.iter().flatten().collect();
        let sources = RowSources::new(batch, &self.sources);
        let mut stamp = vec![0u32; self.atoms];
        let mut looked = vec![0u32; self.nodes.len()];
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.nodes.len()];
        let mut candidates: Vec<u32> = Vec::new();
        for row in 0..batch.rows {
            let mark = row as u32 + 1;
            let fits = sources.fits(row);
            candidates.clear();
            for column in &present {
                for atom in column.atoms(row) {
                    stamp[*atom as usize] = mark;
                    for rule in &self.triggers[*atom as usize] {
                        if looked[*rule as usize] != mark {
                            looked[*rule as usize] = mark;
                            if fits[self.rule_source[*rule as usize] as usize] {
                                candidates.push(*rule);
                            }
                        }
                    }
                }
            }
            for (source, rules) in self.always.iter().enumerate() {
                if fits[source] {
                    candidates.extend(rules);
                }
            }
            let hit = |atom: u32| stamp[atom as usize] == mark;
            let null = |field: u32| tested[field as usize].as_ref().is_none_or(|t| t.sets[row] == ABSENT);
            let refs = |id: u32| {
                let r = &self.refs[id as usize];
                match (&columns[r.field as usize], &columns[r.other as usize]) {
                    (Some(a), Some(b)) => compare_fields(a, b, row, r),
                    _ => false,
                }
            };
            for rule in &candidates {
                if self.nodes[*rule as usize].holds(&hit, &null, &refs) {
                    rows[*rule as usize].push(row as u32);
                }
            }
        }
        let hits = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        Matches { hits: hits.map(|(rule, rows)| RuleHits { rule: rule as u32, rows }).collect() }
    }
}

fn source_of(rule: &LoadedRule) -> LogSource {
    let source = &rule.rule.logsource;
    LogSource { product: source.product.clone(), category: source.category.clone(), service: source.service.clone() }
}

/// A rule is not a finding of its own when correlations use it and none of them generates it.
pub(crate) fn standalone(loaded: &Loaded, id: &Option<String>, name: &Option<String>, title: &str) -> bool {
    let named =
        |reference: &String| Some(reference) == id.as_ref() || Some(reference) == name.as_ref() || reference == title;
    let mut users = loaded.correlations.iter().filter(|c| c.rule.rules.iter().any(named)).peekable();
    users.peek().is_none() || users.any(|c| c.rule.generate)
}

type Lowered = (Node, Vec<String>);

fn lower(loaded: &Loaded, rule: &LoadedRule, mapping: &FieldMapping, atoms: &mut Atoms) -> Result<Lowered, Refused> {
    let source = source_of(rule);
    let mut lowering = Lowering { atoms, mapping, source: &source };
    let refuse = |error: crate::lower::Unsupported| {
        rule.place.refuse(&rule.rule.id, &rule.rule.title, &error.about, error.reason)
    };
    let mut all = vec![lowering.detections(&rule.rule.detection).map_err(refuse)?];
    for filter in &loaded.filters {
        if applies(filter, rule, &source) {
            let node = lowering.detections(&filter.rule.detection).map_err(|error| {
                let mut refused = refuse(error);
                refused.reason = format!("filter \"{}\": {}", filter.rule.title, refused.reason);
                refused
            })?;
            all.push(node);
        }
    }
    let node = Node::all(all);
    let mut ids = Vec::new();
    fields_of(&node, lowering.atoms, &mut ids);
    ids.sort_unstable();
    ids.dedup();
    let mut fields: Vec<String> = ids.iter().map(|id| lowering.atoms.fields[*id as usize].clone()).collect();
    fields.sort_unstable();
    Ok((node, fields))
}

fn applies(filter: &crate::load::LoadedFilter, rule: &LoadedRule, source: &LogSource) -> bool {
    let asked = filter.rule.logsource.as_ref().map(|s| LogSource {
        product: s.product.clone(),
        category: s.category.clone(),
        service: s.service.clone(),
    });
    let named = match &filter.rule.rules {
        FilterRuleTarget::Any => true,
        FilterRuleTarget::Specific(names) => names
            .iter()
            .any(|n| Some(n) == rule.rule.id.as_ref() || Some(n) == rule.rule.name.as_ref() || *n == rule.rule.title),
    };
    named && asked.is_none_or(|asked| asked.fits(source))
}

fn fields_of(node: &Node, atoms: &Atoms, fields: &mut Vec<u32>) {
    match node {
        Node::Hit(atom) => fields.push(atoms.tests[*atom as usize].0),
        Node::Null(field) => fields.push(*field),
        Node::Ref(id) => fields.extend([atoms.refs[*id as usize].field, atoms.refs[*id as usize].other]),
        Node::Not(inner) => fields_of(inner, atoms, fields),
        Node::And(nodes) | Node::Or(nodes) | Node::AtLeast(_, nodes) => {
            nodes.iter().for_each(|n| fields_of(n, atoms, fields));
        }
    }
}

/// A column as one of the types values are read from.
enum Column {
    Text(StringArray),
    Int(Int64Array),
    Float(Float64Array),
    Bool(BooleanArray),
    List(ListArray, StringArray),
}

impl Column {
    fn new(batch: &EventBatch, name: &str) -> Option<Column> {
        let array = batch.columns.get(name).filter(|a| a.len() == batch.rows)?;
        let text = |a: &ArrayRef| cast(a, &DataType::Utf8).ok().map(|a| a.as_string::<i32>().clone());
        match array.data_type() {
            DataType::Utf8 => Some(Column::Text(array.as_string::<i32>().clone())),
            DataType::Int64 => Some(Column::Int(array.as_primitive::<Int64Type>().clone())),
            DataType::Float64 => Some(Column::Float(array.as_primitive::<Float64Type>().clone())),
            DataType::Boolean => Some(Column::Bool(array.as_boolean().clone())),
            DataType::List(_) => {
                let list = array.as_list::<i32>().clone();
                let values = text(list.values())?;
                Some(Column::List(list, values))
            }
            _ => text(array).map(Column::Text),
        }
    }

    /// Calls `each` with every value of a row; `false` if the row has no such field.
    fn values(&self, row: usize, each: &mut impl FnMut(&str)) -> bool {
        match self {
            Column::Text(a) if a.is_valid(row) => each(a.value(row)),
            Column::Int(a) if a.is_valid(row) => each(&a.value(row).to_string()),
            Column::Float(a) if a.is_valid(row) => each(&a.value(row).to_string()),
            Column::Bool(a) if a.is_valid(row) => each(if a.value(row) { "true" } else { "false" }),
            Column::List(list, values) if list.is_valid(row) => {
                let (from, to) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                (from..to).filter(|n| values.is_valid(*n)).for_each(|n| each(values.value(n)));
            }
            _ => return false,
        }
        true
    }
}

/// The set of a row whose field is absent.
const ABSENT: u32 = u32::MAX;

/// The atoms hit by each row of a column, shared by rows with equal values.
struct Tested {
    sets: Vec<u32>,
    bounds: Vec<(u32, u32)>,
    atoms: Vec<u32>,
}

impl Tested {
    fn new(column: &Column, index: &FieldIndex, rows: usize, found: &mut Found) -> Tested {
        let mut tested = Tested { sets: Vec::with_capacity(rows), bounds: Vec::new(), atoms: Vec::new() };
        let mut known: AHashMap<Box<str>, u32> = AHashMap::new();
        let mut lists: AHashMap<Vec<u32>, u32> = AHashMap::new();
        let mut members: Vec<u32> = Vec::new();
        let list = matches!(column, Column::List(..));
        for row in 0..rows {
            members.clear();
            let there = column.values(row, &mut |text| {
                let set = match known.get(text) {
                    Some(set) => *set,
                    None => {
                        let number = if index.wants_numbers() { number(text) } else { None };
                        found.clear();
                        index.run(text, number, found);
                        let set = tested.push(&found.atoms);
                        known.insert(text.into(), set);
                        set
                    }
                };
                members.push(set);
            });
            let set = match (there, list) {
                (false, _) => ABSENT,
                (true, false) => members[0],
                (true, true) => {
                    members.sort_unstable();
                    members.dedup();
                    match lists.get(&members) {
                        Some(set) => *set,
                        None => {
                            let mut union: Vec<u32> =
                                members.iter().flat_map(|set| tested.set(*set)).copied().collect();
                            union.sort_unstable();
                            union.dedup();
                            let set = tested.push(&union);
                            lists.insert(members.clone(), set);
                            set
                        }
                    }
                }
            };
            tested.sets.push(set);
        }
        tested
    }

    fn push(&mut self, atoms: &[u32]) -> u32 {
        let from = self.atoms.len() as u32;
        self.atoms.extend_from_slice(atoms);
        self.bounds.push((from, self.atoms.len() as u32));
        self.bounds.len() as u32 - 1
    }

    fn set(&self, set: u32) -> &[u32] {
        let (from, to) = self.bounds[set as usize];
        &self.atoms[from as usize..to as usize]
    }

    fn atoms(&self, row: usize) -> &[u32] {
        match self.sets[row] {
            ABSENT => &[],
            set => self.set(set),
        }
    }
}

/// A value as a number; words such as `inf` are not.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    text.parse::<f64>().ok().filter(|n| n.is_finite())
}

fn compare_fields(a: &Column, b: &Column, row: usize, how: &FieldRef) -> bool {
    let read = |column: &Column| {
        let mut texts = Vec::new();
        column.values(row, &mut |text| texts.push(if how.cased { text.to_owned() } else { fold(text) }));
        texts
    };
    let others = read(b);
    let holds = |x: &String, y: &String| match how.how {
        RefHow::Equal => x == y,
        RefHow::Starts => x.starts_with(y.as_str()),
        RefHow::Ends => x.ends_with(y.as_str()),
        RefHow::Contains => x.contains(y.as_str()),
    };
    read(a).iter().any(|x| others.iter().any(|y| holds(x, y)))
}

/// Which of the rules' log sources each row fits; rows of one source share the answer.
struct RowSources {
    rows: Option<Vec<u32>>,
    fits: Vec<Vec<bool>>,
}

impl RowSources {
    fn new(batch: &EventBatch, asked: &[LogSource]) -> RowSources {
        let answer = |given: &LogSource| asked.iter().map(|a| a.fits(given)).collect::<Vec<bool>>();
        match &batch.source {
            BatchSource::Any => RowSources { rows: None, fits: vec![vec![true; asked.len()]] },
            BatchSource::Fixed(source) => RowSources { rows: None, fits: vec![answer(source)] },
            BatchSource::PerRow { product, category, service } => {
                let text = |array: &Option<ArrayRef>| {
                    let array = array.as_ref().filter(|a| a.len() == batch.rows)?;
                    cast(array, &DataType::Utf8).ok().map(|a| a.as_string::<i32>().clone())
                };
                let parts = [text(product), text(category), text(service)];
                let mut known: AHashMap<[Option<&str>; 3], u32> = AHashMap::new();
                let mut fits = Vec::new();
                let mut rows = Vec::with_capacity(batch.rows);
                for row in 0..batch.rows {
                    let key: [Option<&str>; 3] =
                        std::array::from_fn(|n| parts[n].as_ref().filter(|a| a.is_valid(row)).map(|a| a.value(row)));
                    rows.push(*known.entry(key).or_insert_with(|| {
                        let [product, category, service] = key.map(|part| part.map(str::to_owned));
                        fits.push(answer(&LogSource { product, category, service }));
                        fits.len() as u32 - 1
                    }));
                }
                RowSources { rows: Some(rows), fits }
            }
        }
    }

    fn fits(&self, row: usize) -> &[bool] {
        &self.fits[self.rows.as_ref().map_or(0, |rows| rows[row] as usize)]
    }
}
