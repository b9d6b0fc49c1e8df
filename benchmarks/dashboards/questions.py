"""The questions of a dashboard: of the views as the product answers them, and of the raw rows in DuckDB.

`ours` is read through POST /v1/sql with the tenant's token. `raw` is over `{events}`, which is the
tenant's files of the Delta table and nothing else; it uses what makes it fastest, such as the
partition column `day` in place of a computed day. Both give the same rows in the same order, but
for the reports that ship with the product, which are compared sorted.
"""

import datetime
import pathlib

QUERIES = pathlib.Path(__file__).resolve().parents[2] / "pipelines/queries"


def shipped(name):
    lines = (QUERIES / name).read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("--")).rstrip().rstrip(";")


def all_questions(end):
    """Name, the product's SQL, DuckDB's SQL. `end` is the newest time of the history."""
    today = end.date()
    first = today - datetime.timedelta(days=29)
    hour = end.replace(minute=0, second=0, microsecond=0) - datetime.timedelta(hours=24)
    last = hour + datetime.timedelta(hours=24)
    stamp = lambda t: f"TIMESTAMP '{t:%Y-%m-%d %H:%M:%S}Z'"
    ours_day = f"day >= TIMESTAMP '{first} 00:00:00Z'"
    raw_day = f"day >= DATE '{first}'"
    return [
        (
            "daily adoption by feature and role, 30 days",
            f"SELECT CAST(day AS date) AS day, feature, role, events, users FROM feature_adoption WHERE env = 'prod' AND {ours_day} ORDER BY 1, 2, 3",
            f"SELECT day, feature, role, count(*), count(DISTINCT user_id) FROM {{events}} WHERE env = 'prod' AND {raw_day} GROUP BY ALL ORDER BY 1, 2, 3",
        ),
        (
            "daily active users, 30 days",
            f"SELECT CAST(day AS date) AS day, users, events FROM daily_active_users WHERE env = 'prod' AND {ours_day} ORDER BY 1",
            f"SELECT day, count(DISTINCT user_id), count(*) FROM {{events}} WHERE env = 'prod' AND {raw_day} GROUP BY 1 ORDER BY 1",
        ),
        (
            "events per feature and day, 30 days",
            f"SELECT CAST(day AS date) AS day, feature, sum(events) FROM feature_adoption WHERE env = 'prod' AND {ours_day} GROUP BY 1, 2 ORDER BY 1, 2",
            f"SELECT day, feature, count(*) FROM {{events}} WHERE env = 'prod' AND {raw_day} GROUP BY 1, 2 ORDER BY 1, 2",
        ),
        (
            "top features, this week against last (shipped report)",
            shipped("adoption_regressions.sql"),
            "WITH weeks AS (SELECT feature, count(*) FILTER (day >= current_date - 7) AS this_week,"
            " count(*) FILTER (day < current_date - 7) AS last_week FROM {events}"
            " WHERE day >= current_date - 14 AND day < current_date GROUP BY feature)"
            " SELECT feature, last_week, this_week, CAST(this_week AS double) / last_week - 1 AS change"
            " FROM (SELECT * FROM weeks ORDER BY last_week DESC LIMIT 10)"
            " WHERE last_week > 0 AND this_week < 0.8 * last_week ORDER BY change",
        ),
        (
            "adoption of a feature by role, 30 days (shipped report)",
            shipped("adoption_30_days.sql"),
            "SELECT tenant, role, sum(events) AS events, max(users), count(*) FROM"
            " (SELECT tenant, env, day, role, count(*) AS events, count(DISTINCT user_id) AS users FROM {events}"
            " WHERE feature = 'feature-x' AND day >= current_date - 30 GROUP BY ALL) GROUP BY tenant, role ORDER BY events DESC",
        ),
        (
            "events by hour of the last day",
            f"SELECT arrow_cast(date_trunc('hour', minute), 'Int64') AS hour, sum(events) FROM event_volume WHERE env = 'prod' AND minute >= {stamp(hour)} AND minute < {stamp(last)} GROUP BY 1 ORDER BY 1",
            f"SELECT epoch_us(occurred_at) // 3600000000 * 3600000000, count(*) FROM {{events}} WHERE env = 'prod'"
            f" AND day >= DATE '{hour.date()}' AND epoch_us(occurred_at) >= {int(hour.timestamp())}000000 AND epoch_us(occurred_at) < {int(last.timestamp())}000000 GROUP BY 1 ORDER BY 1",
        ),
        (
            "monthly active users",
            "SELECT CAST(month AS date) AS month, users, events FROM monthly_active_users WHERE env = 'prod' ORDER BY 1",
            "SELECT CAST(date_trunc('month', day) AS date), count(DISTINCT user_id), count(*) FROM {events} WHERE env = 'prod' GROUP BY 1 ORDER BY 1",
        ),
        (
            "retention cohorts by month (shipped report)",
            shipped("retention_cohorts.sql").replace("SELECT cohort, month, count(*)", "SELECT CAST(cohort AS date) AS cohort, CAST(month AS date) AS month, count(*)"),
            "WITH months AS (SELECT DISTINCT user_id, CAST(date_trunc('month', day) AS date) AS month FROM {events} WHERE user_id IS NOT NULL),"
            " firsts AS (SELECT user_id, min(month) AS cohort FROM months GROUP BY user_id)"
            " SELECT cohort, month, count(*) FROM months JOIN firsts USING (user_id) GROUP BY cohort, month ORDER BY cohort, month",
        ),
    ]


def rows_of(table):
    """An Arrow table's rows as comparable values: counts are integers, ratios rounded, order dropped."""

    def value(v):
        if isinstance(v, float):
            return round(v, 9)
        if isinstance(v, datetime.datetime):
            return v.replace(tzinfo=None)
        if v is None or isinstance(v, (str, datetime.date)):
            return v
        return int(v)

    return sorted([tuple(value(v) for v in row.values()) for row in table.rename_columns([str(i) for i in range(table.num_columns)]).to_pylist()], key=repr)
