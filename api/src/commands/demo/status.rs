//! The status line: what came in, what is in the tables, what is on its way.

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;

use super::generator::Totals;

const EVERY: Duration = Duration::from_secs(5);

/// Prints a line every few seconds until it is dropped.
pub async fn show(metrics: PrometheusHandle, totals: Arc<Totals>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        println!("{}", line(&metrics.render(), &totals));
    }
}

fn line(metrics: &str, totals: &Totals) -> String {
    let rows = sum(metrics, "companyos_events_out_total", r#"table="product_events""#);
    let quarantined = sum(metrics, "companyos_events_out_total", r#"table="quarantine""#);
    let duplicates = sum(metrics, "companyos_duplicates_total", "");
    let sent = (totals.accepted() + totals.direct()) as f64;
    // An earlier run's leftovers may make the tables run ahead of what this one sent.
    let lag = (sent - rows - quarantined - duplicates).max(0.0);
    format!(
        "events in {sent}, refused at the gateway {}, rows {rows}, quarantined {quarantined}, lag {lag}",
        totals.refused()
    )
}

/// Sum over a metric's lines that have the label, in Prometheus' text format.
fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        // An empty f64 sum is -0.
        .fold(0.0, |sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_exporter_writes() {
        let text = "# TYPE companyos_events_out_total counter\n\
            companyos_events_out_total{table=\"product_events\",region=\"a\"} 7\n\
            companyos_events_out_total{table=\"product_events\",region=\"b\"} 5\n\
            companyos_events_out_total{table=\"quarantine\",region=\"a\"} 2\n\
            companyos_duplicates_total{pipeline=\"p\"} 1\n";
        assert_eq!(
            line(text, &Totals::default()),
            "events in 0, refused at the gateway 0, rows 12, quarantined 2, lag 0"
        );
        assert!(line("", &Totals::default()).contains("rows 0, quarantined 0"));
    }
}
