//! Random events: nulls, NaN, infinities, ties, month ends, many tenants.

use std::sync::Arc;

use companyos_schemas::{Stream, arrow_schema::table_schema};
use datafusion::arrow::{
    array::{
        ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray, new_null_array,
    },
    datatypes::DataType,
};
use rand::{Rng, RngExt, rngs::StdRng};

/// 2024-02-28 22:00 UTC: a leap day, a month's end and Berlin's midnight are near.
const START: i64 = 1_709_157_600_000_000;

pub fn product_events(rng: &mut StdRng, rows: usize) -> RecordBatch {
    table(Stream::ProductEvents, rng, rows)
}

pub fn sli_metrics(rng: &mut StdRng, rows: usize) -> RecordBatch {
    table(Stream::SliMetrics, rng, rows)
}

pub fn features() -> RecordBatch {
    let text = |values: &[Option<&str>]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable([
        ("feature", text(&[Some("search"), Some("export"), Some("share")]), true),
        ("category", text(&[Some("find"), Some("data"), None]), true),
    ])
    .unwrap()
}

fn table(stream: Stream, rng: &mut StdRng, rows: usize) -> RecordBatch {
    let schema = table_schema(stream);
    let times: Vec<i64> = (0..rows)
        .map(|_| match rng.random_range(0..10) {
            // The same instant again and again: order must come from elsewhere.
            0 => START,
            1 => START + rng.random_range(-40..40) * 86_400_000_000,
            _ => START + rng.random_range(0..8 * 3600) * 1_000_000 + rng.random_range(0..3),
        })
        .collect();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        let words = |rng: &mut StdRng, words: &[&str]| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(
                (0..rows).map(|_| words[rng.random_range(0..words.len())].to_owned()),
            ))
        };
        match field.name().as_str() {
            "tenant" => words(rng, &["alpha", "beta"]),
            "env" => words(rng, &["prod", "staging"]),
            "region" => words(rng, &["eu", "us"]),
            "role" => words(rng, &["admin", "viewer", "bot"]),
            "feature" => words(rng, &["search", "export", "share", "unlisted"]),
            "service" => words(rng, &["api", "web"]),
            "sli_type" => words(rng, &["latency", "availability"]),
            "occurred_at" => Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC")),
            "day" => Arc::new(Date32Array::from_iter_values(times.iter().map(|t| t.div_euclid(86_400_000_000) as i32))),
            "_offset" => Arc::new(Int64Array::from_iter_values(0..rows as i64)),
            "_partition" | "_index" => Arc::new(Int32Array::from_iter_values((0..rows).map(|i| (i % 3) as i32))),
            "user_id" => Arc::new(StringArray::from_iter(
                (0..rows).map(|_| rng.random_bool(0.9).then(|| format!("u{}", rng.random_range(0..40)))),
            )),
            name => match field.data_type() {
                DataType::Utf8 => words(rng, &["a", "b", ""]),
                DataType::Float64 if name == "value" => {
                    Arc::new(Float64Array::from_iter_values((0..rows).map(|_| special(rng))))
                }
                DataType::Float64 if name == "objective" => Arc::new(Float64Array::from_iter_values(
                    (0..rows).map(|_| f64::from(rng.random_range(-500..500_i32)) / 4.0),
                )),
                DataType::Float64 => Arc::new(Float64Array::from_iter(
                    (0..rows).map(|_| rng.random_bool(0.7).then(|| f64::from(rng.random_range(0..1000_u32)))),
                )),
                other if field.is_nullable() => new_null_array(other, rows),
                _ => Arc::new(TimestampMicrosecondArray::from(vec![START; rows]).with_timezone("UTC")),
            },
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

fn special(rng: &mut impl Rng) -> f64 {
    match rng.random_range(0..40) {
        0 => f64::NAN,
        1 => -0.0,
        2 => 0.0,
        _ => f64::from(rng.random_range(0..100_000_u32)) / 16.0,
    }
}
