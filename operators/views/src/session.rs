//! Sessions by SQL window functions, the same for single rows and for sessions already made.

use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::{
    common::ScalarValue,
    dataframe::DataFrame,
    functions_aggregate::{min_max, sum},
    logical_expr::{
        Expr, ExprFunctionExt, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, cast,
        expr::WindowFunction, lit, when,
    },
    prelude::ident,
};

use crate::{ViewError, window::WINDOW};

const BEGINS: &str = "_session_begins";
const NUMBER: &str = "_session_number";

/// Adds the column `_window`, the start of the session each input row belongs to. Input rows are
/// themselves spans from `start` to `end`; those of one key that are no further apart than the gap
/// belong together. A column `_window` that is there already is replaced.
pub(crate) fn assign(
    frame: DataFrame,
    keys: &[String],
    start: &str,
    end: &str,
    gap_us: i64,
) -> Result<DataFrame, ViewError> {
    let by: Vec<Expr> = keys.iter().map(ident).collect();
    let order = vec![ident(start).sort(true, false), ident(end).sort(true, false)];
    let before = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
    );
    let until = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::CurrentRow,
    );
    let gap =
        lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, gap_us.saturating_mul(1000)))));
    let over = |function, arg: Expr, by: Vec<Expr>| {
        Expr::from(WindowFunction::new(WindowFunctionDefinition::AggregateUDF(function), vec![arg])).partition_by(by)
    };
    let reached =
        over(min_max::max_udaf(), ident(end), by.clone()).order_by(order.clone()).window_frame(before).build()?;
    let begins =
        when(ident(start).gt(reached.clone() + gap).or(reached.is_null()), lit(1_i64)).otherwise(lit(0_i64))?;
    let number = over(sum::sum_udaf(), ident(BEGINS), by.clone()).order_by(order).window_frame(until).build()?;
    let mut of_session = by;
    of_session.push(ident(NUMBER));
    let first = over(min_max::min_udaf(), ident(start), of_session).build()?;
    let stamp = companyos_schemas::arrow_schema::timestamp_type();
    let frame = frame
        .with_column(BEGINS, cast(begins, DataType::Int64))?
        .with_column(NUMBER, number)?
        .with_column("_session_start", cast(first, stamp))?
        .drop_columns(&[BEGINS, NUMBER])?;
    let frame = match frame.schema().has_column_with_unqualified_name(WINDOW) {
        true => frame.drop_columns(&[WINDOW])?,
        false => frame,
    };
    Ok(frame.with_column_renamed("_session_start", WINDOW)?)
}
