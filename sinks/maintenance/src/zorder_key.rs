//! Keys along a Z-order curve: rows near each other in every chosen column get near keys.
//!
//! Each value is first replaced by its rank in a sample of the column, so that a timestamp whose
//! leading bits are the same all day weighs as much as a text that differs in its first letter.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, UInt64Array},
    datatypes::Schema,
    error::ArrowError,
    row::{OwnedRow, RowConverter, SortField},
};

/// Most columns a curve can take: each gets 16 bits of the key.
pub(crate) const MAX_COLUMNS: usize = 4;

/// Values kept of each column.
const SAMPLE: u64 = 8192;

/// Ranks of each column, out of a sample.
pub(crate) struct ZOrder {
    columns: Vec<Column>,
    stride: u64,
    seen: u64,
}

struct Column {
    name: String,
    converter: RowConverter,
    sample: Vec<OwnedRow>,
}

impl ZOrder {
    /// A curve through `columns` of rows in `schema`, of which about `rows` will be shown.
    pub fn new(schema: &Schema, columns: &[String], rows: u64) -> Result<Self, ArrowError> {
        let columns = columns
            .iter()
            .map(|name| {
                let field = SortField::new(schema.field_with_name(name)?.data_type().clone());
                Ok(Column { name: name.clone(), converter: RowConverter::new(vec![field])?, sample: Vec::new() })
            })
            .collect::<Result<Vec<_>, ArrowError>>()?;
        Ok(Self { columns, stride: (rows / SAMPLE).max(1), seen: 0 })
    }

    /// Shows rows to the sample; columns other than the curve's may be missing.
    pub fn sample(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let picked: Vec<usize> =
            (0..batch.num_rows()).filter(|row| (self.seen + *row as u64).is_multiple_of(self.stride)).collect();
        for column in &mut self.columns {
            let rows = column.converter.convert_columns(&[column_of(batch, &column.name)?])?;
            column.sample.extend(picked.iter().map(|row| rows.row(*row).owned()));
        }
        self.seen += batch.num_rows() as u64;
        Ok(())
    }

    /// Ends the sample.
    pub fn rank(&mut self) {
        for column in &mut self.columns {
            column.sample.sort_unstable();
        }
    }

    /// One key a row.
    pub fn keys(&self, batch: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let mut keys = vec![0_u64; batch.num_rows()];
        for (place, column) in self.columns.iter().enumerate() {
            let rows = column.converter.convert_columns(&[column_of(batch, &column.name)?])?;
            let most = column.sample.len().max(1) as u64;
            for (key, row) in keys.iter_mut().zip(rows.iter()) {
                let below = column.sample.partition_point(|sampled| sampled.row() < row) as u64;
                *key |= spread((below * 0x1_0000 / most).min(0xFFFF), self.columns.len(), place);
            }
        }
        Ok(Arc::new(UInt64Array::from(keys)))
    }
}

fn column_of(batch: &RecordBatch, name: &str) -> Result<ArrayRef, ArrowError> {
    batch.column_by_name(name).cloned().ok_or_else(|| ArrowError::SchemaError(format!("column {name} is missing")))
}

/// Puts the 16 bits of `rank` at every `columns`-th bit, beginning at `place`.
fn spread(rank: u64, columns: usize, place: usize) -> u64 {
    (0..16).fold(0, |key, bit| key | (((rank >> bit) & 1) << (bit * columns + place)))
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, StringArray, UInt64Array, cast::AsArray},
        datatypes::{DataType, Field, UInt64Type},
    };

    use super::*;

    fn grid() -> RecordBatch {
        // 64 texts by 64 times whose leading 50 bits are equal.
        let cells: Vec<(i64, i64)> = (0..64).flat_map(|x| (0..64).map(move |y| (x, y))).collect();
        let schema =
            Schema::new(vec![Field::new("feature", DataType::Utf8, true), Field::new("time", DataType::Int64, true)]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(StringArray::from_iter_values(cells.iter().map(|(x, _)| format!("feature-{x:02}")))),
                Arc::new(Int64Array::from_iter_values(cells.iter().map(|(_, y)| 1_700_000_000_000_000 + y))),
            ],
        )
        .unwrap()
    }

    #[test]
    fn a_sixteenth_of_the_curve_covers_a_quarter_of_each_column() {
        let batch = grid();
        let columns = ["feature".to_owned(), "time".to_owned()];
        let mut order = ZOrder::new(&batch.schema(), &columns, batch.num_rows() as u64).unwrap();
        order.sample(&batch).unwrap();
        order.rank();
        let keys = order.keys(&batch).unwrap();
        let keys: &UInt64Array = keys.as_primitive::<UInt64Type>();
        let mut rows: Vec<usize> = (0..batch.num_rows()).collect();
        rows.sort_by_key(|row| keys.value(*row));
        for chunk in rows.chunks(rows.len() / 16) {
            let spread = |of: fn(&usize) -> usize| {
                let values: Vec<usize> = chunk.iter().map(of).collect();
                values.iter().max().unwrap() - values.iter().min().unwrap() + 1
            };
            assert!(spread(|row| row / 64) <= 16 && spread(|row| row % 64) <= 16);
        }
    }
}
