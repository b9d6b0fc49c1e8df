//! What a view cannot be, and what is said about it.

use companyos_views::{ViewPlan, ViewStatement, parse};

use crate::Features;

fn refusal(select: &str) -> String {
    let sql = format!("CREATE MATERIALIZED VIEW v AS\n{select}");
    let planned = parse(&sql).and_then(|statement| match statement {
        ViewStatement::Create { name, options, query, .. } => ViewPlan::new(&name, &query, options, &Features),
        other => panic!("{other:?}"),
    });
    match planned {
        Ok(plan) => panic!("{select} was planned: {:?}", plan.schema),
        Err(error) => format!("{select}\n  => {error}"),
    }
}

#[test]
fn every_refusal_says_why_and_where() {
    let refused = [
        "SELECT median(value) FROM sli_metrics",
        "SELECT service, array_agg(value) AS all_values FROM sli_metrics GROUP BY service",
        "SELECT avg(DISTINCT value) FROM sli_metrics",
        "SELECT first_value(value) FROM sli_metrics",
        "SELECT sum(value) OVER (PARTITION BY service) FROM sli_metrics",
        "SELECT service, count(*) FROM sli_metrics GROUP BY service ORDER BY 2",
        "SELECT service, count(*) FROM sli_metrics GROUP BY service LIMIT 3",
        "SELECT DISTINCT service FROM sli_metrics",
        "SELECT count(*) FROM nowhere",
        "SELECT count(*) FROM product_events JOIN sli_metrics ON product_events.tenant = sli_metrics.tenant",
        "SELECT count(*) FROM product_events FULL JOIN features ON product_events.feature = features.feature",
        "SELECT max(category) FROM product_events JOIN features ON product_events.feature = features.feature",
        "SELECT count(*) FROM (SELECT * FROM product_events)",
        "SELECT count(*) FROM product_events UNION ALL SELECT count(*) FROM product_events",
        "WITH a AS (SELECT 1) SELECT count(*) FROM product_events",
        "SELECT count(*) FROM product_events WHERE occurred_at > now() - interval '1 day'",
        "SELECT count(*) FROM product_events WHERE random() < 0.5",
        "SELECT count(*) FROM product_events WHERE feature IN (SELECT feature FROM features)",
        "SELECT feature, count(*) FROM product_events GROUP BY ROLLUP (feature)",
        "SELECT featur, count(*) FROM product_events GROUP BY featur",
        "SELECT tumble(interval '1 hour') AS w, count(*) FROM product_events GROUP BY tumble(interval '2 hours')",
        "SELECT hop(interval '1 hour', interval '7 minutes') AS w, count(*) FROM product_events GROUP BY 1",
        "SELECT hop(interval '1 month', interval '1 day') AS w, count(*) FROM product_events GROUP BY 1",
        "SELECT tumble(interval '1 day', 'Europe/Atlantis') AS w, count(*) FROM product_events GROUP BY 1",
        "SELECT tumble(interval '-1 day') AS w, count(*) FROM product_events GROUP BY 1",
        "SELECT count(*) FROM product_events HAVING count(*) > $1",
        "SELECT array_agg_first(feature, 0) FROM product_events",
        "SELECT approx_distinct(value) FROM sli_metrics",
    ];
    insta::assert_snapshot!(refused.map(refusal).join("\n"));
}
