//! Release: the original goes to its topic again, with a header that names where it first came from,
//! so that the row it becomes carries both lineages.
//!
//! It is recorded once Kafka has it. A crash in between may send it twice; the duplicate filter
//! knows it by its event id.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use companyos_operators::{Sealer, WAIVER_HEADER, issue_waiver};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use super::{
    ActArgs,
    actions::{self, Deed, Verb},
    original::{self, Original},
    rows::{self, Filter, Row},
};
use crate::config::Config;

/// Header the decoder reads a row's first origin from.
const ORIGIN_HEADER: &str = "companyos-origin";
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Which rows to release, and how.
pub struct Terms {
    /// Those that were released before too.
    pub again: bool,
    /// Let each event pass the rule that refused it.
    pub waive: bool,
}

/// Releases the selected rows; ends with 1 if one could not be.
pub async fn release(config: &Config, filter: &Filter, act: &ActArgs, terms: Terms) -> Result<ExitCode> {
    let rows = rows::read(config, filter, None).await?;
    let sealer = config.quarantine.sealer()?;
    let waiving = match (terms.waive, &sealer) {
        (false, _) => None,
        (true, Some(sealer)) => Some(sealer),
        (true, None) => bail!("--waive needs quarantine.key: workers trust only waivers sealed with it"),
    };
    let producer = producer(config)?;
    let deed = Deed { verb: Verb::Release, actor: act.actor(), why: act.why.clone() };
    let (mut released, mut skipped, mut failed) = (0, 0, 0);
    for (region, storage) in rows::regions(config)? {
        let here: Vec<&Row> = rows.iter().filter(|row| row.region == region).collect();
        let ids: Vec<&str> = here.iter().map(|row| row.id.as_str()).collect();
        let before = if ids.is_empty() { Default::default() } else { actions::released(&storage, &ids).await? };
        let mut sent = Vec::new();
        for row in here {
            if before.contains(&row.id) && !terms.again {
                skipped += 1;
                continue;
            }
            if act.dry_run {
                println!("would release {} to {}", row.id, row.topic);
                continue;
            }
            let original = original::find(row, sealer.as_ref(), &config.kafka).await;
            match send(row, original, waiving, &producer).await {
                Ok(()) => {
                    println!("released {} to {}", row.id, row.topic);
                    sent.push(row);
                    released += 1;
                }
                Err(error) => {
                    eprintln!("not released {}: {error:#}", row.id);
                    failed += 1;
                }
            }
        }
        if !sent.is_empty() {
            actions::record(&storage, &deed, &sent).await?;
        }
    }
    println!("{released} released, {skipped} released before, {failed} failed");
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn send(
    row: &Row,
    original: Result<Original>,
    waiving: Option<&Sealer>,
    producer: &FutureProducer,
) -> Result<()> {
    let original = original?;
    let mut headers = OwnedHeaders::new().insert(Header { key: ORIGIN_HEADER, value: Some(row.first_origin()) });
    if let Some(sealer) = waiving {
        let rules =
            [Some(row.reason.as_str()), row.rule.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(",");
        let waiver = issue_waiver(sealer, &original.value, &rules)?;
        headers = headers.insert(Header { key: WAIVER_HEADER, value: Some(&waiver) });
    }
    for (key, value) in &original.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    // Same key as the gateway's, so that an event keeps its partition and with it its duplicate filter.
    let key = match (&row.tenant, &row.event_id) {
        (Some(tenant), Some(id)) => format!("{tenant}/{id}"),
        _ => row.id.clone(),
    };
    let record = FutureRecord::to(&row.topic).key(&key).payload(&original.value).headers(headers);
    producer.send(record, SEND_TIMEOUT).await.map_err(|(error, _)| error).context("Kafka did not take it")?;
    Ok(())
}

fn producer(config: &Config) -> Result<FutureProducer> {
    let mut settings: ClientConfig = config.kafka.source().client();
    settings.set("enable.idempotence", "true").set("acks", "all").set("message.max.bytes", "33554432");
    // As the gateway does: an event keeps its partition.
    settings.set("partitioner", "murmur2_random");
    settings.create().context("kafka")
}
