-- How much each feature is used, by role, a day at a time.
CREATE MATERIALIZED VIEW feature_adoption WITH (comment = 'Use of features by tenant, role and day') AS
SELECT
  tumble(interval '1 day') AS day,
  feature,
  role,
  count(*) AS events,
  count(DISTINCT user_id) AS users,
  min(occurred_at) AS first_used,
  max(occurred_at) AS last_used
FROM product_events
GROUP BY tumble(interval '1 day'), feature, role;
