//! SQL expressions over a stream's rows, planned once and run over whole batches. Beside DataFusion's
//! own functions they have those for JSON that views and queries have too.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, Float64Array, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type},
};
use companyos_schemas::{Stream, arrow_schema::table_schema};
use datafusion::{
    common::{DFSchema, DataFusionError},
    logical_expr::Expr,
    physical_expr::{
        PhysicalExpr,
        utils::{collect_columns, reassign_expr_columns},
    },
    prelude::{SessionConfig, SessionContext},
};

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
        let first_line = |e: DataFusionError| e.strip_backtrace().lines().next().unwrap_or_default().to_owned();
        // As in views; elsewhere `payload->>'a' = 'b'` would compare first.
        let config = SessionConfig::new().set_str("datafusion.sql_parser.dialect", "PostgreSQL");
        let mut context = SessionContext::new_with_config(config.with_target_partitions(1));
        datafusion_functions_json::register_all(&mut context).map_err(first_line)?;
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
            DataType::Union(..) => {
                let functions = "json_get_bool, json_get_int, json_get_float, json_get_str or json_as_text";
                return Err(format!("gives a JSON value of any type; {functions} give one of a type"));
            }
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

#[cfg(test)]
mod tests {
    use arrow::{
        array::StringArray,
        datatypes::{Field, Schema},
    };

    use super::*;

    fn batch(payloads: &[Option<&str>]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("payload", DataType::Utf8, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(payloads.to_vec()))]).unwrap()
    }

    #[test]
    fn members_of_the_payload_are_read_at_any_depth_and_a_bad_row_spoils_no_other() {
        let rows = batch(&[
            Some(r#"{"status":200,"a":{"b":"x"},"took":1.5,"ok":true}"#),
            Some(r#"{"status":"oops","ok":"true"}"#),
            Some("not json"),
            None,
            Some(r#"{"status":503,"a":{"b":null},"took":"slow","ok":false}"#),
        ]);
        let run = |sql: &str| {
            let expr = RowExpr::plan(Stream::ProductEvents, sql, false).unwrap();
            expr.evaluate(&rows).unwrap().iter().collect::<Vec<_>>()
        };
        let ok = [Some(1.0), None, None, None, Some(0.0)];
        assert_eq!(run("json_get_int(payload, 'status') < 500"), ok);
        assert_eq!(run("CAST(json_as_text(payload, 'status') AS INT) < 500"), ok);
        assert_eq!(run("(payload->'status')::int < 500"), ok);
        let spelt = [Some(1.0), Some(1.0), None, None, Some(0.0)];
        assert_eq!(run("json_get_bool(payload, 'ok')"), spelt, "text that spells a value counts as it");
        assert_eq!(run("json_get_float(payload, 'took')"), [Some(1.5), None, None, None, None]);
        let x = [Some(1.0), None, None, None, None];
        assert_eq!(run("json_get_str(payload, 'a', 'b') = 'x'"), x);
        assert_eq!(run("payload->'a'->>'b' = 'x'"), x);
        assert_eq!(run("json_as_text(payload, 'status') = '503'"), [Some(0.0), Some(0.0), None, None, Some(1.0)]);
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
        let any = RowExpr::plan(Stream::ProductEvents, "json_get(payload, 'ok')", true).unwrap_err();
        assert!(any.contains("json_get_bool"), "{any}");
    }
}
