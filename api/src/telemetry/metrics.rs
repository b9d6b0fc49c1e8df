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
    metrics::describe_gauge!("process_resident_memory_bytes", metrics::Unit::Bytes, "Memory the process holds in RAM");
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
