//! What a mixed set of records becomes, stream by stream, as a reviewed snapshot: rows and quarantine.

use std::path::Path;

use arrow::array::RecordBatch;
use companyos_operators::{DecodeConfig, DedupConfig, Record};
use companyos_schemas::Stream;

use crate::fuzz::{NOW_MS, assert_conserved, chain};

/// Columns shown of the quarantine; what it keeps of an event is [`crate::residency`]'s.
const QUARANTINE: [&str; 11] =
    ["_offset", "_index", "reason", "rule", "field", "detail", "tenant", "env", "region", "event_id", "occurred_at"];

#[test]
fn mixed_records_of_every_stream() {
    for stream in Stream::ALL {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/chain/golden/{stream}.ndjson"));
        let text = std::fs::read_to_string(path).unwrap();
        let config = DecodeConfig::default();
        let mut chain = chain(stream, config.clone(), DedupConfig::default());
        let records: Vec<Record<'_>> = text.lines().zip(0..).map(|(line, offset)| record(line, offset)).collect();
        let output = assert_conserved(&mut chain, &config, &records);

        let mut shown = String::from("routes\n");
        for (route, rows) in &output.routes {
            shown += &format!("  {} {} {}: {rows:?}\n", route.tenant, route.region, route.day);
        }
        shown += &format!("duplicates\n  {}\nrows\n", output.stats.duplicates);
        shown += &output.rows.as_ref().map(lines).unwrap_or_default();
        for (region, batch) in &output.quarantine {
            shown += &format!("quarantine of {region}\n");
            let columns = QUARANTINE.map(|name| batch.schema().index_of(name).unwrap());
            shown += &lines(&batch.project(&columns).unwrap());
        }
        insta::assert_snapshot!(stream.name(), shown);
    }
}

fn record(line: &str, offset: i64) -> Record<'_> {
    Record { offset, timestamp_ms: Some(NOW_MS), payload: Some(line.as_bytes()), ..Record::default() }
}

/// The batch as JSON lines, nulls left out.
fn lines(batch: &RecordBatch) -> String {
    let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    String::from_utf8(writer.into_inner()).unwrap().lines().map(|line| format!("  {line}\n")).collect()
}
