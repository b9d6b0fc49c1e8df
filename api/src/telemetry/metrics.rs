//! The Prometheus recorder: buckets that fit what is measured, and the process's own memory.

use std::time::Duration;

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds for everything measured in seconds: from a batch's decoding to a slow store's commit.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// How often histograms are drained; between scrapes they grow otherwise.
const UPKEEP: Duration = Duration::from_secs(5);
/// Bytes in a page of /proc's counts; 4 KiB on every Linux this runs on by default.
const PAGE: f64 = 4096.0;

/// Installs the recorder and keeps it tidy. Call within a tokio runtime.
pub fn install() -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| builder.install_recorder())
        .context("installing the metrics recorder")?;
    describe();
    metrics::gauge!("companyos_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Says what the engine's metrics mean; the gateway describes its own.
fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Memory the process holds in RAM");
    describe_gauge!("companyos_source_lag_records", "Records in Kafka that are not read yet, by topic and partition");
    describe_gauge!("companyos_checkpoint_age_seconds", Unit::Seconds, "How long the open epoch has been waiting");
    describe_counter!("companyos_events_in_total", "Events decoded, by pipeline");
    describe_counter!("companyos_bytes_in_total", Unit::Bytes, "Bytes of records read, by pipeline");
    describe_counter!("companyos_events_out_total", "Rows committed, by table and region");
    describe_counter!("companyos_bytes_out_total", Unit::Bytes, "Bytes of files committed, by table and region");
    describe_counter!("companyos_duplicates_total", "Events dropped because their id was there already");
    describe_counter!("companyos_quarantined_total", "Events refused, by pipeline and reason");
    describe_counter!("companyos_commit_failures_total", "Commits that had to be tried again, by table");
    describe_counter!("companyos_delta_fenced_total", "Commits left out because another worker had the partition");
    describe_histogram!("companyos_commit_seconds", Unit::Seconds, "From an epoch's first record to its commit");
    describe_histogram!("companyos_decode_seconds", Unit::Seconds, "Time a batch spends in the operators");
}

/// The text of /metrics, with the process's memory as of now.
pub fn render(handle: &PrometheusHandle) -> String {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    handle.render()
}

/// Resident set size; none where there is no /proc.
fn resident_bytes() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_a_process() {
        let bytes = resident_bytes().unwrap();
        assert!((1e6..1e11).contains(&bytes), "{bytes}");
    }
}
