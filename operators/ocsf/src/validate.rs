//! Checks that an event has what its OCSF class requires.

use serde_json::Value;

use crate::class;

/// What the event lacks or has wrong, by OCSF's base event and its class; empty if nothing.
pub fn validate(event: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let integer = |path: &str| at(event, path).and_then(Value::as_i64);
    for path in ["activity_id", "category_uid", "class_uid", "severity_id", "time", "type_uid"] {
        if integer(path).is_none() {
            problems.push(format!("{path}: required integer"));
        }
    }
    for path in ["metadata.version", "metadata.product.name", "metadata.product.vendor_name"] {
        text(event, path, &mut problems);
    }
    let (Some(class_uid), Some(activity)) = (integer("class_uid"), integer("activity_id")) else { return problems };
    if integer("type_uid") != Some(class_uid * 100 + activity) {
        problems.push("type_uid: must be class_uid * 100 + activity_id".to_owned());
    }
    if integer("category_uid") != Some(class_uid / 1000) {
        problems.push("category_uid: not the category of the class".to_owned());
    }
    if !matches!(integer("severity_id"), Some(0..=6 | 99)) {
        problems.push("severity_id: out of range".to_owned());
    }
    let (activities, required): (i64, &[&str]) = match class_uid {
        class::AUTHENTICATION => (6, &["user.name"]),
        class::API_ACTIVITY => (4, &["actor.user.name", "api.operation", "src_endpoint"]),
        class::ACCOUNT_CHANGE => (11, &["user.name"]),
        class::USER_ACCESS => (2, &["user.name", "privileges"]),
        class::GROUP_MANAGEMENT => (6, &["group.name"]),
        class::DETECTION_FINDING => (3, &["finding_info.title", "finding_info.uid"]),
        _ => {
            problems.push(format!("class_uid: {class_uid} is not known here"));
            return problems;
        }
    };
    if !(0..=activities).contains(&activity) && activity != 99 {
        problems.push(format!("activity_id: {activity} is not one of class {class_uid}"));
    }
    for path in required {
        match *path {
            "src_endpoint" if at(event, path).is_none_or(|v| v.as_object().is_none_or(|o| o.is_empty())) => {
                problems.push("src_endpoint: required object".to_owned());
            }
            "privileges" if at(event, path).is_none_or(|v| v.as_array().is_none_or(|a| a.is_empty())) => {
                problems.push("privileges: required array".to_owned());
            }
            "src_endpoint" | "privileges" => {}
            path => text(event, path, &mut problems),
        }
    }
    if class_uid == class::AUTHENTICATION && at(event, "service.name").is_none() && at(event, "dst_endpoint").is_none()
    {
        problems.push("service or dst_endpoint: one of them is required".to_owned());
    }
    problems
}

fn text(event: &Value, path: &str, problems: &mut Vec<String>) {
    if at(event, path).and_then(Value::as_str).is_none_or(str::is_empty) {
        problems.push(format!("{path}: required text"));
    }
}

fn at<'a>(event: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(event, |value, part| value.get(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        let mut event = serde_json::json!({
            "activity_id": 1, "category_uid": 3, "class_uid": 3002, "severity_id": 1, "time": 0, "type_uid": 300201,
            "metadata": {"version": "1.4.0", "product": {"name": "x", "vendor_name": "y"}},
            "user": {"name": "u"}, "service": {"name": "s"}
        });
        assert_eq!(validate(&event), Vec::<String>::new());
        event["type_uid"] = 1.into();
        event["user"] = serde_json::json!({});
        event["activity_id"] = 55.into();
        assert_eq!(validate(&event).len(), 3);
        assert!(!validate(&serde_json::json!({})).is_empty());
    }
}
