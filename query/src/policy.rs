//! Which statements and functions are offered: reading the tables, describing them, EXPLAIN.

use datafusion::{
    common::tree_node::TreeNodeRecursion,
    execution::{FunctionRegistry, SessionState},
    logical_expr::LogicalPlan,
    prelude::SQLOptions,
    sql::{
        parser::{ExplainStatement, Statement},
        sqlparser::ast,
    },
};

use crate::error::QueryError;

/// Functions that build values of any size out of two small numbers, outside the memory budget.
const UNBOUNDED_FUNCTIONS: [&str; 9] = [
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "range",
    "generate_series",
];

/// Views of the session's settings, which name folders of this machine.
const HIDDEN_TABLES: [&str; 1] = ["df_settings"];

/// Takes away what no query may call. Table functions `range` and `generate_series` stay.
pub(crate) fn remove_functions(state: &mut SessionState) {
    for name in UNBOUNDED_FUNCTIONS {
        // An unknown name is no fault: it is not there either way.
        let _ = state.deregister_udf(name);
    }
}

/// Refuses every statement that is not a query or a description of one.
pub(crate) fn check_statement(statement: &Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(statement) => check_ast(statement),
        Statement::Explain(ExplainStatement { options, statement }) => {
            check_explain(options.analyze, options.verbose)?;
            check_statement(statement)
        }
        _ => refuse("only queries are allowed here"),
    }
}

fn check_ast(statement: &ast::Statement) -> Result<(), QueryError> {
    match statement {
        ast::Statement::Query(_)
        | ast::Statement::ShowTables { .. }
        | ast::Statement::ShowColumns { .. }
        | ast::Statement::ExplainTable { .. } => Ok(()),
        ast::Statement::Explain { analyze, verbose, statement, .. } => {
            check_explain(*analyze, *verbose)?;
            check_ast(statement)
        }
        _ => refuse("only queries are allowed here"),
    }
}

fn check_explain(analyze: bool, verbose: bool) -> Result<(), QueryError> {
    match analyze || verbose {
        true => refuse("EXPLAIN ANALYZE and EXPLAIN VERBOSE are not allowed"),
        false => Ok(()),
    }
}

/// The same again on the plan, where nothing is hidden by syntax.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<(), QueryError> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|e| QueryError::NotAllowed(e.strip_backtrace()))?;
    let mut hidden = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            hidden |= HIDDEN_TABLES.contains(&scan.table_name.table());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match hidden {
        true => refuse("settings are not readable"),
        false => Ok(()),
    }
}

fn refuse(reason: &str) -> Result<(), QueryError> {
    Err(QueryError::NotAllowed(reason.to_owned()))
}
