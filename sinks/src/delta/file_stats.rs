//! Delta file statistics (`numRecords`, `minValues`, `maxValues`, `nullCount`) out of the Parquet
//! footer, so that readers skip files without opening them.
//!
//! Source: Delta protocol, "Per-file Statistics".

use arrow::{
    array::{Array, AsArray},
    compute::kernels::aggregate,
    datatypes::{DataType, Date32Type, Float64Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType},
};
use chrono::{DateTime, Days, NaiveDate};
use parquet::{
    arrow::arrow_reader::statistics::StatisticsConverter, errors::ParquetError, file::metadata::ParquetMetaData,
};
use serde_json::{Map, Value, json};

/// The statistics of a written file, as the JSON text of an `add` action's `stats`.
pub fn to_json(metadata: &ParquetMetaData, schema: &Schema) -> Result<String, ParquetError> {
    let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
    let parquet_schema = metadata.file_metadata().schema_descr();
    for field in schema.fields() {
        let converter = StatisticsConverter::try_new(field.name(), schema, parquet_schema)?;
        let groups = metadata.row_groups();
        let counts = converter.row_group_null_counts(groups)?;
        if counts.null_count() == 0 {
            nulls.insert(field.name().clone(), json!(aggregate::sum(&counts).unwrap_or(0)));
        }
        let mins = converter.row_group_mins(groups.iter())?;
        let maxes = converter.row_group_maxes(groups.iter())?;
        // A row group without a bound leaves the file without one, unless it holds only nulls.
        if mins.null_count() > 0 || maxes.null_count() > 0 {
            continue;
        }
        if let (Some(low), Some(high)) = (bound(&mins, Bound::Min), bound(&maxes, Bound::Max)) {
            min.insert(field.name().clone(), low);
            max.insert(field.name().clone(), high);
        }
    }
    let stats = json!({
        "numRecords": metadata.file_metadata().num_rows(),
        "minValues": min,
        "maxValues": max,
        "nullCount": nulls,
    });
    Ok(stats.to_string())
}

#[derive(Clone, Copy, PartialEq)]
enum Bound {
    Min,
    Max,
}

/// The lowest or highest value over all row groups, in the protocol's JSON form.
fn bound(values: &dyn Array, side: Bound) -> Option<Value> {
    macro_rules! pick {
        ($ty:ty) => {{
            let array = values.as_primitive::<$ty>();
            match side {
                Bound::Min => aggregate::min(array),
                Bound::Max => aggregate::max(array),
            }
        }};
    }
    match values.data_type() {
        DataType::Int32 => pick!(Int32Type).map(Value::from),
        DataType::Int64 => pick!(Int64Type).map(Value::from),
        DataType::Float64 => pick!(Float64Type).filter(|v| v.is_finite()).map(Value::from),
        DataType::Date32 => pick!(Date32Type).and_then(date).map(Value::from),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            pick!(TimestampMicrosecondType).and_then(|v| timestamp(v, side)).map(Value::from)
        }
        DataType::Utf8 => {
            let array = values.as_string::<i32>();
            match side {
                Bound::Min => aggregate::min_string(array),
                Bound::Max => aggregate::max_string(array),
            }
            .map(Value::from)
        }
        _ => None,
    }
}

/// Readers compare at millisecond precision, so an upper bound is rounded up to the next one.
fn timestamp(micros: i64, side: Bound) -> Option<String> {
    let millis = match side {
        Bound::Min => micros.div_euclid(1000),
        Bound::Max => micros.div_euclid(1000) + i64::from(micros.rem_euclid(1000) != 0),
    };
    let at = DateTime::from_timestamp_millis(millis)?;
    Some(at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

fn date(days: i32) -> Option<String> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let date = match u64::try_from(days) {
        Ok(forward) => epoch.checked_add_days(Days::new(forward))?,
        Err(_) => epoch.checked_sub_days(Days::new(u64::from(days.unsigned_abs())))?,
    };
    Some(date.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
        datatypes::Field,
    };
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn bounds_hold_over_row_groups_and_round_outwards() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("s", DataType::Utf8, true),
            Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        ]));
        let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), None).unwrap();
        for (n, s, t) in [(Some(5), "b", 1_500_i64), (None, "a", 2_001)] {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from(vec![n, Some(7)])),
                Arc::new(StringArray::from(vec![s, "c"])),
                Arc::new(TimestampMicrosecondArray::from(vec![t, 1_501]).with_timezone("UTC")),
            ];
            writer.write(&RecordBatch::try_new(schema.clone(), columns).unwrap()).unwrap();
            writer.flush().unwrap();
        }
        let metadata = writer.close().unwrap();
        assert_eq!(metadata.num_row_groups(), 2);
        let stats: Value = serde_json::from_str(&to_json(&metadata, &schema).unwrap()).unwrap();
        assert_eq!(stats["numRecords"], 4);
        assert_eq!(stats["minValues"], json!({"n": 5, "s": "a", "t": "1970-01-01T00:00:00.001Z"}));
        assert_eq!(stats["maxValues"], json!({"n": 7, "s": "c", "t": "1970-01-01T00:00:00.003Z"}));
        assert_eq!(stats["nullCount"], json!({"n": 1, "s": 0, "t": 0}));
    }
}
