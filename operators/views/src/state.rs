//! State columns as they are stored: Delta has no unsigned integers and few time units, so values
//! of other types are kept bit by bit in one that it has.

use std::sync::Arc;

use datafusion::arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, UInt64Type},
};

use crate::ViewError;

/// Version of this mapping and of the meaning of state columns; with the engine's version it is
/// part of every state table's name.
pub(crate) const FORMAT: u32 = 1;

/// The engine whose state this is: its sketches may change between releases.
pub(crate) const ENGINE: &str = datafusion::DATAFUSION_VERSION;

/// The type a value is stored as; none if there is none.
pub(crate) fn stored_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Decimal128(..) => data_type.clone(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Int64,
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => data_type.clone(),
        DataType::Timestamp(..) | DataType::Date64 | DataType::Time64(_) | DataType::Duration(_) => DataType::Int64,
        DataType::Time32(_) => DataType::Int32,
        DataType::List(item) | DataType::LargeList(item) => {
            DataType::List(Arc::new(Field::new("element", stored_type(item.data_type())?, true)))
        }
        _ => return None,
    })
}

fn wanted(data_type: &DataType) -> Result<DataType, ViewError> {
    stored_type(data_type).ok_or_else(|| ViewError::Syntax(format!("values of type {data_type} cannot be stored")))
}

fn convert(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ViewError> {
    let converted = match (column.data_type(), to) {
        (from, to) if from == to => column.clone(),
        // Bit by bit: a cast would refuse what lies beyond the other's range.
        (DataType::UInt64, DataType::Int64) => {
            let values = column.as_primitive::<UInt64Type>();
            Arc::new(values.unary::<_, datafusion::arrow::datatypes::Int64Type>(|v| v as i64)) as ArrayRef
        }
        (DataType::Int64, DataType::UInt64) => {
            let values: &Int64Array = column.as_primitive();
            Arc::new(values.unary::<_, UInt64Type>(|v| v as u64)) as ArrayRef
        }
        _ => cast(column, to).map_err(datafusion::error::DataFusionError::from)?,
    };
    Ok(converted)
}

/// Gives a batch the wanted names and types, column by column.
pub(crate) fn retype(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ViewError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns =
        columns.map(|(column, field)| convert(column, field.data_type())).collect::<Result<Vec<_>, ViewError>>()?;
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options);
    Ok(batch.map_err(datafusion::error::DataFusionError::from)?)
}

/// Names of state columns: keys `k0`, `k1`, …; aggregates `a0_0`, `a0_1`, ….
pub(crate) fn stored_schema(partial: &Schema, names: &[String]) -> Result<SchemaRef, ViewError> {
    let fields = partial.fields().iter().zip(names).map(|(field, name)| {
        let required = ["tenant", "env", "region"].contains(&name.as_str());
        Ok(Field::new(name, wanted(field.data_type())?, !required))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>, ViewError>>()?)))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::UInt64Array;

    use super::*;

    #[test]
    fn unsigned_values_survive_storage_whole() {
        let values: ArrayRef = Arc::new(UInt64Array::from(vec![Some(0), Some(u64::MAX), None]));
        let stored = convert(&values, &DataType::Int64).unwrap();
        assert_eq!(stored.data_type(), &DataType::Int64);
        assert_eq!(&convert(&stored, &DataType::UInt64).unwrap(), &values);
    }
}
