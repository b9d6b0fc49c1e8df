//! Spans for records whose producer samples its traces: from the record's arrival to the commit that
//! makes it visible, as a child of the span named in its `traceparent` header.

use arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use companyos_operators::ChainOutput;
use companyos_schemas::arrow_schema::OFFSET;
use companyos_source_kafka::TopicPartition;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Most spans an epoch opens; sampled traffic beyond that is counted by metrics alone.
const MAX_SPANS: usize = 32;

/// The open spans of one partition's part of an epoch.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    open: Vec<(i64, Span)>,
}

impl Traces {
    /// Opens a span for a record if its producer sampled it and there is room.
    pub(crate) fn record(&mut self, pipeline: &str, partition: &TopicPartition, offset: i64, traceparent: &str) {
        if self.open.len() >= MAX_SPANS || !is_sampled(traceparent) {
            return;
        }
        let span = info_span!(
            "ingest",
            otel.kind = "consumer",
            trace_id = traceparent.get(3..35),
            tenant = Empty,
            pipeline,
            topic = %partition.topic,
            partition = partition.partition,
            offset,
        );
        // Refused only where no OpenTelemetry layer listens; then the span is for the log alone.
        let _ = span.set_parent(parent(traceparent));
        self.open.push((offset, span));
    }

    /// Ends the spans, naming the tenant of each record that became a row.
    pub(crate) fn committed(self, outputs: &[ChainOutput]) {
        for (offset, span) in self.open {
            if let Some(tenant) = outputs.iter().find_map(|output| tenant_of(output, offset)) {
                span.record("tenant", tenant);
            }
        }
    }
}

fn is_sampled(traceparent: &str) -> bool {
    let flags = traceparent.get(53..55).and_then(|flags| u8::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & 1 == 1)
}

fn parent(traceparent: &str) -> Context {
    struct Header<'a>(&'a str);
    impl Extractor for Header<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == "traceparent").then_some(self.0)
        }
        fn keys(&self) -> Vec<&str> {
            vec!["traceparent"]
        }
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(traceparent))
}

fn tenant_of(output: &ChainOutput, offset: i64) -> Option<&str> {
    let batch = output.rows.as_ref()?;
    let offsets = batch.column_by_name(OFFSET)?.as_primitive_opt::<Int64Type>()?;
    let row = offsets.values().iter().position(|o| *o == offset)?;
    let tenants = batch.column_by_name("tenant")?.as_string_opt::<i32>()?;
    tenants.is_valid(row).then(|| tenants.value(row))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceContextExt;

    use super::*;

    #[test]
    fn only_sampled_and_well_formed_contexts_open_spans() {
        let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_sampled(sampled));
        assert!(!is_sampled("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"));
        assert!(!is_sampled("00-zz"));
        let context = parent(sampled);
        let span = context.span();
        assert_eq!(span.span_context().trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(span.span_context().is_remote());
    }

    #[test]
    fn an_epoch_opens_a_bounded_number_of_spans() {
        let partition = TopicPartition { topic: "t".into(), partition: 0 };
        let mut traces = Traces::default();
        for offset in 0..1000 {
            traces.record("p", &partition, offset, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        }
        assert_eq!(traces.open.len(), MAX_SPANS);
    }
}
