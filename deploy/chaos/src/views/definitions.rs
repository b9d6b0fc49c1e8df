//! The views of a run, and for each the same answer asked of the stream's table another way.

/// A view and its batch query. Both give the same columns; rows are told apart by those that are not
/// `near`.
pub(crate) struct View {
    pub(crate) name: &'static str,
    /// The statement; none for what comes with the product.
    pub(crate) create: Option<&'static str>,
    pub(crate) columns: &'static str,
    pub(crate) batch: &'static str,
    /// Columns that may be off by this share: sketches by 2 %, sums of floats by rounding.
    pub(crate) near: &'static [(&'static str, f64)],
}

const SKETCH: f64 = 0.02;
const ROUNDING: f64 = 1e-9;

/// Made before the first event.
pub(crate) const OWN: [View; 5] = [
    View {
        name: "chaos_hourly",
        create: Some(
            "CREATE MATERIALIZED VIEW chaos_hourly AS \
             SELECT tumble(interval '1 hour') AS hour, feature, count(*) AS events, count(DISTINCT user_id) AS users, \
             count(*) FILTER (WHERE role = 'admin') AS admins, min(occurred_at) AS oldest, max(occurred_at) AS newest \
             FROM product_events GROUP BY tumble(interval '1 hour'), feature",
        ),
        columns: "tenant, env, region, hour, feature, events, users, admins, oldest, newest",
        batch: "SELECT tenant, env, region, date_bin(interval '1 hour', occurred_at) AS hour, feature, \
                count(*) AS events, count(DISTINCT user_id) AS users, \
                sum(CASE WHEN role = 'admin' THEN 1 ELSE 0 END) AS admins, min(occurred_at) AS oldest, \
                max(occurred_at) AS newest FROM product_events GROUP BY 1, 2, 3, 4, 5",
        near: &[],
    },
    View {
        name: "chaos_hops",
        create: Some(
            "CREATE MATERIALIZED VIEW chaos_hops AS \
             SELECT hop(interval '30 minutes', interval '10 minutes') AS start, role, count(*) AS events, \
             sum(json_get_int(payload, 'n')) AS total \
             FROM product_events GROUP BY hop(interval '30 minutes', interval '10 minutes'), role",
        ),
        columns: "tenant, env, region, start, role, events, total",
        batch: "SELECT tenant, env, region, date_bin(interval '10 minutes', occurred_at) - back AS start, role, \
                count(*) AS events, sum(json_get_int(payload, 'n')) AS total FROM product_events \
                CROSS JOIN (VALUES (interval '0 minutes'), (interval '10 minutes'), (interval '20 minutes')) AS w(back) \
                GROUP BY 1, 2, 3, 4, 5",
        near: &[],
    },
    View {
        name: "chaos_sessions",
        create: Some(
            "CREATE MATERIALIZED VIEW chaos_sessions AS \
             SELECT user_id, session(interval '10 minutes') AS began, count(*) AS events, max(occurred_at) AS ended \
             FROM product_events WHERE user_id IS NOT NULL GROUP BY user_id, session(interval '10 minutes')",
        ),
        columns: "tenant, env, region, user_id, began, events, ended",
        batch: "SELECT tenant, env, region, user_id, min(occurred_at) AS began, count(*) AS events, \
                max(occurred_at) AS ended FROM (SELECT *, sum(begins) OVER (PARTITION BY tenant, env, region, user_id \
                ORDER BY occurred_at ROWS UNBOUNDED PRECEDING) AS number FROM (SELECT *, CASE WHEN occurred_at - \
                lag(occurred_at) OVER (PARTITION BY tenant, env, region, user_id ORDER BY occurred_at) \
                <= interval '10 minutes' THEN 0 ELSE 1 END AS begins FROM product_events WHERE user_id IS NOT NULL)) \
                GROUP BY tenant, env, region, user_id, number",
        near: &[],
    },
    View {
        name: "chaos_latency",
        create: Some(
            "CREATE MATERIALIZED VIEW chaos_latency AS \
             SELECT feature, count(*) AS events, approx_distinct(user_id) AS users, \
             approx_percentile_cont(json_get_float(payload, 'ms'), 0.5) AS p50, \
             approx_percentile_cont(json_get_float(payload, 'ms'), 0.95) AS p95 \
             FROM product_events GROUP BY feature",
        ),
        columns: "tenant, env, region, feature, events, users, p50, p95",
        batch: "SELECT tenant, env, region, feature, count(*) AS events, count(DISTINCT user_id) AS users, \
                percentile_cont(0.5) WITHIN GROUP (ORDER BY json_get_float(payload, 'ms')) AS p50, \
                percentile_cont(0.95) WITHIN GROUP (ORDER BY json_get_float(payload, 'ms')) AS p95 \
                FROM product_events GROUP BY tenant, env, region, feature",
        near: &[("users", SKETCH), ("p50", SKETCH), ("p95", SKETCH)],
    },
    View {
        name: "chaos_berlin",
        create: Some(
            "CREATE MATERIALIZED VIEW chaos_berlin AS \
             SELECT tumble(interval '1 day', 'Europe/Berlin') AS day, count(*) AS events, count(DISTINCT role) AS roles \
             FROM product_events GROUP BY tumble(interval '1 day', 'Europe/Berlin')",
        ),
        columns: "tenant, env, region, day, events, roles",
        batch: "SELECT tenant, env, region, date_bin(interval '1 day', to_local_time(arrow_cast(occurred_at, \
                'Timestamp(Microsecond, Some(\"Europe/Berlin\"))'))) AS day, count(*) AS events, \
                count(DISTINCT role) AS roles FROM product_events GROUP BY 1, 2, 3, 4",
        near: &[],
    },
];

/// Made while events arrive: it takes the history in and goes on from there.
pub(crate) const LATER: View = View {
    name: "chaos_quality",
    create: Some(
        "CREATE MATERIALIZED VIEW chaos_quality AS \
         SELECT feature, role, count(*) AS events, count(*) FILTER (WHERE json_get_bool(payload, 'ok')) AS good, \
         avg(json_get_float(payload, 'ms')) AS mean, stddev(json_get_float(payload, 'ms')) AS spread, \
         last_value(event_id ORDER BY occurred_at) AS newest, count(DISTINCT user_id) AS users \
         FROM product_events WHERE role <> 'viewer' GROUP BY feature, role HAVING count(*) > 3",
    ),
    columns: "tenant, env, region, feature, role, events, good, mean, spread, newest, users",
    batch: "SELECT tenant, env, region, feature, role, count(*) AS events, \
            sum(CASE WHEN json_get_bool(payload, 'ok') THEN 1 ELSE 0 END) AS good, \
            sum(json_get_float(payload, 'ms')) / count(*) AS mean, stddev(json_get_float(payload, 'ms')) AS spread, \
            last_value(event_id ORDER BY occurred_at, _topic, _partition, _offset, _index) AS newest, \
            count(DISTINCT user_id) AS users FROM product_events WHERE role IN ('admin', 'editor') \
            GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 3",
    near: &[("mean", ROUNDING), ("spread", 1e-6)],
};

/// What comes with the product.
pub(crate) const BUILT_IN: [View; 10] = [
    View {
        name: "feature_adoption",
        create: None,
        columns: "tenant, env, region, day, feature, role, events, users, first_used, last_used",
        batch: "SELECT tenant, env, region, date_trunc('day', occurred_at) AS day, feature, role, count(*) AS events, \
                count(DISTINCT user_id) AS users, min(occurred_at) AS first_used, max(occurred_at) AS last_used \
                FROM product_events GROUP BY 1, 2, 3, 4, 5, 6",
        near: &[],
    },
    View {
        name: "daily_active_users",
        create: None,
        columns: "tenant, env, region, day, users, events",
        batch: "SELECT tenant, env, region, date_trunc('day', occurred_at) AS day, count(DISTINCT user_id) AS users, \
                count(*) AS events FROM product_events GROUP BY 1, 2, 3, 4",
        near: &[],
    },
    View {
        name: "weekly_active_users",
        create: None,
        columns: "tenant, env, region, week, users, events",
        batch: "SELECT tenant, env, region, date_bin(interval '7 days', occurred_at) AS week, \
                count(DISTINCT user_id) AS users, count(*) AS events FROM product_events GROUP BY 1, 2, 3, 4",
        near: &[],
    },
    View {
        name: "monthly_active_users",
        create: None,
        columns: "tenant, env, region, month, users, events",
        batch: "SELECT tenant, env, region, date_trunc('month', occurred_at) AS month, \
                count(DISTINCT user_id) AS users, count(*) AS events FROM product_events GROUP BY 1, 2, 3, 4",
        near: &[],
    },
    View {
        name: "user_activity",
        create: None,
        columns: "tenant, env, region, user_id, day, events",
        batch: "SELECT tenant, env, region, user_id, date_trunc('day', occurred_at) AS day, count(*) AS events \
                FROM product_events WHERE user_id IS NOT NULL GROUP BY 1, 2, 3, 4, 5",
        near: &[],
    },
    View {
        name: "user_months",
        create: None,
        columns: "tenant, env, region, user_id, month, events",
        batch: "SELECT tenant, env, region, user_id, date_trunc('month', occurred_at) AS month, count(*) AS events \
                FROM product_events WHERE user_id IS NOT NULL GROUP BY 1, 2, 3, 4, 5",
        near: &[],
    },
    View {
        name: "event_volume",
        create: None,
        columns: "tenant, env, region, minute, events, newest_ingested, mean_lag_seconds",
        batch: "SELECT tenant, env, region, date_trunc('minute', occurred_at) AS minute, count(*) AS events, \
                max(_ingested_at) AS newest_ingested, sum(cast(arrow_cast(_ingested_at, 'Int64') - \
                arrow_cast(occurred_at, 'Int64') AS double)) / 1000000.0 / count(*) AS mean_lag_seconds \
                FROM product_events GROUP BY 1, 2, 3, 4",
        near: &[("mean_lag_seconds", ROUNDING)],
    },
    View {
        name: "service_uptime",
        create: None,
        columns: "tenant, env, region, service, slot, good, total, uptime",
        batch: "SELECT *, good / total AS uptime FROM (SELECT tenant, env, region, service, \
                date_bin(interval '5 minutes', occurred_at) AS slot, sum(good) AS good, sum(total) AS total \
                FROM sli_metrics WHERE sli_type = 'availability' GROUP BY 1, 2, 3, 4, 5)",
        near: &[("uptime", ROUNDING)],
    },
    View {
        name: "service_latency",
        create: None,
        columns: "tenant, env, region, service, slot, samples, p50, p95, p99, target",
        batch: "SELECT tenant, env, region, service, date_bin(interval '5 minutes', occurred_at) AS slot, \
                count(*) AS samples, percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS p50, \
                percentile_cont(0.95) WITHIN GROUP (ORDER BY value) AS p95, \
                percentile_cont(0.99) WITHIN GROUP (ORDER BY value) AS p99, max(objective) AS target \
                FROM sli_metrics WHERE sli_type = 'latency' GROUP BY 1, 2, 3, 4, 5",
        near: &[("p50", SKETCH), ("p95", SKETCH), ("p99", SKETCH)],
    },
    View {
        name: "policy_denials",
        create: None,
        columns: "tenant, env, region, service, hour, denials, events, denial_rate",
        batch: "SELECT *, cast(denials AS double) / events AS denial_rate FROM (SELECT tenant, env, region, service, \
                date_trunc('hour', occurred_at) AS hour, sum(CASE WHEN kind = 'policy_denial' THEN 1 ELSE 0 END) AS denials, \
                count(*) AS events FROM ops_events GROUP BY 1, 2, 3, 4, 5)",
        near: &[("denial_rate", ROUNDING)],
    },
];

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static View> {
    OWN.iter().chain([&LATER]).chain(&BUILT_IN)
}
