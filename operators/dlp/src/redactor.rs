//! The redactor: a policy made ready, and the fields of rows put through it.

use std::{borrow::Cow, collections::HashMap};

use aho_corasick::AhoCorasick;

use crate::{
    finding::Kind,
    json::{MASK_ALL, Rewriter},
    keys::KeyRing,
    path::Pattern,
    policy::{self, CLASSIFICATIONS, DlpConfig, DlpConfigError, FieldRule, Table},
    scanner::Scanner,
    verdict::{Effect, Field, Fired, Judge, normalized},
};

/// Redacts by a policy. Cheap to share, made once.
#[derive(Debug)]
pub struct Redactor {
    enabled: bool,
    general: Plan,
    tenants: HashMap<String, Plan>,
    keys: Option<KeyRing>,
}

/// A policy for one tenant, or for all that have none of their own.
#[derive(Debug)]
struct Plan {
    tables: [Table; CLASSIFICATIONS.len() + 1],
    fields: Vec<Field>,
    /// Keys that fields' paths end with; none if one can end with anything.
    names: Option<AhoCorasick>,
}

/// How a field's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As it is.
    Text,
    /// As JSON.
    Json,
}

/// What becomes of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'r> {
    /// It stays as it is.
    Keep,
    /// This takes its place.
    Replace(String),
    /// It goes.
    Drop,
    /// The row goes to quarantine, by this rule.
    Quarantine {
        /// The rule's id.
        rule: &'r str,
    },
}

/// What decides about the fields of one row.
#[derive(Clone, Copy)]
pub struct RowScope<'r, 't> {
    plan: &'r Plan,
    judge: Judge<'r, 't>,
}

impl Redactor {
    /// Checks the policy and reads its keys.
    pub fn new(config: &DlpConfig) -> Result<Self, DlpConfigError> {
        policy::check(config)?;
        let keys = config.keys.as_ref().map(KeyRing::load).transpose()?;
        let tenants = config.tenants.iter().map(|(name, tenant)| {
            let rules = tenant.fields.iter().chain(&config.fields);
            (name.clone(), Plan::new(policy::tables(config, Some(tenant)), rules))
        });
        Ok(Self {
            enabled: config.enabled,
            general: Plan::new(policy::tables(config, None), config.fields.iter()),
            tenants: tenants.collect(),
            keys,
        })
    }

    /// Whether the policy says to look at rows at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether any field is treated for its name, so that a text without findings may change too.
    pub fn has_field_rules(&self) -> bool {
        !self.general.fields.is_empty() || self.tenants.values().any(|plan| !plan.fields.is_empty())
    }

    /// What decides about a row of `tenant` that declares `classification`. Rules in `waived`, with
    /// commas between them, do not quarantine it: an operator has released it from there.
    pub fn row<'r, 't>(
        &'r self,
        tenant: &'t str,
        classification: Option<&str>,
        waived: Option<&'t str>,
    ) -> RowScope<'r, 't> {
        let plan = self.tenants.get(tenant).unwrap_or(&self.general);
        let class = classification
            .and_then(|name| CLASSIFICATIONS.iter().position(|known| *known == name))
            .unwrap_or(CLASSIFICATIONS.len());
        RowScope { plan, judge: Judge { table: &plan.tables[class], tenant, keys: self.keys.as_ref(), waived } }
    }

    /// The tokens that a value has under every key, by version; to find rows of before a rotation.
    pub fn tokens(&self, tenant: &str, kind: Kind, value: &str) -> Vec<(u32, String)> {
        let value = normalized(Some(kind), value);
        self.keys.as_ref().map(|keys| keys.tokens(tenant, kind.name(), &value)).unwrap_or_default()
    }
}

impl Plan {
    fn new<'c>(tables: [Table; CLASSIFICATIONS.len() + 1], rules: impl Iterator<Item = &'c FieldRule>) -> Self {
        let fields: Vec<Field> = rules
            .map(|rule| Field {
                pattern: Pattern::new(&rule.path),
                rule: format!("field:{}", rule.path.replace(',', "_")),
                action: rule.action,
                kind: rule.kind,
            })
            .collect();
        let last: Option<Vec<&str>> = fields.iter().map(|field| field.pattern.last()).collect();
        let ascii = last.filter(|names| names.iter().all(|name| name.is_ascii()));
        let names = ascii.and_then(|names| AhoCorasick::builder().ascii_case_insensitive(true).build(names).ok());
        Self { tables, fields, names }
    }
}

impl<'r> RowScope<'r, '_> {
    /// What becomes of the field `name` with the value `text`. What was done is added to `fired`.
    pub fn field(&self, name: &str, shape: Shape, text: &str, fired: &mut Vec<Fired<'r>>) -> Verdict<'r> {
        let plan = self.plan;
        let whole = plan.fields.iter().find(|field| field.pattern.matches(&[name])).filter(|_| !text.is_empty());
        if let Some(field) = whole {
            return self.whole(field, shape, text, fired);
        }
        let (text, effect) = match shape {
            Shape::Text => self.judge.text(text, fired),
            Shape::Json => {
                let escapes = memchr::memchr(b'\\', text.as_bytes()).is_some();
                let named = !plan.fields.is_empty()
                    && (escapes || plan.names.as_ref().is_none_or(|names| names.is_match(text)));
                let fields: Vec<&Field> = if named { plan.fields.iter().collect() } else { Vec::new() };
                Rewriter { judge: self.judge, fields: &fields, column: name }.json(text, fired)
            }
        };
        match (effect, text) {
            (Effect::Quarantined(rule), _) => Verdict::Quarantine { rule },
            (Effect::Dropped, _) => Verdict::Drop,
            (_, Some(text)) => Verdict::Replace(text),
            (_, None) => Verdict::Keep,
        }
    }

    /// Whether the tenant has rules for fields by name.
    pub fn has_field_rules(&self) -> bool {
        !self.plan.fields.is_empty()
    }

    fn whole(&self, field: &'r Field, shape: Shape, text: &str, fired: &mut Vec<Fired<'r>>) -> Verdict<'r> {
        use crate::policy::Action::*;
        let action = self.judge.action(&field.rule, field.action);
        fired.push(Fired { rule: &field.rule, action });
        match action {
            Allow => Verdict::Keep,
            Drop => Verdict::Drop,
            Quarantine => Verdict::Quarantine { rule: &field.rule },
            Mask | Tokenize => {
                let mut out = String::new();
                self.judge.replace(field.kind, action, text, &mut out);
                Verdict::Replace(if shape == Shape::Json { format!("\"{out}\"") } else { out })
            }
        }
    }
}

/// Whether nothing at all would be found in a text, whatever the policy: the fast way past the many
/// that are clean. `scratch` is room for findings.
#[inline]
pub fn is_clean(shape: Shape, text: &str, scratch: &mut Vec<crate::Finding>) -> bool {
    if shape == Shape::Json && memchr::memchr(b'\\', text.as_bytes()).is_some() {
        return false;
    }
    Scanner::new().scan_into(text, scratch);
    scratch.is_empty()
}

/// A text with everything found in it masked, whatever the policy; JSON stays JSON. For quarantined
/// events and anything else that must be shown to people who may not see it.
pub fn redact_masked(text: &str) -> Cow<'_, str> {
    let judge = Judge { table: &MASK_ALL, tenant: "", keys: None, waived: None };
    let mut fired = Vec::new();
    let rewritten = match text.trim_start().starts_with(['{', '[', '"']) {
        true => Rewriter { judge, fields: &[], column: "" }.json(text, &mut fired).0,
        false => None,
    };
    // What is not JSON after all may hold findings between its strings.
    let plain = match rewritten.as_deref().unwrap_or(text) {
        source if !is_clean(Shape::Text, source, &mut Vec::new()) => judge.text(source, &mut fired).0,
        _ => None,
    };
    match plain.or(rewritten) {
        Some(text) => Cow::Owned(text),
        None => Cow::Borrowed(text),
    }
}
