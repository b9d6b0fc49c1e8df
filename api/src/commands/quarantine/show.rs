//! Listing and showing rows. What is printed of an event is its masked payload, never the original.

use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use serde_json::{Value, json};

use super::{
    actions,
    rows::{self, Filter, Row},
};
use crate::config::Config;

/// `companyos quarantine list`.
pub async fn list(config: &Config, filter: &Filter, limit: usize, as_json: bool) -> Result<ExitCode> {
    let rows = rows::read(config, filter, Some(limit)).await?;
    if as_json {
        for row in &rows {
            println!("{}", describe(row));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(["id", "quarantined at", "tenant", "reason", "field", "detail"]);
    for row in &rows {
        let tenant = row.tenant.clone().unwrap_or_default();
        let field = row.field.clone().unwrap_or_default();
        table.add_row([&row.id, &time(row.ingested_at), &tenant, &row.reason, &field, &row.detail]);
    }
    println!("{table}");
    let word = if rows.len() == 1 { "row" } else { "rows" };
    println!("{} {word}{}", rows.len(), if rows.len() == limit { ", there may be more (--limit)" } else { "" });
    Ok(ExitCode::SUCCESS)
}

/// `companyos quarantine show`.
pub async fn show(config: &Config, filter: &Filter) -> Result<ExitCode> {
    let rows = rows::read(config, filter, None).await?;
    if rows.is_empty() {
        eprintln!("no such row for this tenant");
        return Ok(ExitCode::FAILURE);
    }
    for (region, storage) in rows::regions(config)? {
        for row in rows.iter().filter(|row| row.region == region) {
            let mut shown = describe(row);
            if let Value::Object(fields) = &mut shown {
                fields.insert("payload".to_owned(), json!(row.payload));
                fields.insert("actions".to_owned(), json!(actions::history(&storage, &row.id).await?));
            }
            println!("{}", serde_json::to_string_pretty(&shown)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(row: &Row) -> Value {
    json!({
        "quarantine_id": row.id,
        "quarantined_at": time(row.ingested_at),
        "kept_in": row.region,
        "stream": row.stream,
        "reason": row.reason,
        "field": row.field,
        "detail": row.detail,
        "tenant": row.tenant,
        "env": row.env,
        "region": row.claimed_region,
        "event_id": row.event_id,
        "sealed_with": row.seal_key,
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "index": row.index,
        "trace_id": row.trace_id,
        "origin": row.origin,
    })
}

fn time(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}
