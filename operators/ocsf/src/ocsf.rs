//! The cold road: a row as one OCSF event, for findings and exports.
//!
//! Nothing is lost: a value that was copied to an attribute is there, everything else of the
//! record is under `unmapped`, in the record's own shape. What the class requires and the record
//! does not have is there as `unknown`.

use serde_json::{Map, Number, Value, json};

use crate::{
    OcsfError, SignalRow, SourceKind, class,
    columns::Plan,
    extract::scan,
    mapping::{self, COMPUTED, Fields, computed, is_boolean, is_float, is_integer},
    scan::Slots,
};

/// Writes a row as an OCSF event. Text that is not JSON is kept as it is, in `raw_data` or under
/// `unmapped`.
pub fn to_ocsf(row: &SignalRow<'_>) -> Result<Value, OcsfError> {
    let kind = SourceKind::of(row.source);
    let mapper = mapping::mapper(kind);
    let mut plan = Plan::new(kind);
    mapper.attrs.iter().for_each(|attr| plan.want_attr(&attr.from));
    let (mut payload, mut evidence) = (Slots::new(0), Slots::new(0));
    scan(row, &plan, &mut payload, &mut evidence);
    let fields = Fields::new(kind, row, &plan, &payload, &evidence);
    let class_uid = (mapper.classify)(&fields).0;

    let mut event = Value::Object(Map::new());
    let mut rest = Rest { payload: parse(row.payload), evidence: parse(row.evidence) };
    for attr in mapper.attrs {
        if has(&event, attr.name) {
            continue;
        }
        let Some((value, copied_from)) = mapping::value(attr, class_uid, &fields) else { continue };
        let Some(typed) = typed(attr.name, &value) else { continue };
        let copied = copied_from.filter(|path| !path.starts_with('$') && !path.starts_with("sshd."));
        let same = plain(&typed) == value;
        set(&mut event, attr.name, typed);
        if let Some(path) = copied
            && same
        {
            rest.drop_leaf(path, &value);
        }
    }
    for name in COMPUTED {
        if let Some(value) = computed(name, kind, &fields)
            && let Some(typed) = typed(name, &value)
        {
            set(&mut event, name, typed);
        }
    }
    fill_required(&mut event, class_uid, row);
    let unmapped = rest.into_unmapped(row);
    if let Some(raw) = row.payload.filter(|text| serde_json::from_str::<Value>(text).is_err()) {
        set(&mut event, "raw_data", raw.into());
    }
    set(&mut event, "unmapped", unmapped);
    Ok(event)
}

/// The record less what was copied.
struct Rest {
    payload: Option<Value>,
    evidence: Option<Value>,
}

impl Rest {
    /// Drops a leaf that an attribute now holds. Several attributes may share one leaf.
    fn drop_leaf(&mut self, path: &str, value: &str) {
        let parts: Vec<&str> =
            path.split(['.', '[']).map(|p| p.trim_end_matches(']')).filter(|p| !p.is_empty()).collect();
        let _ = [&mut self.payload, &mut self.evidence].into_iter().flatten().any(|record| {
            remove(record, &parts, value) || record.get_mut("_unknown").is_some_and(|u| remove(u, &parts, value))
        });
        if parts.is_empty() && self.payload.as_ref().is_some_and(|p| p.as_str() == Some(value)) {
            self.payload = None;
        }
    }

    fn into_unmapped(self, row: &SignalRow<'_>) -> Value {
        let mut platform = json!({
            "event_id": row.event_id, "occurred_at_micros": row.occurred_at, "actor": row.actor,
            "signal_type": row.signal_type, "region": row.region, "env": row.env,
        });
        let optional = [
            ("source", row.source.map(Value::from)),
            ("nonce", row.nonce.map(Value::from)),
            ("class_uid", row.class_uid.map(Value::from)),
            ("lineage", parse(row.lineage)),
            ("dlp_rules", row.dlp_rules.map(Value::from)),
        ];
        for (name, value) in optional {
            if let (Some(value), Some(object)) = (value, platform.as_object_mut()) {
                object.insert(name.to_owned(), value);
            }
        }
        let (record, other) = match self.payload {
            Some(payload) if !payload.is_null() => (Some(payload), self.evidence),
            _ => (self.evidence, None),
        };
        let mut unmapped = match record {
            Some(Value::Object(object)) if !object.contains_key("_evidence") && !object.contains_key("_companyos") => {
                object
            }
            Some(Value::Null) | None => Map::new(),
            Some(other) => Map::from_iter([("_record".to_owned(), other)]),
        };
        if let Some(other) = other.filter(|o| !o.is_null() && o.as_object().is_none_or(|o| !o.is_empty())) {
            unmapped.insert("_evidence".to_owned(), other);
        }
        unmapped.insert("_companyos".to_owned(), platform);
        Value::Object(unmapped)
    }
}

/// Removes a leaf of this value, and the objects it leaves empty; keys may hold dots. Elements of
/// arrays stay, so that positions keep their meaning.
fn remove(value: &mut Value, parts: &[&str], expected: &str) -> bool {
    let Value::Object(object) = value else { return false };
    for taken in 1..=parts.len() {
        let key = parts[..taken].join(".");
        let rest = &parts[taken..];
        let Some(child) = object.get_mut(&key) else { continue };
        if rest.is_empty() {
            if !child.is_object() && !child.is_array() && !child.is_null() && plain(child) == expected {
                object.remove(&key);
                return true;
            }
        } else if remove(child, rest, expected) {
            if child.as_object().is_some_and(Map::is_empty) {
                object.remove(&key);
            }
            return true;
        }
    }
    false
}

/// A leaf as the scan gives it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// JSON, or the text itself if it is not JSON.
fn parse(text: Option<&str>) -> Option<Value> {
    text.map(|text| serde_json::from_str(text).unwrap_or_else(|_| text.into()))
}

fn typed(name: &str, value: &str) -> Option<Value> {
    if is_integer(name) {
        return value.parse::<i64>().ok().map(Value::from);
    }
    if is_boolean(name) {
        return value.to_ascii_lowercase().parse::<bool>().ok().map(Value::from);
    }
    if is_float(name) {
        return value.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number);
    }
    Some(value.into())
}

fn has(event: &Value, path: &str) -> bool {
    path.split('.')
        .try_fold(event, |at, part| match part.strip_suffix("[]") {
            Some(part) => at.get(part)?.get(0),
            None => at.get(part),
        })
        .is_some()
}

/// Sets an attribute, making the objects and one-element arrays on the way.
fn set(event: &mut Value, path: &str, value: Value) {
    let mut at = event;
    for part in path.split('.') {
        let (key, array) = match part.strip_suffix("[]") {
            Some(key) => (key, true),
            None => (part, false),
        };
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(object) = at else { return };
        at = object.entry(key).or_insert(Value::Null);
        if array {
            if !at.is_array() {
                *at = Value::Array(vec![Value::Null]);
            }
            let Some(first) = at.get_mut(0) else { return };
            at = first;
        }
    }
    *at = value;
}

fn fill_required(event: &mut Value, class_uid: i64, row: &SignalRow<'_>) {
    let required: &[&str] = match class_uid {
        class::AUTHENTICATION => &["user.name", "service.name"],
        class::ACCOUNT_CHANGE => &["user.name"],
        class::USER_ACCESS => &["user.name", "privileges[]"],
        class::GROUP_MANAGEMENT => &["group.name"],
        class::API_ACTIVITY => &["actor.user.name", "api.operation"],
        _ => &["finding_info.title", "finding_info.uid"],
    };
    for path in required {
        if !has(event, path) {
            let value = match *path {
                "finding_info.uid" if !row.event_id.is_empty() => row.event_id,
                "finding_info.title" | "api.operation" if !row.signal_type.is_empty() => row.signal_type,
                "actor.user.name" if !row.actor.is_empty() => row.actor,
                _ => "unknown",
            };
            set(event, path, value.into());
        }
    }
    if class_uid == class::API_ACTIVITY && !has(event, "src_endpoint") {
        set(event, "src_endpoint.name", "unknown".into());
    }
}
