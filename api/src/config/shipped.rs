//! deploy/companyos.toml is what people read to learn the keys: it must be complete and true.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Config;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/companyos.toml");

/// Keys of maps whose names people choose.
const CHOSEN_NAMES: [&str; 8] = [
    "tasks.topics",
    "tenancy.regions",
    "tenancy.tenants",
    "gateway.rates.tenants",
    "gateway.topics",
    "dlp.actions",
    "dlp.classifications",
    "dlp.tenants",
];

#[test]
fn it_parses_and_says_the_defaults() {
    let text = std::fs::read_to_string(SHIPPED).unwrap();
    let shipped: Config = toml::from_str(&text).unwrap();
    shipped.validate().unwrap();
    let (shipped, defaults) = (as_json(&shipped), as_json(&Config::default()));
    let mut keys = BTreeSet::new();
    collect("", &shipped, &mut keys);
    collect("", &defaults, &mut keys);
    for key in keys {
        let pointer = format!("/{}", key.replace('.', "/"));
        assert_eq!(shipped.pointer(&pointer), defaults.pointer(&pointer), "the file and the default of {key} differ");
    }
    assert_eq!(shipped, defaults);
}

#[test]
fn it_documents_every_key() {
    let text = std::fs::read_to_string(SHIPPED).unwrap();
    let written = keys_written(&text);
    let mut known = BTreeSet::new();
    collect("", &as_json(&Config::default()), &mut known);
    // Options that are none, secrets that are never written back and entries of empty lists do not
    // show in the defaults.
    known.extend(
        [
            "kafka.instance_id",
            "kafka.settings",
            "dlp.keys",
            "dlp.keys.active",
            "dlp.keys.ring",
            "quarantine.key",
            "query.spill_dir",
            "quarantine.key_file",
            "worker.pipelines_dir",
            "detect.rules",
            "access.tokens.id",
            "access.tokens.sha256",
            "access.tokens.permissions",
            "access.tokens.tenant",
            "access.tokens.envs",
            "access.tokens.regions",
            "access.tokens.expires_at",
            "pipelines.name",
            "pipelines.stream",
            "pipelines.topics",
            "pipelines.dlp",
            "maintenance.retention.rules.retention_days",
        ]
        .map(str::to_owned),
    );
    let missing: Vec<_> = known.iter().filter(|key| !written.contains(*key)).collect();
    assert!(missing.is_empty(), "deploy/companyos.toml says nothing of {missing:#?}");
}

fn as_json(config: &Config) -> Value {
    serde_json::to_value(config).unwrap()
}

fn collect(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if !map.is_empty() && !CHOSEN_NAMES.contains(&path) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(&path, value, into);
            }
        }
        // A list of tables is written with its entries, if at all.
        Value::Array(items) if items.is_empty() && ["access.tokens", "pipelines", "dlp.fields"].contains(&path) => {}
        Value::Array(items) if items.is_empty() && path == "maintenance.retention.rules" => {}
        Value::Object(_) if CHOSEN_NAMES.contains(&path) => {}
        _ => {
            into.insert(path.to_owned());
        }
    }
}

/// Every key that stands in the file, commented out or not, with the section it stands in.
fn keys_written(text: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").or_else(|| line.strip_prefix('#')).unwrap_or(line).trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_start_matches('[').split(']').next().unwrap_or_default().to_owned();
            keys.insert(section.clone());
        } else if let Some((key, _)) = line.split_once(" = ")
            && !key.contains(' ')
        {
            let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            keys.insert(path.trim_matches('"').to_owned());
        }
    }
    keys
}
