//! The objects of OpenSLO v1, field by field as the specification has them. Fields it does not have
//! are refused, so that a misspelt one is never silently without effect.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_yaml_ng::Value;

/// One OpenSLO object.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // A handful per file, read once.
pub enum Object {
    /// A service level objective.
    Slo(Document<SloSpec>),
    /// An indicator that objectives refer to.
    Sli(Document<SliSpec>),
    /// A service.
    Service(Document<ServiceSpec>),
    /// When to alert.
    AlertPolicy(Document<AlertPolicySpec>),
    /// A burn rate that is too high.
    AlertCondition(Document<AlertConditionSpec>),
    /// Whom to tell.
    AlertNotificationTarget(Document<TargetSpec>),
    /// Where metrics come from.
    DataSource(Document<DataSourceSpec>),
}

impl Object {
    /// Its `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Slo(_) => "SLO",
            Self::Sli(_) => "SLI",
            Self::Service(_) => "Service",
            Self::AlertPolicy(_) => "AlertPolicy",
            Self::AlertCondition(_) => "AlertCondition",
            Self::AlertNotificationTarget(_) => "AlertNotificationTarget",
            Self::DataSource(_) => "DataSource",
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Slo(d) => &d.metadata,
            Self::Sli(d) => &d.metadata,
            Self::Service(d) => &d.metadata,
            Self::AlertPolicy(d) => &d.metadata,
            Self::AlertCondition(d) => &d.metadata,
            Self::AlertNotificationTarget(d) => &d.metadata,
            Self::DataSource(d) => &d.metadata,
        }
    }
}

/// What every object has around its spec. Inlined objects may leave `apiVersion` and `kind` out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Document<S> {
    /// `openslo/v1`.
    pub api_version: Option<String>,
    /// Kind of object.
    pub kind: Option<String>,
    /// Name and labels.
    pub metadata: Metadata,
    /// The object itself.
    pub spec: S,
}

/// Name and labels of an object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// Name, unique for its kind.
    pub name: String,
    /// Name for people.
    pub display_name: Option<String>,
    /// Labels: text or lists of text.
    pub labels: Option<BTreeMap<String, Value>>,
    /// Annotations; `companyos.io/…` ones tune alerts.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Spec of an SLO.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SloSpec {
    /// For people.
    pub description: Option<String>,
    /// Service it is about.
    pub service: String,
    /// The indicator, in place.
    pub indicator: Option<Document<SliSpec>>,
    /// The indicator, by name.
    pub indicator_ref: Option<String>,
    /// Exactly one window.
    pub time_window: Option<Vec<TimeWindow>>,
    /// `Occurrences`, `Timeslices` or `RatioTimeslices`.
    pub budgeting_method: String,
    /// What is aimed at.
    pub objectives: Vec<Objective>,
    /// When to alert; none means the default policy.
    pub alert_policies: Option<Vec<PolicyItem>>,
}

/// The time an error budget is for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TimeWindow {
    /// Length in shorthand, such as `4w`.
    pub duration: String,
    /// Whether it ends now; else it follows the calendar.
    pub is_rolling: Option<bool>,
    /// Where calendar windows begin.
    pub calendar: Option<Calendar>,
}

/// Where calendar windows begin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Calendar {
    /// Local time such as `2022-01-01 12:00:00`.
    pub start_time: String,
    /// IANA name of the time zone.
    pub time_zone: String,
}

/// A target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Objective {
    /// Name for people.
    pub display_name: Option<String>,
    /// `lte`, `gte`, `lt` or `gt`, for threshold metrics.
    pub op: Option<String>,
    /// Threshold.
    pub value: Option<f64>,
    /// Share of good, in [0, 1).
    pub target: Option<f64>,
    /// The same in per cent.
    pub target_percent: Option<f64>,
    /// Share of good events that makes a slice good.
    pub time_slice_target: Option<f64>,
    /// Length of a slice: shorthand, or minutes.
    pub time_slice_window: Option<Value>,
    /// Indicator of this objective alone, in a composite SLO.
    pub indicator: Option<Value>,
    /// The same by name.
    pub indicator_ref: Option<Value>,
    /// Weight in a composite SLO.
    pub composite_weight: Option<Value>,
}

/// Spec of an indicator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SliSpec {
    /// For people.
    pub description: Option<String>,
    /// A value that is compared with the objective's.
    pub threshold_metric: Option<Metric>,
    /// Good of total.
    pub ratio_metric: Option<RatioMetric>,
}

/// Good of total, bad of total, or a ratio already made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RatioMetric {
    /// Whether the metric only grows.
    pub counter: Option<bool>,
    /// Good events.
    pub good: Option<Metric>,
    /// Bad events.
    pub bad: Option<Metric>,
    /// All events.
    pub total: Option<Metric>,
    /// `success` or `failure`.
    pub raw_type: Option<String>,
    /// The ratio.
    pub raw: Option<Metric>,
}

/// A metric.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metric {
    /// Where it is read from.
    pub metric_source: MetricSource,
}

/// Where a metric is read from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MetricSource {
    /// Name of a DataSource.
    pub metric_source_ref: Option<String>,
    /// Type of source.
    #[serde(rename = "type")]
    pub source_type: Option<String>,
    /// Whatever the type wants.
    pub spec: Option<Value>,
}

/// Spec of a service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// For people.
    pub description: Option<String>,
}

/// Spec of a policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AlertPolicySpec {
    /// For people.
    pub description: Option<String>,
    /// Tell when there is no data.
    pub alert_when_no_data: Option<bool>,
    /// Tell when it is over.
    pub alert_when_resolved: Option<bool>,
    /// Tell when it begins.
    pub alert_when_breaching: Option<bool>,
    /// Exactly one.
    pub conditions: Vec<ConditionItem>,
    /// Whom to tell.
    pub notification_targets: Vec<TargetItem>,
}

/// Spec of a condition.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AlertConditionSpec {
    /// For people.
    pub description: Option<String>,
    /// `page`, `ticket` or the like.
    pub severity: String,
    /// The condition.
    pub condition: Condition,
}

/// A burn rate that is too high.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Condition {
    /// `burnrate`.
    pub kind: Option<String>,
    /// `gt`, `gte`, `lt` or `lte`; `gte` is what is meant without it.
    pub op: Option<String>,
    /// Burn rate.
    pub threshold: f64,
    /// Window it is measured over.
    pub lookback_window: String,
    /// How long it must hold.
    pub alert_after: Option<String>,
}

/// Spec of a notification target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// For people.
    pub description: Option<String>,
    /// What it is.
    pub target: String,
}

/// Spec of a data source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DataSourceSpec {
    /// For people.
    pub description: Option<String>,
    /// Type of source.
    #[serde(rename = "type")]
    pub source_type: String,
    /// Whatever the type wants.
    pub connection_details: Option<Value>,
}

macro_rules! item {
    ($(#[$doc:meta])* $name:ident, $fields:ident, $key:literal, $spec:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub enum $name {
            /// By name.
            Ref(String),
            /// In place.
            Inline(Box<Document<$spec>>),
        }

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct $fields {
            #[serde(rename = $key)]
            by_name: Option<String>,
            api_version: Option<String>,
            kind: Option<String>,
            metadata: Option<Metadata>,
            spec: Option<$spec>,
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Item;
                impl<'de> Visitor<'de> for Item {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a name, ", $key, ", or an object in place"))
                    }
                    fn visit_str<E: de::Error>(self, name: &str) -> Result<$name, E> {
                        Ok($name::Ref(name.to_owned()))
                    }
                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        let fields = $fields::deserialize(MapAccessDeserializer::new(map))?;
                        match (fields.by_name, fields.metadata, fields.spec) {
                            (Some(name), None, None) => Ok($name::Ref(name)),
                            (None, Some(metadata), Some(spec)) => Ok($name::Inline(Box::new(Document {
                                api_version: fields.api_version,
                                kind: fields.kind,
                                metadata,
                                spec,
                            }))),
                            _ => Err(de::Error::custom(concat!("needs either ", $key, " or both metadata and spec"))),
                        }
                    }
                }
                deserializer.deserialize_any(Item)
            }
        }
    };
}

item!(
    /// A policy of an SLO.
    PolicyItem, PolicyFields, "alertPolicyRef", AlertPolicySpec
);
item!(
    /// A condition of a policy.
    ConditionItem, ConditionFields, "conditionRef", AlertConditionSpec
);
item!(
    /// A target of a policy.
    TargetItem, TargetFields, "targetRef", TargetSpec
);
