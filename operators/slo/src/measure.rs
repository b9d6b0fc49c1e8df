//! What a row adds to an indicator: so many good events of so many.

use arrow::{
    array::{Array, AsArray, Float64Array, RecordBatch},
    datatypes::DataType,
};
use datafusion::common::DataFusionError;

use crate::{expr::RowExpr, policy::Op};

/// How an indicator is measured.
#[derive(Debug, Clone)]
pub(crate) enum Measure {
    Ratio { part: Side, bad: bool, total: Side },
    Raw { failure: bool, side: Side, weight: Option<RowExpr> },
    Threshold { op: Op, limit: f64, side: Side, weight: Option<RowExpr> },
}

/// Rows that count, and by how much: 1 without an expression.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub filter: Option<RowExpr>,
    pub value: Option<RowExpr>,
}

impl Side {
    fn exprs(&self) -> impl Iterator<Item = &RowExpr> {
        self.filter.iter().chain(self.value.iter())
    }

    fn text(&self) -> String {
        let sql = |e: &Option<RowExpr>| e.as_ref().map(|e| e.sql().to_owned()).unwrap_or_default();
        format!("[{}]{}", sql(&self.filter), sql(&self.value))
    }

    /// Nothing where a value has none; 0 where the filter does not take the row.
    fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<Taken>, DataFusionError> {
        let filter = self.filter.as_ref().map(|f| f.evaluate(batch)).transpose()?;
        let value = self.value.as_ref().map(|v| v.evaluate(batch)).transpose()?;
        let set = |a: &Option<Float64Array>, row| match a {
            Some(a) => (!a.is_null(row)).then(|| a.value(row)),
            None => Some(1.0),
        };
        Ok((0..batch.num_rows())
            .map(|row| match set(&filter, row) {
                Some(f) if f != 0.0 => set(&value, row).map_or(Taken::Bad, Taken::Counts),
                _ => Taken::Not,
            })
            .collect())
    }
}

enum Taken {
    Not,
    Bad,
    Counts(f64),
}

/// What a row adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sample {
    /// Nothing: it is not of this indicator.
    Other,
    /// Nothing: it makes no sense.
    Senseless,
    /// Events.
    Events { good: f64, total: f64 },
}

impl Measure {
    /// Columns of the stream it reads, beside those that scope and time its rows.
    pub(crate) fn columns(&self) -> Vec<String> {
        let exprs: Vec<&RowExpr> = match self {
            Self::Ratio { part, total, .. } => part.exprs().chain(total.exprs()).collect(),
            Self::Raw { side, weight, .. } | Self::Threshold { side, weight, .. } => {
                side.exprs().chain(weight.as_ref()).collect()
            }
        };
        exprs.into_iter().flat_map(RowExpr::columns).collect()
    }

    /// What tells it from other measures.
    pub(crate) fn text(&self) -> String {
        let sql = |e: &Option<RowExpr>| e.as_ref().map(|e| e.sql().to_owned()).unwrap_or_default();
        match self {
            Self::Ratio { part, bad, total } => format!("ratio {} {bad} {}", part.text(), total.text()),
            Self::Raw { failure, side, weight } => format!("raw {failure} {} {}", side.text(), sql(weight)),
            Self::Threshold { op, limit, side, weight } => {
                format!("threshold {op:?} {limit} {} {}", side.text(), sql(weight))
            }
        }
    }

    /// What each row adds.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<Sample>, DataFusionError> {
        let events = |good: f64, total: f64| match () {
            () if !good.is_finite() || !total.is_finite() || good < 0.0 || good > total => Sample::Senseless,
            () if total == 0.0 => Sample::Other,
            () => Sample::Events { good, total },
        };
        match self {
            Self::Ratio { part, bad, total } => {
                let (parts, totals) = (part.evaluate(batch)?, total.evaluate(batch)?);
                let sample = |(part, total)| match (part, total) {
                    (Taken::Bad, _) | (_, Taken::Bad) => Sample::Senseless,
                    (Taken::Not, Taken::Not) => Sample::Other,
                    (part, total) => {
                        let amount = |t| if let Taken::Counts(n) = t { n } else { 0.0 };
                        let (part, total) = (amount(part), amount(total));
                        events(if *bad { total - part } else { part }, total)
                    }
                };
                Ok(parts.into_iter().zip(totals).map(sample).collect())
            }
            Self::Raw { side, weight, .. } | Self::Threshold { side, weight, .. } => {
                let weights = match weight {
                    Some(weight) => weight.evaluate(batch)?,
                    None => cast_ones(batch.num_rows()),
                };
                let share = |value: f64| match self {
                    Self::Raw { failure: true, .. } => 1.0 - value,
                    Self::Threshold { op, limit, .. } => f64::from(op.holds(value, *limit)),
                    _ => value,
                };
                let sample = |(row, taken)| match taken {
                    Taken::Not => Sample::Other,
                    Taken::Counts(value) if f64::is_finite(value) && !weights.is_null(row) => {
                        events(share(value) * weights.value(row), weights.value(row))
                    }
                    _ => Sample::Senseless,
                };
                Ok(side.evaluate(batch)?.into_iter().enumerate().map(sample).collect())
            }
        }
    }
}

fn cast_ones(rows: usize) -> Float64Array {
    Float64Array::from(vec![1.0; rows])
}

/// A text column as plain strings, or nothing if it is not there or not text.
pub(crate) fn text_column(batch: &RecordBatch, name: &str) -> Option<arrow::array::StringArray> {
    let column = batch.column_by_name(name)?;
    let column = arrow::compute::cast(column, &DataType::Utf8).ok()?;
    Some(column.as_string::<i32>().clone())
}
