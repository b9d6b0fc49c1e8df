//! Compiled correlations: which rules feed which, what has to be read of each event, and what makes a hit.

use std::collections::BTreeSet;

use rsigma_parser::ast::{
    ConditionExpr, ConditionOperator, CorrelationCondition, CorrelationRule, CorrelationType, Quantifier, WindowMode,
};
use sha2::{Digest, Sha256};

use crate::load::{Loaded, LoadedCorrelation, Refused};
use crate::mapping::FieldMapping;
use crate::ruleset::{RuleSet, standalone};

/// What is known of a correlation besides its condition.
#[derive(Debug, Clone, PartialEq)]
pub struct CorrelationInfo {
    /// The correlation's id.
    pub id: Option<String>,
    /// The name other correlations call it by.
    pub name: Option<String>,
    /// The correlation's title.
    pub title: String,
    /// What it finds.
    pub description: Option<String>,
    /// `informational` to `critical`.
    pub level: Option<String>,
    /// Tags such as `attack.t1110`.
    pub tags: Vec<String>,
    /// The file it stands in.
    pub file: String,
    /// The line its document begins at.
    pub line: u32,
    /// Whether a hit is a finding of its own; `false` if it only feeds correlations that do not `generate`.
    pub standalone: bool,
    /// The fields that events are grouped by, as the rule names them.
    pub group_by: Vec<String>,
    /// The length of a window in microseconds.
    pub timespan_us: i64,
}

impl CorrelationInfo {
    /// What to call the correlation: its id, else its name, else its title.
    pub fn key(&self) -> &str {
        self.id.as_deref().or(self.name.as_deref()).unwrap_or(&self.title)
    }
}

/// Correlations ready to be fed.
#[derive(Debug, Default)]
pub struct CorrelationSet {
    infos: Vec<CorrelationInfo>,
    pub(crate) specs: Vec<Spec>,
    /// By rule index, and by correlation index, where matches go: a correlation and the place in its `rules`.
    rule_routes: Vec<Vec<(u32, u16)>>,
    hit_routes: Vec<Vec<(u32, u16)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Rule(u32),
    Correlation(u32),
}

/// How one input's events are read: for every wanted name the columns that may hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub source: Source,
    pub group: Vec<Vec<String>>,
    pub values: Vec<Vec<String>>,
    pub carry: Vec<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    /// Changes whenever old state would be misread.
    pub definition: String,
    pub kind: CorrelationType,
    pub inputs: Vec<Input>,
    pub group_by: Vec<String>,
    /// Names that outer correlations ask of this one's hits, besides the group.
    pub carry: Vec<String>,
    pub timespan_us: i64,
    pub predicates: Vec<(ConditionOperator, u64)>,
    pub percentile: u64,
    pub need: Need,
    /// Can only be told once the window is over.
    pub deferred: bool,
}

/// Which inputs a temporal correlation wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Need {
    Input(u16),
    All(Vec<Need>),
    Any(Vec<Need>),
    /// So many inputs, as the predicates say.
    Count,
}

impl Need {
    pub fn holds(&self, seen: &BTreeSet<u16>, count: &dyn Fn(f64) -> bool) -> bool {
        match self {
            Need::Input(n) => seen.contains(n),
            Need::All(parts) => parts.iter().all(|p| p.holds(seen, count)),
            Need::Any(parts) => parts.iter().any(|p| p.holds(seen, count)),
            Need::Count => count(seen.len() as f64),
        }
    }
}

impl CorrelationSet {
    /// Compiles the correlations of what was loaded; `rules` must be compiled from the same.
    pub fn compile(loaded: &Loaded, rules: &RuleSet, mapping: &FieldMapping) -> (CorrelationSet, Vec<Refused>) {
        let mut refused = Vec::new();
        let mut left: Vec<&LoadedCorrelation> = loaded.correlations.iter().collect();
        // Refusing one refuses those built on it, until nothing changes; what is in a cycle never resolves.
        let mut set = CorrelationSet::default();
        loop {
            let before = left.len();
            let mut waiting = Vec::new();
            for correlation in left {
                match set.resolve(correlation, rules, loaded) {
                    Resolved::Sources(sources) => match spec(&correlation.rule, sources) {
                        Ok(spec) => set.push(loaded, correlation, spec),
                        Err((about, reason)) => refused.push(refuse(correlation, about, reason)),
                    },
                    Resolved::Waits => waiting.push(correlation),
                    Resolved::Missing(name) => {
                        refused.push(refuse(correlation, &name, format!("rule '{name}' is not loaded")));
                    }
                }
            }
            left = waiting;
            if left.is_empty() || left.len() == before {
                break;
            }
        }
        for correlation in left {
            let reason = "it refers to a correlation that refers back to it or is refused".to_owned();
            refused.push(refuse(correlation, "rules:", reason));
        }
        set.finish(loaded, rules, mapping);
        (set, refused)
    }

    /// The correlations, by index.
    pub fn correlations(&self) -> &[CorrelationInfo] {
        &self.infos
    }

    /// Whether any correlation is fed by a rule.
    pub fn uses(&self, rule: u32) -> bool {
        !self.rule_routes(rule).is_empty()
    }

    /// The columns that a match's lookup is asked for, sorted.
    pub fn fields(&self) -> Vec<String> {
        let inputs = self.specs.iter().flat_map(|s| &s.inputs).filter(|i| matches!(i.source, Source::Rule(_)));
        let names = inputs.flat_map(|i| i.group.iter().chain(&i.values).chain(&i.carry)).flatten();
        names.cloned().collect::<BTreeSet<String>>().into_iter().collect()
    }

    /// The columns that one correlation reads.
    pub(crate) fn fields_of(&self, correlation: usize) -> Vec<String> {
        let inputs = self.specs[correlation].inputs.iter().filter(|i| matches!(i.source, Source::Rule(_)));
        let names = inputs.flat_map(|i| i.group.iter().chain(&i.values)).flatten();
        names.cloned().collect::<BTreeSet<String>>().into_iter().collect()
    }

    pub(crate) fn rule_routes(&self, rule: u32) -> &[(u32, u16)] {
        self.rule_routes.get(rule as usize).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn hit_routes(&self, correlation: u32) -> &[(u32, u16)] {
        self.hit_routes.get(correlation as usize).map_or(&[], Vec::as_slice)
    }

    fn resolve(&self, correlation: &LoadedCorrelation, rules: &RuleSet, loaded: &Loaded) -> Resolved {
        let mut sources = Vec::new();
        for name in &correlation.rule.rules {
            let rule = rules.rules().iter().position(|r| called(name, &r.id, &r.name, &r.title));
            let inner = self.infos.iter().position(|c| called(name, &c.id, &c.name, &c.title));
            match (rule, inner) {
                (Some(at), _) => sources.push(Source::Rule(at as u32)),
                (None, Some(at)) => sources.push(Source::Correlation(at as u32)),
                (None, None) => {
                    let later =
                        loaded.correlations.iter().any(|c| called(name, &c.rule.id, &c.rule.name, &c.rule.title));
                    return if later { Resolved::Waits } else { Resolved::Missing(name.clone()) };
                }
            }
        }
        Resolved::Sources(sources)
    }

    fn push(&mut self, loaded: &Loaded, correlation: &LoadedCorrelation, spec: Spec) {
        let rule = &correlation.rule;
        self.infos.push(CorrelationInfo {
            id: rule.id.clone(),
            name: rule.name.clone(),
            title: rule.title.clone(),
            description: rule.description.clone(),
            level: rule.level.map(|l| l.as_str().to_owned()),
            tags: rule.tags.clone(),
            file: correlation.place.file.clone(),
            line: correlation.place.line,
            standalone: standalone(loaded, &rule.id, &rule.name, &rule.title),
            group_by: rule.group_by.clone(),
            timespan_us: spec.timespan_us,
        });
        self.specs.push(spec);
    }

    /// Fills in columns and routes. Inner correlations come before outer ones, so going backwards every
    /// correlation knows what is asked of it when its turn comes.
    fn finish(&mut self, loaded: &Loaded, rules: &RuleSet, mapping: &FieldMapping) {
        self.rule_routes = vec![Vec::new(); rules.rules().len()];
        self.hit_routes = vec![Vec::new(); self.specs.len()];
        for at in (0..self.specs.len()).rev() {
            let info = &self.infos[at];
            let Some(rule) = loaded
                .correlations
                .iter()
                .find(|c| c.place.file == info.file && c.place.line == info.line)
                .map(|c| &c.rule)
            else {
                continue;
            };
            let value_fields = match &rule.condition {
                CorrelationCondition::Threshold { field: Some(fields), .. } => fields.clone(),
                _ => Vec::new(),
            };
            let carry = self.specs[at].carry.clone();
            for n in 0..self.specs[at].inputs.len() {
                let source = self.specs[at].inputs[n].source;
                let called_as = &rule.rules[n];
                let columns = |name: &String| {
                    let alias = rule.aliases.iter().find(|a| a.alias == *name);
                    let field = alias.and_then(|a| alias_field(a, called_as, source, rules, &self.infos));
                    let field = field.unwrap_or_else(|| name.clone());
                    match source {
                        Source::Rule(r) => mapping.columns(&rules.rules()[r as usize].source, &field),
                        Source::Correlation(_) => vec![field],
                    }
                };
                let group: Vec<Vec<String>> = rule.group_by.iter().map(columns).collect();
                let values: Vec<Vec<String>> = value_fields.iter().map(columns).collect();
                let carried: Vec<Vec<String>> = carry.iter().map(columns).collect();
                match source {
                    Source::Rule(r) => self.rule_routes[r as usize].push((at as u32, n as u16)),
                    Source::Correlation(c) => {
                        self.hit_routes[c as usize].push((at as u32, n as u16));
                        let asked: Vec<String> =
                            group.iter().chain(&values).chain(&carried).flatten().cloned().collect();
                        let inner = &mut self.specs[c as usize];
                        for name in asked {
                            if !inner.group_by.contains(&name) && !inner.carry.contains(&name) {
                                inner.carry.push(name);
                            }
                        }
                    }
                }
                let input = &mut self.specs[at].inputs[n];
                (input.group, input.values, input.carry) = (group, values, carried);
            }
            let spec = &self.specs[at];
            let text = format!(
                "{:?}|{:?}|{:?}|{}|{:?}|{:?}|{}|{:?}|{:?}",
                spec.kind,
                rule.rules,
                spec.group_by,
                spec.timespan_us,
                spec.predicates,
                spec.need,
                spec.percentile,
                value_fields,
                spec.carry
            );
            self.specs[at].definition = hex::encode(&Sha256::digest(text.as_bytes())[..8]);
        }
    }
}

enum Resolved {
    Sources(Vec<Source>),
    Waits,
    Missing(String),
}

fn called(reference: &str, id: &Option<String>, name: &Option<String>, title: &str) -> bool {
    id.as_deref() == Some(reference) || name.as_deref() == Some(reference) || title == reference
}

fn alias_field(
    alias: &rsigma_parser::ast::FieldAlias,
    called_as: &str,
    source: Source,
    rules: &RuleSet,
    infos: &[CorrelationInfo],
) -> Option<String> {
    let (id, name) = match source {
        Source::Rule(r) => (&rules.rules()[r as usize].id, &rules.rules()[r as usize].name),
        Source::Correlation(c) => (&infos[c as usize].id, &infos[c as usize].name),
    };
    let keys = [Some(called_as), name.as_deref(), id.as_deref()];
    keys.into_iter().flatten().find_map(|key| alias.mapping.get(key)).cloned()
}

fn refuse(correlation: &LoadedCorrelation, about: &str, reason: String) -> Refused {
    correlation.place.refuse(&correlation.rule.id, &correlation.rule.title, about, reason)
}

fn spec(rule: &CorrelationRule, sources: Vec<Source>) -> Result<Spec, (&'static str, String)> {
    use CorrelationType as T;
    if rule.rules.is_empty() {
        return Err(("correlation:", "it names no rules".to_owned()));
    }
    if rule.window != WindowMode::Sliding {
        return Err(("window", "only sliding windows are supported".to_owned()));
    }
    let timespan_us = i64::try_from(rule.timespan.seconds).ok().and_then(|s| s.checked_mul(1_000_000)).unwrap_or(0);
    if timespan_us <= 0 {
        return Err(("timespan", "the timespan must be longer than nothing".to_owned()));
    }
    let every = || Need::All((0..sources.len() as u16).map(Need::Input).collect());
    let temporal = matches!(rule.correlation_type, T::Temporal | T::TemporalOrdered);
    let (mut predicates, mut percentile) = (Vec::new(), 50);
    let need = match &rule.condition {
        CorrelationCondition::Threshold { predicates: given, field, percentile: rank } => {
            let has_field = field.as_ref().is_some_and(|f| !f.is_empty());
            if !temporal && rule.correlation_type != T::EventCount && !has_field {
                return Err(("condition", "the condition needs a field".to_owned()));
            }
            predicates = given.clone();
            percentile = rank.unwrap_or(50).min(100);
            // The parser gives `gte: 1` where a temporal correlation states no condition.
            if temporal && predicates == [(ConditionOperator::Gte, 1)] { every() } else { Need::Count }
        }
        CorrelationCondition::Extended(expr) if temporal => need(expr, rule).map_err(|reason| ("condition", reason))?,
        CorrelationCondition::Extended(_) => {
            return Err(("condition", "a condition over rule names needs a temporal correlation".to_owned()));
        }
    };
    if rule.correlation_type == T::TemporalOrdered && need != every() {
        return Err(("condition", "temporal_ordered takes no condition: all rules have to match in order".to_owned()));
    }
    let counted = matches!(rule.correlation_type, T::EventCount | T::ValueCount) || temporal;
    let rising = predicates.iter().all(|(op, _)| matches!(op, ConditionOperator::Gt | ConditionOperator::Gte));
    Ok(Spec {
        definition: String::new(),
        kind: rule.correlation_type,
        inputs: sources
            .into_iter()
            .map(|source| Input { source, group: Vec::new(), values: Vec::new(), carry: Vec::new() })
            .collect(),
        group_by: rule.group_by.clone(),
        carry: Vec::new(),
        timespan_us,
        deferred: !(counted && rising),
        predicates,
        percentile,
        need,
    })
}

fn need(expr: &ConditionExpr, rule: &CorrelationRule) -> Result<Need, String> {
    let many = |parts: &[ConditionExpr]| parts.iter().map(|p| need(p, rule)).collect::<Result<Vec<_>, _>>();
    match expr {
        ConditionExpr::And(parts) => Ok(Need::All(many(parts)?)),
        ConditionExpr::Or(parts) => Ok(Need::Any(many(parts)?)),
        ConditionExpr::Identifier(name) => match rule.rules.iter().position(|r| r == name) {
            Some(at) => Ok(Need::Input(at as u16)),
            None => Err(format!("'{name}' is not among the correlation's rules")),
        },
        ConditionExpr::Selector { quantifier, .. } => {
            let inputs = (0..rule.rules.len() as u16).map(Need::Input).collect();
            match quantifier {
                Quantifier::All => Ok(Need::All(inputs)),
                Quantifier::Any => Ok(Need::Any(inputs)),
                Quantifier::Count(_) => Err("use a count condition instead of 'N of'".to_owned()),
            }
        }
        ConditionExpr::Not(_) => Err("the absence of a rule's match cannot be told in a stream".to_owned()),
    }
}
