//! SQL expressions over a stream's rows, planned once and run over whole batches.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray, StringBuilder},
    compute::cast,
    datatypes::{DataType, Float64Type},
};
use companyos_schemas::{Stream, arrow_schema::table_schema};
use datafusion::{
    common::{DFSchema, DataFusionError, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
    },
    physical_expr::{
        PhysicalExpr,
        utils::{collect_columns, reassign_expr_columns},
    },
    prelude::{SessionConfig, SessionContext},
};
use sonic_rs::JsonValueTrait;

/// A planned expression that gives a number or a truth value for each row.
#[derive(Debug, Clone)]
pub struct RowExpr {
    sql: String,
    plan: Arc<dyn PhysicalExpr>,
}

impl RowExpr {
    /// Plans an expression over a stream's table. `boolean` asks for a truth value; else a truth
    /// value counts as 1 or 0.
    pub(crate) fn plan(stream: Stream, sql: &str, boolean: bool) -> Result<Self, String> {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        for returns in [Returns::Text, Returns::Float, Returns::Int, Returns::Bool] {
            context.register_udf(ScalarUDF::new_from_impl(JsonGet::new(returns)));
        }
        let first_line = |e: DataFusionError| e.strip_backtrace().lines().next().unwrap_or_default().to_owned();
        let table = table_schema(stream);
        let schema = DFSchema::try_from(table.as_ref().clone()).map_err(first_line)?;
        let expr: Expr = context.parse_sql_expr(sql, &schema).map_err(first_line)?;
        if expr.contains_outer() || expr.is_volatile() {
            return Err("must depend on the row alone".to_owned());
        }
        let plan = context.create_physical_expr(expr, &schema).map_err(first_line)?;
        let ty = plan.data_type(&table).map_err(first_line)?;
        match ty {
            DataType::Boolean | DataType::Null => {}
            ref ty if !boolean && ty.is_numeric() => {}
            ty => {
                let wanted = if boolean { "a truth value" } else { "a number or a truth value" };
                return Err(format!("gives {ty}, not {wanted}"));
            }
        }
        Ok(Self { sql: sql.to_owned(), plan })
    }

    /// As written.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Columns it reads.
    pub(crate) fn columns(&self) -> Vec<String> {
        collect_columns(&self.plan).into_iter().map(|c| c.name().to_owned()).collect()
    }

    /// One value a row; null where it has none. If the batch as a whole fails (a cast of one row,
    /// say), rows are taken one by one, and those that fail are null.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Result<Float64Array, DataFusionError> {
        let plan = reassign_expr_columns(Arc::clone(&self.plan), &batch.schema())?;
        if let Ok(values) = numbers(plan.as_ref(), batch) {
            return Ok(values);
        }
        Ok((0..batch.num_rows())
            .map(|row| {
                let one = numbers(plan.as_ref(), &batch.slice(row, 1)).ok()?;
                (!one.is_null(0)).then(|| one.value(0))
            })
            .collect())
    }
}

fn numbers(plan: &dyn PhysicalExpr, batch: &RecordBatch) -> Result<Float64Array, DataFusionError> {
    let values = plan.evaluate(batch)?.into_array(batch.num_rows())?;
    let values = cast(&values, &DataType::Float64)?;
    Ok(values.as_primitive::<Float64Type>().clone())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Returns {
    Text,
    Float,
    Int,
    Bool,
}

/// `json_get(text, 'a.b')`: the value at a path of member names, as text; objects and lists as JSON,
/// null for null, for no such member and for text that is not JSON. `json_get_float`, `json_get_int`
/// and `json_get_bool` give the value only if it is of that type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    returns: Returns,
    signature: Signature,
}

impl JsonGet {
    fn new(returns: Returns) -> Self {
        let text = TypeSignature::Exact(vec![DataType::Utf8, DataType::Utf8]);
        Self { returns, signature: Signature::one_of(vec![text, TypeSignature::String(2)], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        match self.returns {
            Returns::Text => "json_get",
            Returns::Float => "json_get_float",
            Returns::Int => "json_get_int",
            Returns::Bool => "json_get_bool",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(match self.returns {
            Returns::Text => DataType::Utf8,
            Returns::Float => DataType::Float64,
            Returns::Int => DataType::Int64,
            Returns::Bool => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let [json, path] = args.args.as_slice() else {
            return Err(DataFusionError::Execution(format!("{} takes two arguments", self.name())));
        };
        let ColumnarValue::Scalar(ScalarValue::Utf8(path) | ScalarValue::LargeUtf8(path) | ScalarValue::Utf8View(path)) =
            path
        else {
            return Err(DataFusionError::Execution(format!("{} takes a constant path", self.name())));
        };
        let path: Vec<&str> = path.as_deref().unwrap_or_default().split('.').collect();
        let texts = cast(&json.to_array(args.number_rows)?, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let found = texts.iter().map(|text| sonic_rs::get(text?, &path).ok());
        Ok(ColumnarValue::Array(match self.returns {
            Returns::Text => Arc::new(text_of(found)),
            Returns::Float => Arc::new(found.map(|v| v?.as_f64()).collect::<Float64Array>()),
            Returns::Int => Arc::new(found.map(|v| v?.as_i64()).collect::<arrow::array::Int64Array>()),
            Returns::Bool => Arc::new(found.map(|v| v?.as_bool()).collect::<BooleanArray>()),
        }))
    }
}

fn text_of<'a>(found: impl Iterator<Item = Option<sonic_rs::LazyValue<'a>>>) -> StringArray {
    let mut builder = StringBuilder::new();
    for value in found {
        match value {
            Some(value) if !value.is_null() => match value.as_str() {
                Some(text) => builder.append_value(text),
                None => builder.append_value(value.as_raw_str()),
            },
            _ => builder.append_null(),
        }
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch(payloads: &[Option<&str>]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("payload", DataType::Utf8, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(payloads.to_vec()))]).unwrap()
    }

    #[test]
    fn members_of_the_payload_are_read_at_any_depth_and_a_bad_row_spoils_no_other() {
        let rows = batch(&[
            Some(r#"{"status":200,"a":{"b":"x"}}"#),
            Some(r#"{"status":"oops"}"#),
            Some("not json"),
            None,
            Some(r#"{"status":503,"a":{"b":null}}"#),
        ]);
        let run = |sql: &str| {
            let expr = RowExpr::plan(Stream::ProductEvents, sql, false).unwrap();
            expr.evaluate(&rows).unwrap().iter().collect::<Vec<_>>()
        };
        let ok = [Some(1.0), None, None, None, Some(0.0)];
        assert_eq!(run("json_get_int(payload, 'status') < 500"), ok);
        assert_eq!(run("CAST(json_get(payload, 'status') AS INT) < 500"), ok);
        assert_eq!(run("json_get(payload, 'a.b') = 'x'"), [Some(1.0), None, None, None, None]);
        assert_eq!(run("CASE WHEN payload IS NULL THEN 2 ELSE 3 END"), [3.0, 3.0, 3.0, 2.0, 3.0].map(Some));
    }

    #[test]
    fn what_is_no_expression_over_the_row_is_refused_in_words() {
        let plan = |sql, boolean| RowExpr::plan(Stream::SliMetrics, sql, boolean).unwrap_err();
        assert!(plan("statos = 1", true).contains("statos"), "{}", plan("statos = 1", true));
        assert!(plan("value", true).contains("truth value"));
        assert!(plan("service", false).contains("number"));
        assert!(plan("random() < 0.5", true).contains("row alone"));
        assert!(!plan("value >", true).is_empty());
    }
}
