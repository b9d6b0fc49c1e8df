//! `array_agg_first(value, n)`: the first `n` values by time, so that a list stays bounded.
//!
//! The planner adds what orders events: `occurred_at`, then where they came from. Nulls are kept,
//! as `array_agg` keeps them.

use std::{mem::size_of_val, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        datatypes::{DataType, Field, FieldRef, Int32Type, Int64Type},
    },
    common::{ScalarValue, cast::as_list_array},
    error::{DataFusionError, Result},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
    physical_expr::expressions::Literal,
};

/// The function's name.
pub(crate) const NAME: &str = "array_agg_first";

/// Most values a list may hold.
pub(crate) const MOST: i64 = 10_000;

pub(crate) fn array_agg_first() -> AggregateUDF {
    AggregateUDF::from(ArrayAggFirst { signature: Signature::any(7, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayAggFirst {
    signature: Signature,
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

impl AggregateUDFImpl for ArrayAggFirst {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let value = arg_types.first().ok_or_else(|| DataFusionError::Plan(format!("usage: {NAME}(value, n)")))?;
        Ok(list_of(value.clone()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Arc::new(Field::new(format!("{}[values]", args.name), args.return_type().clone(), true)),
            Arc::new(Field::new(format!("{}[order]", args.name), list_of(DataType::Utf8), true)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let usage = || DataFusionError::Plan(format!("{NAME}(value, n): n is a whole number from 1 to {MOST}"));
        let cap = args.exprs.get(1).and_then(|e| e.downcast_ref::<Literal>()).ok_or_else(usage)?;
        let ScalarValue::Int64(Some(cap)) = cap.value() else { return Err(usage()) };
        if !(1..=MOST).contains(cap) {
            return Err(usage());
        }
        let DataType::List(item) = args.return_field.data_type() else { return Err(usage()) };
        Ok(Box::new(First { cap: *cap as usize, item: item.data_type().clone(), entries: Vec::new() }))
    }
}

/// Values with their order, sorted, no more than the cap.
#[derive(Debug)]
struct First {
    cap: usize,
    item: DataType,
    entries: Vec<(String, ScalarValue)>,
}

impl First {
    fn add(&mut self, order: String, value: ScalarValue) {
        if self.entries.len() == self.cap && self.entries.last().is_some_and(|(last, _)| *last <= order) {
            return;
        }
        let place = self.entries.partition_point(|(known, _)| *known < order);
        self.entries.insert(place, (order, value));
        self.entries.truncate(self.cap);
    }

    fn values(&self) -> Result<ScalarValue> {
        let values: Vec<ScalarValue> = self.entries.iter().map(|(_, value)| value.clone()).collect();
        Ok(ScalarValue::List(ScalarValue::new_list(&values, &self.item, true)))
    }
}

/// Text that sorts as the events do.
fn order_of(columns: &[ArrayRef], row: usize) -> Result<String> {
    let wrong = || DataFusionError::Internal(format!("{NAME}: unexpected order columns"));
    let [time, topic, partition, offset, index] = columns else { return Err(wrong()) };
    let time = datafusion::arrow::compute::cast(time, &DataType::Int64)?;
    let time = time.as_primitive::<Int64Type>();
    let text = datafusion::arrow::compute::cast(topic, &DataType::Utf8)?;
    let topic = text.as_string::<i32>();
    let partition = partition.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
    let offset = offset.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    let index = index.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
    // The sign bit turned, so that times before 1970 sort first.
    let time = (time.value(row) as u64) ^ (1 << 63);
    Ok(format!(
        "{time:020}/{}/{:010}/{:020}/{:010}",
        topic.value(row),
        partition.value(row),
        offset.value(row),
        index.value(row)
    ))
}

impl Accumulator for First {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (Some(column), Some(order)) = (values.first(), values.get(2..)) else { return Ok(()) };
        for row in 0..column.len() {
            self.add(order_of(order, row)?, ScalarValue::try_from_array(column, row)?);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.entries.is_empty() {
            true => ScalarValue::try_from(list_of(self.item.clone())),
            false => self.values(),
        }
    }

    fn size(&self) -> usize {
        let entries = self.entries.iter().map(|(order, value)| order.capacity() + value.size());
        size_of_val(self) + entries.sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let orders: Vec<ScalarValue> =
            self.entries.iter().map(|(order, _)| ScalarValue::Utf8(Some(order.clone()))).collect();
        Ok(vec![self.values()?, ScalarValue::List(ScalarValue::new_list(&orders, &DataType::Utf8, true))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [values, orders] = states else { return Ok(()) };
        let (values, orders) = (as_list_array(values)?, as_list_array(orders)?);
        for row in 0..values.len() {
            if values.is_null(row) || orders.is_null(row) {
                continue;
            }
            let (values, orders) = (values.value(row), orders.value(row));
            for entry in 0..values.len() {
                let order = orders.as_string::<i32>().value(entry).to_owned();
                self.add(order, ScalarValue::try_from_array(&values, entry)?);
            }
        }
        Ok(())
    }
}
