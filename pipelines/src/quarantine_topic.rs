//! Announces quarantined events on a Kafka topic: what was refused, why and where it lies, never
//! the event itself (its payload may belong to another region than this Kafka).

use arrow::{array::RecordBatch, json::LineDelimitedWriter};
use companyos_schemas::quarantine;
use companyos_sinks::kafka::{KafkaSink, OutgoingRecord};
use tracing::warn;

use crate::epoch::EpochPart;

/// The topic and the producer to it.
#[derive(Clone)]
pub(crate) struct QuarantineTopic {
    pub topic: String,
    pub sink: KafkaSink,
}

/// Columns that may leave the table.
const ANNOUNCED: [&str; 14] = [
    "quarantine_id",
    "stream",
    "reason",
    "rule",
    "field",
    "detail",
    "tenant",
    "env",
    "region",
    "event_id",
    "_topic",
    "_partition",
    "_offset",
    "_ingested_at",
];

impl QuarantineTopic {
    /// Sends one record per quarantined row. At least once: the key is the row's id. A topic that
    /// cannot be written is reported and does not hold the table up.
    pub(crate) async fn announce(&self, parts: &[EpochPart]) {
        let mut records = Vec::new();
        for (_, batch) in parts.iter().flat_map(|p| &p.outputs).flat_map(|o| &o.quarantine) {
            match to_records(batch) {
                Ok(more) => records.extend(more),
                Err(error) => warn!(%error, "quarantined rows could not be announced"),
            }
        }
        if records.is_empty() {
            return;
        }
        if let Err(error) = self.sink.send_all(&self.topic, records).await {
            metrics::counter!("companyos_quarantine_announce_failures_total").increment(1);
            warn!(%error, "quarantined rows are stored but were not announced");
        }
    }
}

fn to_records(batch: &RecordBatch) -> Result<Vec<OutgoingRecord>, arrow::error::ArrowError> {
    let schema = quarantine::table_schema();
    let columns = ANNOUNCED.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
    let announced = batch.project(&columns)?;
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(&announced)?;
    writer.finish()?;
    let ids = arrow::array::AsArray::as_string::<i32>(announced.column(0).as_ref());
    let text = writer.into_inner();
    Ok(text
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .zip(ids.iter())
        .map(|(line, id)| OutgoingRecord {
            key: id.unwrap_or_default().to_owned(),
            payload: line.to_vec(),
            headers: vec![("content-type", "application/json".to_owned())],
        })
        .collect())
}
