//! View definitions: the aggregates, each window, joins, filters, HAVING, expressions.

use companyos_schemas::Stream;
use proptest::prelude::*;

/// A definition in pieces, so that the batch query can be put together another way.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub stream: Stream,
    /// Group keys with names, besides the window.
    pub keys: Vec<(String, String)>,
    pub window: Win,
    /// Aggregates with names.
    pub aggregates: Vec<(String, String)>,
    pub filter: Option<String>,
    pub having: Option<String>,
    /// `JOIN features` or `LEFT JOIN features`.
    pub join: Option<&'static str>,
    /// Largest relative difference of floats.
    pub tolerance: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Win {
    None,
    Tumble(&'static str),
    TumbleIn(&'static str, &'static str),
    /// Size and slide in minutes.
    Hop(i64, i64),
    /// Gap in minutes.
    Session(i64),
}

impl Win {
    pub fn call(self) -> Option<String> {
        match self {
            Win::None => None,
            Win::Tumble(size) => Some(format!("tumble(interval '{size}')")),
            Win::TumbleIn(size, zone) => Some(format!("tumble(interval '{size}', '{zone}')")),
            Win::Hop(size, slide) => Some(format!("hop(interval '{size} minutes', interval '{slide} minutes')")),
            Win::Session(gap) => Some(format!("session(interval '{gap} minutes')")),
        }
    }
}

impl Case {
    pub fn view(&self) -> String {
        let mut shown: Vec<String> = self.keys.iter().map(|(key, name)| format!("{key} AS {name}")).collect();
        let mut groups: Vec<String> = self.keys.iter().map(|(key, _)| key.clone()).collect();
        if let Some(call) = self.window.call() {
            shown.push(format!("{call} AS w"));
            groups.push(call);
        }
        shown.extend(self.aggregates.iter().map(|(call, name)| format!("{call} AS {name}")));
        let join = self
            .join
            .map(|j| format!(" {j} features ON {}.feature = features.feature", self.stream))
            .unwrap_or_default();
        let filter = self.filter.as_ref().map(|f| format!(" WHERE {f}")).unwrap_or_default();
        let groups = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
        let having = self.having.as_ref().map(|h| format!(" HAVING {h}")).unwrap_or_default();
        format!(
            "CREATE MATERIALIZED VIEW v AS SELECT {} FROM {}{join}{filter}{groups}{having}",
            shown.join(", "),
            self.stream
        )
    }
}

fn case(name: &str, stream: Stream, keys: &[&str], window: Win, aggregates: &[&str]) -> Case {
    Case {
        name: name.to_owned(),
        stream,
        keys: keys.iter().enumerate().map(|(i, k)| ((*k).to_owned(), format!("key{i}"))).collect(),
        window,
        aggregates: aggregates.iter().enumerate().map(|(i, a)| ((*a).to_owned(), format!("agg{i}"))).collect(),
        filter: None,
        having: None,
        join: None,
        tolerance: 1e-9,
    }
}

impl Case {
    fn filtered(mut self, filter: &str) -> Self {
        self.filter = Some(filter.to_owned());
        self
    }

    fn having(mut self, having: &str) -> Self {
        self.having = Some(having.to_owned());
        self
    }

    fn joined(mut self, join: &'static str) -> Self {
        self.join = Some(join);
        self
    }

    fn within(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }
}

const HOUR: Win = Win::Tumble("1 hour");

pub fn all() -> Vec<Case> {
    use Stream::{ProductEvents as P, SliMetrics as S};
    let mut all = vec![
        case("count of all", P, &[], Win::None, &["count(*)"]),
        case("adoption", P, &["feature", "role"], Win::Tumble("1 day"), &["count(*)", "count(DISTINCT user_id)"]),
        case(
            "active users by month",
            P,
            &[],
            Win::Tumble("1 month"),
            &["count(DISTINCT user_id)", "approx_distinct(user_id)"],
        ),
        case("months, quarters", S, &["service"], Win::Tumble("3 months"), &["sum(total)", "count(good)"]),
        case("days in Berlin", P, &["feature"], Win::TumbleIn("1 day", "Europe/Berlin"), &["count(*)"]),
        case("hours in Kolkata", S, &[], Win::TumbleIn("1 hour", "Asia/Kolkata"), &["avg(total)"]),
        case(
            "five minutes",
            S,
            &["service"],
            Win::Tumble("5 minutes"),
            &["sum(good)", "sum(total)", "sum(good) / sum(total)"],
        ),
        case("hops", P, &["feature"], Win::Hop(60, 15), &["count(*)", "count(DISTINCT user_id)"]),
        case("hops that do not overlap", S, &[], Win::Hop(30, 30), &["max(total)"]),
        case("hops of averages", S, &["service", "sli_type"], Win::Hop(120, 10), &["avg(total)", "stddev(total)"]),
        case("sessions", P, &["user_id"], Win::Session(30), &["count(*)", "max(occurred_at)"]),
        case("sessions of everybody", P, &[], Win::Session(2), &["count(DISTINCT feature)", "min(feature)"]),
        case("sessions by two keys", S, &["service", "sli_type"], Win::Session(5), &["sum(total)", "avg(total)"]),
        case("filtered sessions", P, &["user_id"], Win::Session(20), &["count(*)"]).filtered("role <> 'bot'"),
        case(
            "first and last",
            S,
            &["service"],
            HOUR,
            &["first_value(total ORDER BY occurred_at)", "last_value(total ORDER BY occurred_at)"],
        ),
        case("last by time, backwards", P, &["user_id"], Win::None, &["last_value(feature ORDER BY occurred_at DESC)"]),
        case("booleans", S, &["service"], HOUR, &["bool_and(total > 10)", "bool_or(good > 990)"]),
        case("bits", S, &["service"], HOUR, &["bit_and(cast(total AS bigint))", "bit_or(cast(total AS bigint))"]),
        case(
            "filter clauses",
            P,
            &["feature"],
            HOUR,
            &["count(*) FILTER (WHERE role = 'admin')", "count(DISTINCT user_id) FILTER (WHERE role <> 'bot')"],
        ),
        case("having", P, &["feature"], HOUR, &["count(*)"]).having("count(*) > 3 AND count(DISTINCT user_id) > 2"),
        case("having without showing", S, &["service"], HOUR, &["max(total)"]).having("min(total) < 100"),
        case(
            "expressions over aggregates",
            S,
            &["service"],
            HOUR,
            &[
                "sum(good) / nullif(sum(total), 0)",
                "CASE WHEN count(*) > 5 THEN 'many' ELSE 'few' END",
                "coalesce(max(good), -1)",
            ],
        ),
        case("expressions as keys", P, &["upper(feature)", "role = 'admin'"], Win::None, &["count(*)"]),
        case("null keys", P, &["user_id"], Win::None, &["count(*)", "count(user_id)"]),
        case(
            "nulls in sums",
            S,
            &["service"],
            HOUR,
            &["sum(good)", "avg(good)", "count(good)", "min(good)", "max(good)"],
        ),
        case("NaN", S, &["service"], HOUR, &["min(value)", "max(value)", "count(DISTINCT value)"]),
        case(
            "decimals",
            S,
            &["service"],
            HOUR,
            &[
                "sum(cast(objective AS decimal(20,4)))",
                "avg(cast(objective AS decimal(20,4)))",
                "min(cast(objective AS decimal(20,4)))",
                "sum(DISTINCT cast(objective AS decimal(20,4)))",
            ],
        ),
        case("integers", S, &["service"], Win::None, &["sum(cast(total AS bigint))", "avg(cast(total AS int))"]),
        case("sum of distinct", S, &["service"], Win::None, &["sum(DISTINCT total)"]),
        case(
            "spread",
            S,
            &["service"],
            HOUR,
            &["stddev_samp(total)", "stddev_pop(total)", "var_samp(total)", "var_pop(total)"],
        ),
        case("text extremes", P, &["role"], Win::None, &["min(user_id)", "max(user_id)"]),
        case("times", P, &["feature"], Win::None, &["min(occurred_at)", "max(occurred_at)"]),
        case("dates as keys", P, &["day"], Win::None, &["count(*)"]),
        case("capped lists", P, &["feature"], HOUR, &["array_agg_first(user_id, 5)"]),
        case("capped lists of numbers", S, &[], Win::None, &["array_agg_first(total, 3)"]),
        case("approximate distinct", P, &["feature"], Win::Tumble("1 day"), &["approx_distinct(user_id)"]),
        case(
            "percentiles",
            S,
            &["service"],
            Win::None,
            &[
                "approx_percentile_cont(objective, 0.5)",
                "approx_percentile_cont(objective, 0.9)",
                "approx_percentile_cont(objective, 0.95)",
                "approx_percentile_cont(objective, 0.99)",
            ],
        )
        .within(0.08),
        case("approximate median", S, &[], Win::None, &["approx_median(objective)"]).within(0.08),
        case("filters that nothing passes", P, &["feature"], HOUR, &["count(*)"]).filtered("role = 'nobody'"),
        case("filters on window time", P, &[], HOUR, &["count(*)"]).filtered("occurred_at >= '2024-02-29T00:00:00Z'"),
        case("keys shown twice", P, &["feature", "feature"], HOUR, &["count(*)"]),
        case("no aggregates", P, &["feature", "role"], Win::None, &[]),
        case("join", P, &["category"], HOUR, &["count(*)", "count(DISTINCT user_id)"]).joined("JOIN"),
        case("left join", P, &["category"], Win::Tumble("1 day"), &["count(*)"]).joined("LEFT JOIN"),
        case("join by mixed keys", P, &["category", "role"], Win::None, &["min(user_id)"]).joined("JOIN"),
        case("join and filter on both", P, &["category"], HOUR, &["count(*)"])
            .joined("LEFT JOIN")
            .filtered("role <> 'bot' AND category IS NOT NULL"),
        case("join with an expression", P, &["coalesce(category, role)"], Win::None, &["count(*)"]).joined("LEFT JOIN"),
        case("join of hops", P, &["category"], Win::Hop(60, 20), &["count(*)"]).joined("JOIN"),
        case("scope columns by name", P, &["tenant", "env"], HOUR, &["count(*)"]),
    ];
    for case in &mut all {
        if case.keys.iter().any(|(key, _)| key == "tenant") {
            case.keys = case.keys.iter().map(|(key, _)| (key.clone(), key.clone())).collect();
        }
    }
    all
}

/// Definitions put together by chance.
pub fn random() -> impl Strategy<Value = Case> {
    let windows = prop::sample::select(vec![
        Win::None,
        HOUR,
        Win::Tumble("1 day"),
        Win::Tumble("1 month"),
        Win::TumbleIn("1 day", "America/New_York"),
        Win::Hop(60, 20),
        Win::Session(3),
        Win::Session(45),
    ]);
    let keys = prop::sample::subsequence(vec!["service", "sli_type", "total > 500", "cast(total / 300 AS int)"], 0..3);
    let aggregates = prop::sample::subsequence(
        vec![
            "count(*)",
            "sum(total)",
            "avg(good)",
            "min(objective)",
            "max(good) FILTER (WHERE total > 100)",
            "count(DISTINCT total)",
            "stddev(objective)",
            "last_value(good ORDER BY occurred_at)",
            "array_agg_first(sli_type, 4)",
            "bool_or(good > 900)",
            "approx_distinct(sli_type)",
            "sum(cast(objective AS decimal(18,2)))",
        ],
        1..5,
    );
    let filters = prop::option::of(prop::sample::select(vec![
        "good IS NOT NULL",
        "service = 'api' OR total > 300",
        "extract(hour FROM occurred_at) < 12",
    ]));
    let havings = prop::option::weighted(0.3, prop::sample::select(vec!["count(*) > 2", "max(total) > 500"]));
    (windows, keys, aggregates, filters, havings).prop_map(|(window, keys, aggregates, filter, having)| {
        let mut case = case("random", Stream::SliMetrics, &keys, window, &aggregates);
        case.filter = filter.map(str::to_owned);
        case.having = having.map(str::to_owned);
        case
    })
}
