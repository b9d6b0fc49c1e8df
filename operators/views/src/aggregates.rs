//! Which aggregate functions a view may use: those whose state can be merged and stays bounded by
//! what is aggregated.

use std::ops::ControlFlow;

use datafusion::{
    prelude::SessionContext,
    sql::sqlparser::{
        ast::{
            self, DuplicateTreatment, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
            FunctionArguments, Ident, OrderByExpr, OrderByOptions, Query, Spanned, visit_expressions_mut,
        },
        tokenizer::Location,
    },
};

use crate::{ViewError, capped};

const ALLOWED: [&str; 24] = [
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "mean",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "var",
    "var_samp",
    "var_sample",
    "var_population",
    "var_pop",
    "first_value",
    "last_value",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "approx_distinct",
    "approx_percentile_cont",
    "approx_median",
    capped::NAME,
];

/// What makes an order total: events of the same time are told apart by where they came from.
const TIES: [&str; 4] = ["_topic", "_partition", "_offset", "_index"];

/// Refuses what cannot be split or bounded, and completes orders so that answers are determined.
pub(crate) fn check(query: &mut Query, context: &SessionContext) -> Result<(), ViewError> {
    let flow = visit_expressions_mut(query, |expr| {
        let ast::Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        match check_function(function, context) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    });
    match flow {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn check_function(function: &mut Function, context: &SessionContext) -> Result<(), ViewError> {
    let name = function.name.to_string().to_ascii_lowercase();
    let at = function.name.span().start;
    if function.over.is_some() {
        return Err(ViewError::refused(at, format!("{name}(…) OVER: window functions need all rows at once")));
    }
    if !context.state().aggregate_functions().contains_key(&name) {
        return Ok(());
    }
    if !ALLOWED.contains(&name.as_str()) {
        return Err(ViewError::refused(at, refusal(&name)));
    }
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    if distinct && !matches!(name.as_str(), "count" | "sum" | "min" | "max" | "bool_and" | "bool_or") {
        return Err(ViewError::refused(at, format!("{name}(DISTINCT …) cannot be merged; use count or sum")));
    }
    let order = list.clauses.iter_mut().find_map(|clause| match clause {
        FunctionArgumentClause::OrderBy(order) => Some(order),
        _ => None,
    });
    match (name.as_str(), order) {
        ("first_value" | "last_value", Some(order)) => {
            order.extend(TIES.map(|tie| OrderByExpr {
                expr: ast::Expr::Identifier(Ident::new(tie)),
                options: OrderByOptions::default(),
                with_fill: None,
            }));
        }
        ("first_value" | "last_value", None) => {
            let reason = format!("{name} needs an order, such as {name}(x ORDER BY occurred_at)");
            return Err(ViewError::refused(at, reason));
        }
        (capped::NAME, None) => {
            let cap = list.args.get(1).and_then(|arg| arg.to_string().parse::<i64>().ok());
            if list.args.len() != 2 || !cap.is_some_and(|cap| (1..=capped::MOST).contains(&cap)) {
                let reason = format!("usage: {name}(value, n), n a whole number from 1 to {}", capped::MOST);
                return Err(ViewError::refused(at, reason));
            }
            for hidden in ["occurred_at"].into_iter().chain(TIES) {
                list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Identifier(Ident::new(hidden)))));
            }
        }
        (capped::NAME, Some(_)) => {
            return Err(ViewError::refused(at, format!("{name} is ordered by occurred_at; leave ORDER BY out")));
        }
        _ => {}
    }
    no_limit(&list.clauses, at)
}

fn no_limit(clauses: &[FunctionArgumentClause], at: Location) -> Result<(), ViewError> {
    match clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::Limit(_))) {
        true => Err(ViewError::refused(at, "LIMIT inside an aggregate is not supported")),
        false => Ok(()),
    }
}

fn refusal(name: &str) -> String {
    match name {
        "array_agg" | "string_agg" => {
            format!("{name} grows without bound; use {}(x, 100): the first 100 values by occurred_at", capped::NAME)
        }
        "median" | "percentile_cont" | "quantile_cont" => {
            format!("{name} has to keep every value; use approx_percentile_cont")
        }
        _ => format!("{name} is not among the aggregates whose state can be kept: {}", ALLOWED.join(", ")),
    }
}
