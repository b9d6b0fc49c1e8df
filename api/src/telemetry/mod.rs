//! Logs, traces, metrics and health of a process.
//!
//! Logs go to standard error: standard output belongs to results. Spans are exported by OTLP/HTTP
//! where an endpoint is configured; callers' W3C `traceparent` is honoured.

mod admin;
pub mod http;
mod metrics;
mod readiness;

use anyhow::{Context, Result};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogFormat, TelemetrySection};

pub use admin::{Admin, serve, serve_on};
pub use readiness::Readiness;

/// Keeps the exporters alive; [`Telemetry::finish`] sends what is left.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
}

impl Telemetry {
    /// Installs logging, tracing and the metrics recorder for the whole process. Once only.
    pub fn install(config: &TelemetrySection, role: &'static str) -> Result<Self> {
        let traces = tracer_provider(config, role)?;
        let exported = traces.as_ref().map(|provider| {
            // Spans of the exporter's own HTTP client would be exported by requests that make spans.
            let quiet = EnvFilter::new("info,hyper=off,reqwest=off,h2=off,opentelemetry=off");
            tracing_opentelemetry::layer().with_tracer(provider.tracer("companyos")).with_filter(quiet)
        });
        let lines = log_layer(config.log_format).with_filter(filter(&config.log_filter)?);
        tracing_subscriber::registry().with(lines).with(exported).try_init().context("logging")?;
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self { traces, metrics: metrics::install()? })
    }

    /// What /metrics shows.
    pub fn metrics(&self) -> metrics_exporter_prometheus::PrometheusHandle {
        self.metrics.clone()
    }

    /// Sends the spans that are still held. Blocks for a few seconds at most.
    pub fn finish(self) {
        if let Some(provider) = self.traces
            && let Err(error) = provider.shutdown()
        {
            eprintln!("companyos: the last spans were not exported: {error}");
        }
    }
}

/// Logging for a command that does one thing and ends: warnings only, unless RUST_LOG asks for more.
/// Kafka's troubles are in the error the command ends with.
pub fn log_warnings() {
    let filter = filter("warn,librdkafka=off").unwrap_or_else(|_| EnvFilter::new("warn"));
    // A second call finds logging installed already, which is as good.
    let _ = tracing_subscriber::registry().with(log_layer(LogFormat::Text).with_filter(filter)).try_init();
}

/// Libraries that log as errors what their callers handle: a table that is not there yet, a topic
/// that is there already, and a broker that is away (twenty times a second; librdkafka's own log says
/// it once a change), and a commit that another writer was faster with. The configured filter comes after and wins.
const LOUD: &str = "buoyant_kernel=off,deltalake_core::kernel::transaction=off,tansu_storage=off,rdkafka::client=off";

fn filter(configured: &str) -> Result<EnvFilter> {
    if std::env::var_os("RUST_LOG").is_some() {
        return EnvFilter::try_from_default_env().context("RUST_LOG");
    }
    EnvFilter::try_new(format!("{LOUD},{configured}")).context("telemetry.log_filter")
}

fn log_layer(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            layer.with_ansi(colours).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

fn tracer_provider(config: &TelemetrySection, role: &'static str) -> Result<Option<SdkTracerProvider>> {
    if config.otlp_endpoint.is_empty() {
        return Ok(None);
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(traces_url(&config.otlp_endpoint))
        .build()
        .context("telemetry.otlp_endpoint")?;
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .with_attribute(opentelemetry::KeyValue::new("companyos.role", role))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.otlp_sample_ratio)));
    let builder = SdkTracerProvider::builder().with_resource(resource).with_sampler(sampler);
    Ok(Some(builder.with_batch_exporter(exporter).build()))
}

/// The exporter wants the signal's own URL; people configure the collector's.
fn traces_url(endpoint: &str) -> String {
    match endpoint.trim_end_matches('/') {
        full if full.ends_with("/v1/traces") => full.to_owned(),
        root => format!("{root}/v1/traces"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collectors_url_and_the_signals_url_are_both_taken() {
        assert_eq!(traces_url("http://c:4318"), "http://c:4318/v1/traces");
        assert_eq!(traces_url("http://c:4318/v1/traces/"), "http://c:4318/v1/traces");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused_by_its_key() {
        if std::env::var_os("RUST_LOG").is_none() {
            assert!(format!("{:#}", filter("info,,=x=").unwrap_err()).contains("telemetry.log_filter"));
        }
    }
}
