//! The demo's events: two tenants' everyday use, some of it with personal data, some of it wrong.

use companyos_schemas::payload_hash;
use rand::{RngExt, seq::IndexedRandom};
use serde_json::{Value, json};

use super::setup::{HOME, OTHER};

/// Whose event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Many users, most of them on feature-x.
    Alpha,
    /// A few users, hardly any on feature-x.
    Beta,
}

const FEATURES: [&str; 4] = ["search", "export", "dashboards", "billing"];
const CLIENTS: [&str; 4] = ["web/5.2.1", "web/5.2.0", "ios/3.9", "android/3.8"];
const ROLES: [&str; 3] = ["viewer", "editor", "admin"];
/// Texts with personal data, none of it anybody's.
const COMMENTS: [&str; 4] = [
    "please send the invoice to jane.doe@example.com",
    "call me back at +1 202 555 0143",
    "card 4111 1111 1111 1111 was declined",
    "it fails from 203.0.113.7 since the last release",
];

/// One good event.
pub fn product_event(who: Who) -> Value {
    let mut rng = rand::rng();
    let (tenant, users, loves_x) = match who {
        Who::Alpha => ("alpha", 400, 0.8),
        Who::Beta => ("beta", 25, 0.05),
    };
    let feature = match rng.random_bool(loves_x) {
        true => "feature-x",
        false => pick(&FEATURES),
    };
    let (env, region) = match who {
        Who::Alpha => (pick(&["prod", "prod", "prod", "staging"]), pick(&[HOME, HOME, OTHER])),
        Who::Beta => ("prod", HOME),
    };
    let personal = rng.random_bool(0.1);
    let mut payload = json!({"duration_ms": rng.random_range(5..2_000), "ok": rng.random_bool(0.97)});
    if personal {
        payload["comment"] = json!(pick(&COMMENTS));
    }
    json!({
        "event_id": uuid::Uuid::now_v7().to_string(),
        "occurred_at": chrono::Utc::now().to_rfc3339(),
        "tenant": tenant,
        "user_id": format!("u-{:04}", rng.random_range(0..users)),
        "role": pick(&ROLES),
        "feature": feature,
        "region": region,
        "env": env,
        "client": pick(&CLIENTS),
        "pii_classification": if personal { "personal" } else { "none" },
        "payload": payload,
    })
}

/// An event the gateway refuses.
pub fn without_feature(who: Who) -> Value {
    let mut event = product_event(who);
    if let Value::Object(fields) = &mut event {
        fields.remove("feature");
    }
    event
}

/// What a producer that writes to Kafka itself gets wrong: these end in quarantine.
pub fn bad_record() -> String {
    let mut event = product_event(Who::Alpha);
    let hash = event.get("payload").map(|payload| payload_hash::compute(&payload.to_string()));
    event["payload_hash"] = json!(hash);
    match pick(&["hash", "region", "clock", "cut"]) {
        "hash" => event["payload_hash"] = json!("0".repeat(64)),
        "region" => {
            event["tenant"] = json!("beta");
            event["env"] = json!("prod");
            event["region"] = json!(OTHER);
        }
        "clock" => event["occurred_at"] = json!("2001-01-01T00:00:00Z"),
        _ => {
            let mut text = event.to_string();
            text.pop();
            return text;
        }
    }
    event.to_string()
}

fn pick<'a>(from: &[&'a str]) -> &'a str {
    from.choose(&mut rand::rng()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use companyos_schemas::envelope::ProductEvent;

    use super::*;

    #[test]
    fn good_events_keep_the_contract_and_stay_where_their_tenant_may_be() {
        for who in [Who::Alpha, Who::Beta] {
            for _ in 0..50 {
                let mut event = product_event(who);
                // The gateway adds it.
                event["payload_hash"] = json!("");
                let event: ProductEvent = serde_json::from_value(event).unwrap();
                assert!(event.region == HOME || event.tenant == "alpha");
            }
        }
        assert!(without_feature(Who::Beta).get("feature").is_none());
    }
}
