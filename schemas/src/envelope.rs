//! The events as Rust types, for producers and tests written in Rust.
//!
//! The data path itself never builds these: it goes from bytes to columns.

use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! event {
    ($(#[$doc:meta])* $name:ident { $($required:ident: $rt:ty,)* } optional { $($optional:ident: $ot:ty,)* }) => {
        $(#[$doc])*
        #[allow(missing_docs)] // Each field is documented in the stream's field table.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
        pub struct $name {
            $(pub $required: $rt,)*
            $(#[serde(default, skip_serializing_if = "Option::is_none")] pub $optional: Option<$ot>,)*
        }
    };
}

event! {
    /// What a user did with a feature.
    ProductEvent {
        event_id: String, occurred_at: String, tenant: String, role: String, feature: String,
        region: String, env: String, client: String, pii_classification: String, payload_hash: String,
    } optional { user_id: String, payload: Value, }
}

event! {
    /// A deployment, an incident, an SLO alert, a policy denial.
    OpsEvent {
        event_id: String, occurred_at: String, tenant: String, region: String, env: String,
        kind: String, service: String,
    } optional {
        user_id: String, role: String, feature: String, client: String, pii_classification: String,
        payload_hash: String, payload: Value, severity: String, deploy_id: String, commit: String,
        maestro_plan: String, evidence_pack_uri: String,
    }
}

event! {
    /// A sample of a service level indicator.
    SliMetric {
        event_id: String, occurred_at: String, tenant: String, service: String, env: String,
        region: String, sli_type: String, window: String, value: f64, objective: f64,
    } optional { good: f64, total: f64, payload: Value, }
}

event! {
    /// A signal for the SOC.
    SecuritySignal {
        event_id: String, occurred_at: String, tenant: String, region: String, env: String,
        actor: String, signal_type: String, severity: String, evidence: Value,
    } optional {
        lineage: Value, class_uid: i64, nonce: String, source: String, signature: String,
        pii_classification: String, payload_hash: String, payload: Value,
    }
}

event! {
    /// Who did what to the platform.
    AuditEvent {
        event_id: String, occurred_at: String, tenant: String, region: String, env: String,
        actor: String, action: String, resource: String, outcome: String,
    } optional {
        reason: String, request_id: String, pii_classification: String, payload_hash: String,
        payload: Value,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;
    use crate::{FieldType, Stream, json_schema::json_schema};

    /// An event with a valid value in every field of the contract.
    fn full(stream: Stream) -> Value {
        let fields = stream.fields().iter().map(|f| {
            let value = match f.ty {
                FieldType::Identifier | FieldType::Text => json!("x"),
                FieldType::Timestamp => json!("2026-01-01T00:00:00Z"),
                FieldType::Float => json!(0.5),
                FieldType::Integer => json!(3002),
                FieldType::Enum(values) => json!(values[0]),
                FieldType::Json => json!({"k": [1]}),
            };
            (f.name.to_owned(), value)
        });
        Value::Object(fields.collect())
    }

    fn agrees<T: Serialize + DeserializeOwned>(stream: Stream) {
        let event = full(stream);
        let typed: T = serde_json::from_value(event.clone()).unwrap();
        assert_eq!(serde_json::to_value(&typed).unwrap(), event, "{stream}: the type drops or adds a field");
        let validator = jsonschema::validator_for(&json_schema(stream)).unwrap();
        assert!(validator.is_valid(&event), "{stream}");
        let all: BTreeSet<&str> = stream.fields().iter().map(|f| f.name).collect();
        for name in all {
            let mut without = event.clone();
            without.as_object_mut().unwrap().remove(name);
            let by_type = serde_json::from_value::<T>(without.clone()).is_ok();
            assert_eq!(by_type, validator.is_valid(&without), "{stream}.{name}: type and schema disagree on required");
        }
    }

    #[test]
    fn types_and_json_schemas_agree() {
        agrees::<ProductEvent>(Stream::ProductEvents);
        agrees::<OpsEvent>(Stream::OpsEvents);
        agrees::<SliMetric>(Stream::SliMetrics);
        agrees::<SecuritySignal>(Stream::SecuritySignals);
        agrees::<AuditEvent>(Stream::AuditEvents);
    }
}
