//! Views as tables for people and as JSON for scripts.

use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use companyos_pipelines::views::{Generation, View};
use companyos_sinks::storage::Storage;
use serde_json::{Value, json};

/// All views.
pub fn list(views: &BTreeMap<String, View>, as_json: bool) -> Result<ExitCode> {
    if as_json {
        let all: Vec<Value> = views.iter().map(|(name, view)| summary(name, view)).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["view", "stream", "state", "built in", "about"]);
    for (name, view) in views {
        let Some(newest) = newest(view) else { continue };
        let comment = newest.plan.options.comment.clone().unwrap_or_default();
        let built_in = if newest.built_in { "yes" } else { "" };
        table.add_row([name.as_str(), newest.plan.stream.name(), &state(view), built_in, &comment]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// One view, with where its state stands.
pub async fn one(name: &str, view: &View, storages: &HashMap<Arc<str>, Storage>, as_json: bool) -> Result<ExitCode> {
    let newest = newest(view).context("the view has no definition")?;
    let status = newest.status(storages).await?;
    let columns: Vec<Value> = newest
        .plan
        .schema
        .fields()
        .iter()
        .map(|f| json!({"name": f.name(), "type": f.data_type().to_string()}))
        .collect();
    if as_json {
        let mut value = summary(name, view);
        value["sql"] = json!(newest.sql);
        value["columns"] = json!(columns);
        value["status"] = serde_json::to_value(&status)?;
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}\n\n{name}: {}, made {}", newest.sql, state(view), newest.created_at.format("%F %T UTC"));
    println!("state table {}: {} files, {} bytes\n", newest.table, status.files, status.bytes);
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["column", "type"]);
    for field in newest.plan.schema.fields() {
        table.add_row([field.name().clone(), field.data_type().to_string()]);
    }
    println!("{table}\n");
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "region",
        "shard",
        "state written at version",
        "stream at version",
    ]);
    for part in status.parts {
        let number = |n: Option<String>| n.unwrap_or_else(|| "–".to_owned());
        table.add_row([
            part.region,
            part.shard.to_string(),
            number(part.position.map(|v| v.to_string())),
            number(part.stream_version.map(|v| v.to_string())),
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

fn newest(view: &View) -> Option<&Arc<Generation>> {
    view.next.as_ref().or(view.current.as_ref())
}

fn state(view: &View) -> String {
    match (&view.current, &view.next) {
        (Some(_), None) => "ready".to_owned(),
        (current, Some(next)) => {
            let parts = next.regions.len() * next.shards as usize;
            let word = if current.is_some() { "ready; another is being built" } else { "being built" };
            format!("{word}: {} of {parts}", next.ready.len())
        }
        (None, None) => "empty".to_owned(),
    }
}

fn summary(name: &str, view: &View) -> Value {
    let newest = newest(view);
    json!({
        "name": name,
        "stream": newest.map(|g| g.plan.stream.name()),
        "ready": view.current.is_some(),
        "building": view.next.as_ref().map(|g| json!({
            "ready_parts": g.ready.len(),
            "parts": g.regions.len() * g.shards as usize,
        })),
        "table": newest.map(|g| g.table.clone()),
        "built_in": newest.is_some_and(|g| g.built_in),
        "comment": newest.and_then(|g| g.plan.options.comment.clone()),
    })
}
