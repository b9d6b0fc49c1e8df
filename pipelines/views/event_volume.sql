-- Volume and freshness of a tenant's product events: how many, and how long after they happened
-- they were taken in, in seconds.
CREATE MATERIALIZED VIEW event_volume AS
SELECT tumble(interval '1 minute') AS minute, count(*) AS events, max(_ingested_at) AS newest_ingested,
       avg(cast(arrow_cast(_ingested_at, 'Int64') - arrow_cast(occurred_at, 'Int64') AS double) / 1000000.0) AS mean_lag_seconds
FROM product_events
GROUP BY tumble(interval '1 minute');
