//! Windows: `tumble(size [, time zone])`, `hop(size, slide)`, `session(gap)` in GROUP BY.
//!
//! In the statement a window stands for its start. While planning it is the column [`WINDOW`].
//! Windows are half open, and lie on UTC boundaries counted from 1970-01-01 (months from January),
//! or on those of local time if a time zone is named; then the start is a local time without zone.
//! A session ends with its last event; two events belong to one session if they are no further
//! apart than the gap.

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::{
    common::ScalarValue,
    logical_expr::{Expr, cast, lit},
    prelude::{SessionContext, col},
    sql::sqlparser::{
        ast::{
            self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Spanned, Value,
            visit_expressions_mut,
        },
        tokenizer::Location,
    },
};

use crate::ViewError;

/// Column that stands for the window's start while planning, and in state.
pub(crate) const WINDOW: &str = "_window";

/// How rows are grouped by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Window {
    /// Adjoining windows of one size.
    Tumble {
        /// Length.
        size: IntervalMonthDayNano,
        /// IANA name of the time zone whose boundaries count; UTC if none.
        zone: Option<String>,
    },
    /// Windows that overlap; size is a multiple of slide.
    Hop {
        /// Slide in microseconds: the panes that are kept.
        slide_us: i64,
        /// Panes in a window.
        panes: i64,
    },
    /// Activity without a longer pause.
    Session {
        /// Longest pause in microseconds.
        gap_us: i64,
    },
}

impl Window {
    /// Takes the window function out of a query, leaving the column in its place.
    pub(crate) fn extract(query: &mut Query) -> Result<Option<Window>, ViewError> {
        let mut found: Option<Window> = None;
        let flow = visit_expressions_mut(query, |expr| {
            let ast::Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            let name = function.name.to_string().to_ascii_lowercase();
            if !matches!(name.as_str(), "tumble" | "hop" | "session") {
                return ControlFlow::Continue(());
            }
            let at = function.name.span().start;
            let window = match read(&name, function, at) {
                Ok(window) => window,
                Err(error) => return ControlFlow::Break(error),
            };
            if found.as_ref().is_some_and(|first| *first != window) {
                let reason = "a view has one window; every mention of it must be the same";
                return ControlFlow::Break(ViewError::refused(at, reason));
            }
            found = Some(window);
            *expr = ast::Expr::Identifier(Ident::new(WINDOW));
            ControlFlow::Continue(())
        });
        match flow {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(found),
        }
    }

    /// Type of the window's start.
    pub(crate) fn start_type(&self) -> DataType {
        match self {
            Window::Tumble { zone: Some(_), .. } => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => companyos_schemas::arrow_schema::timestamp_type(),
        }
    }

    /// Start of the pane a row belongs to; none for sessions, which depend on other rows.
    pub(crate) fn pane(&self, context: &SessionContext) -> Result<Option<Expr>, ViewError> {
        let (size, time) = match self {
            Window::Session { .. } => return Ok(None),
            Window::Tumble { size, zone: None } => (*size, col("occurred_at")),
            Window::Tumble { size, zone: Some(zone) } => {
                let local = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.as_str().into()));
                let to_local = context.state().scalar_functions().get("to_local_time").cloned();
                let to_local = to_local
                    .ok_or_else(|| ViewError::Syntax("time zones are not available in this build".to_owned()))?;
                (*size, to_local.call(vec![cast(col("occurred_at"), local)]))
            }
            Window::Hop { slide_us, .. } => {
                (IntervalMonthDayNano::new(0, 0, slide_us.saturating_mul(1000)), col("occurred_at"))
            }
        };
        let bin = context.state().scalar_functions().get("date_bin").cloned();
        let bin = bin.ok_or_else(|| ViewError::Syntax("date_bin is not available in this build".to_owned()))?;
        let size = lit(ScalarValue::IntervalMonthDayNano(Some(size)));
        Ok(Some(cast(bin.call(vec![size, time]), self.start_type())))
    }
}

fn read(name: &str, function: &Function, at: Location) -> Result<Window, ViewError> {
    let arguments = arguments(function, at)?;
    let bad = |usage: &str| ViewError::refused(at, format!("usage: {usage}"));
    match (name, arguments.as_slice()) {
        ("tumble", [size, rest @ ..]) if rest.len() <= 1 => {
            let size = interval(size, at)?;
            let zone = match rest {
                [] => None,
                [zone, ..] => Some(zone_name(zone, at)?),
            };
            Ok(Window::Tumble { size, zone })
        }
        ("hop", [size, slide]) => {
            let size = fixed_us(interval(size, at)?, at)?;
            let slide_us = fixed_us(interval(slide, at)?, at)?;
            if size % slide_us != 0 || size / slide_us > 1440 {
                let reason = "hop(size, slide): the size must be a multiple of the slide, at most 1440 times it";
                return Err(ViewError::refused(at, reason));
            }
            Ok(Window::Hop { slide_us, panes: size / slide_us })
        }
        ("session", [gap]) => Ok(Window::Session { gap_us: fixed_us(interval(gap, at)?, at)? }),
        ("tumble", _) => Err(bad("tumble(interval '1 hour' [, 'Europe/Berlin'])")),
        ("hop", _) => Err(bad("hop(interval '1 hour', interval '5 minutes'): size, then slide")),
        _ => Err(bad("session(interval '30 minutes')")),
    }
}

fn arguments(function: &Function, at: Location) -> Result<Vec<ast::Expr>, ViewError> {
    let FunctionArguments::List(list) = &function.args else { return Ok(Vec::new()) };
    list.args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
            other => Err(ViewError::refused(at, format!("unexpected argument {other}"))),
        })
        .collect()
}

fn interval(expr: &ast::Expr, at: Location) -> Result<IntervalMonthDayNano, ViewError> {
    let text = match expr {
        ast::Expr::Interval(interval) => {
            let ast::Expr::Value(value) = interval.value.as_ref() else {
                return Err(ViewError::refused(at, "the interval must be a literal"));
            };
            let unit = interval.leading_field.as_ref().map(|f| f.to_string()).unwrap_or_default();
            match &value.value {
                Value::SingleQuotedString(text) => format!("{text} {unit}"),
                other => format!("{other} {unit}"),
            }
        }
        _ => return Err(ViewError::refused(at, "a window's length is written interval '1 hour'")),
    };
    let parsed = datafusion::arrow::compute::kernels::cast_utils::parse_interval_month_day_nano(text.trim())
        .map_err(|e| ViewError::refused(at, format!("interval {text:?}: {e}")))?;
    let positive = parsed.months >= 0 && parsed.days >= 0 && parsed.nanoseconds >= 0;
    let mixed = parsed.months > 0 && (parsed.days > 0 || parsed.nanoseconds > 0);
    if !positive || mixed || parsed.nanoseconds % 1000 != 0 || parsed == IntervalMonthDayNano::new(0, 0, 0) {
        let reason = "a window's length is positive, whole microseconds, and either months or days and time";
        return Err(ViewError::refused(at, reason));
    }
    Ok(parsed)
}

fn fixed_us(interval: IntervalMonthDayNano, at: Location) -> Result<i64, ViewError> {
    if interval.months != 0 {
        return Err(ViewError::refused(at, "months differ in length: only tumble can use them"));
    }
    Ok(i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1000)
}

fn zone_name(expr: &ast::Expr, at: Location) -> Result<String, ViewError> {
    let name = match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(name) => name.clone(),
            other => return Err(ViewError::refused(at, format!("time zone {other} is no text"))),
        },
        other => return Err(ViewError::refused(at, format!("time zone {other} is no literal"))),
    };
    match name.parse::<datafusion::arrow::array::timezone::Tz>() {
        Ok(_) => Ok(name),
        Err(_) => Err(ViewError::refused(at, format!("unknown time zone {name:?}"))),
    }
}
