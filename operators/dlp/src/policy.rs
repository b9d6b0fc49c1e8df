//! The policy of `[dlp]`: what is done with each kind of finding, by tenant and classification.
//!
//! For a row, the first of these that names the kind decides: the tenant's entry for the row's
//! classification, the tenant's entry, the general entry for the classification, the general entry,
//! the built-in default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{finding::Kind, keys::KeyRingConfig};

/// Values `pii_classification` may have, least sensitive first; the event contract's own list.
pub const CLASSIFICATIONS: [&str; 5] = ["none", "internal", "pseudonymous", "personal", "sensitive"];

/// What is done with a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It stays; it is counted.
    Allow,
    /// A fixed text takes its place.
    Mask,
    /// A token takes its place, the same for the same value of the same tenant.
    Tokenize,
    /// The field that holds it goes.
    Drop,
    /// The whole row goes to quarantine.
    Quarantine,
}

impl Action {
    /// The name used in configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Mask => "mask",
            Action::Tokenize => "tokenize",
            Action::Drop => "drop",
            Action::Quarantine => "quarantine",
        }
    }
}

/// Actions by kind; kinds not named are decided elsewhere.
pub type Actions = BTreeMap<Kind, Action>;

/// `[dlp]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DlpConfig {
    /// Whether rows are looked at; quarantined events are always masked.
    pub enabled: bool,
    /// By kind, for everyone.
    pub actions: Actions,
    /// By classification and kind, for everyone.
    pub classifications: BTreeMap<String, Actions>,
    /// Fields that are personal whatever they hold, for everyone.
    pub fields: Vec<FieldRule>,
    /// What tenants have decided for themselves, by name.
    pub tenants: BTreeMap<String, TenantPolicy>,
    /// Keys for tokens. Without them nothing can be tokenized.
    pub keys: Option<KeyRingConfig>,
}

impl Default for DlpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            actions: Actions::new(),
            classifications: BTreeMap::new(),
            fields: Vec::new(),
            tenants: BTreeMap::new(),
            keys: None,
        }
    }
}

/// `[dlp.tenants.<name>]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantPolicy {
    /// By kind.
    pub actions: Actions,
    /// By classification and kind.
    pub classifications: BTreeMap<String, Actions>,
    /// Fields, which are tried before everyone's.
    pub fields: Vec<FieldRule>,
}

/// One of `[[dlp.fields]]`: a field that is treated for its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldRule {
    /// Column and keys with dots between them, such as `payload.customer.email`. `*` is any one key,
    /// `**` and a leading `*` any number of them; arrays do not count. Case does not matter.
    pub path: String,
    /// What is done.
    pub action: Action,
    /// What the value is called in its mask or token.
    #[serde(default)]
    pub kind: Option<Kind>,
}

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DlpConfigError {
    /// No such classification.
    #[error(
        "dlp{place}: unknown classification {name:?}; expected one of none, internal, pseudonymous, personal, sensitive"
    )]
    Classification {
        /// Which part of the policy.
        place: String,
        /// The name.
        name: String,
    },
    /// A path that matches nothing.
    #[error("dlp.fields: {0:?} is not a path of keys with dots between them")]
    Path(String),
    /// Tokenizing without keys.
    #[error("dlp{0}: tokenize needs [dlp.keys]")]
    NoKeys(String),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeyError),
}

/// One action for every kind.
pub(crate) type Table = [Action; Kind::ALL.len()];

/// What is done where nothing is configured.
///
/// Secrets, cards, bank accounts and social security numbers are masked. E-mail addresses and
/// telephone numbers are tokenized if there are keys, for people join on them, and else masked.
/// Addresses of machines stay in rows that are not personal, because operators and a SOC work with
/// them, and are masked in rows that say they are.
pub(crate) fn default_action(kind: Kind, classification: Option<usize>, keys: bool) -> Action {
    match kind {
        Kind::Email | Kind::Phone if keys => Action::Tokenize,
        Kind::Ipv4 | Kind::Ipv6 if classification.is_none_or(|c| c < 2) => Action::Allow,
        _ => Action::Mask,
    }
}

/// Tables by classification, the last for rows without one.
pub(crate) fn tables(config: &DlpConfig, tenant: Option<&TenantPolicy>) -> [Table; CLASSIFICATIONS.len() + 1] {
    std::array::from_fn(|index| {
        let classification = (index < CLASSIFICATIONS.len()).then_some(index);
        let of = |by_class: &BTreeMap<String, Actions>, kind| {
            classification.and_then(|c| by_class.get(CLASSIFICATIONS[c])).and_then(|actions| actions.get(kind)).copied()
        };
        std::array::from_fn(|kind| {
            let kind = &Kind::ALL[kind];
            tenant
                .and_then(|t| of(&t.classifications, kind).or_else(|| t.actions.get(kind).copied()))
                .or_else(|| of(&config.classifications, kind))
                .or_else(|| config.actions.get(kind).copied())
                .unwrap_or_else(|| default_action(*kind, classification, config.keys.is_some()))
        })
    })
}

/// Names the first mistake in a policy.
pub(crate) fn check(config: &DlpConfig) -> Result<(), DlpConfigError> {
    part("", &config.actions, &config.classifications, &config.fields, config.keys.is_some())?;
    for (name, tenant) in &config.tenants {
        let place = format!(".tenants.{name}");
        part(&place, &tenant.actions, &tenant.classifications, &tenant.fields, config.keys.is_some())?;
    }
    Ok(())
}

fn part(
    place: &str,
    actions: &Actions,
    classifications: &BTreeMap<String, Actions>,
    fields: &[FieldRule],
    keys: bool,
) -> Result<(), DlpConfigError> {
    if let Some(name) = classifications.keys().find(|name| !CLASSIFICATIONS.contains(&name.as_str())) {
        return Err(DlpConfigError::Classification { place: place.to_owned(), name: name.clone() });
    }
    if let Some(rule) = fields.iter().find(|rule| rule.path.split('.').any(str::is_empty)) {
        return Err(DlpConfigError::Path(rule.path.clone()));
    }
    let all = actions.values().chain(classifications.values().flat_map(BTreeMap::values));
    let tokenizes = all.chain(fields.iter().map(|rule| &rule.action)).any(|action| *action == Action::Tokenize);
    if tokenizes && !keys { Err(DlpConfigError::NoKeys(place.to_owned())) } else { Ok(()) }
}
