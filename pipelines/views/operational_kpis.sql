-- Uptime and latency by service, from SLI metrics, and the rate of policy denials, from ops events.
CREATE MATERIALIZED VIEW service_uptime AS
SELECT service, tumble(interval '5 minutes') AS slot,
       sum(good) AS good, sum(total) AS total, sum(good) / nullif(sum(total), 0) AS uptime
FROM sli_metrics
WHERE sli_type = 'availability'
GROUP BY service, tumble(interval '5 minutes');

CREATE MATERIALIZED VIEW service_latency AS
SELECT service, tumble(interval '5 minutes') AS slot, count(*) AS samples,
       approx_percentile_cont(value, 0.5) AS p50, approx_percentile_cont(value, 0.95) AS p95,
       approx_percentile_cont(value, 0.99) AS p99, max(objective) AS target
FROM sli_metrics
WHERE sli_type = 'latency'
GROUP BY service, tumble(interval '5 minutes');

CREATE MATERIALIZED VIEW policy_denials AS
SELECT service, tumble(interval '1 hour') AS hour,
       count(*) FILTER (WHERE kind = 'policy_denial') AS denials, count(*) AS events,
       cast(count(*) FILTER (WHERE kind = 'policy_denial') AS double) / count(*) AS denial_rate
FROM ops_events
GROUP BY service, tumble(interval '1 hour');
