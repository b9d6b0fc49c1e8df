-- One row a user and day of use, and one a user and month: what retention cohorts are made of
-- (queries/retention_cohorts.sql).
CREATE MATERIALIZED VIEW user_activity AS
SELECT user_id, tumble(interval '1 day') AS day, count(*) AS events
FROM product_events
WHERE user_id IS NOT NULL
GROUP BY user_id, tumble(interval '1 day');

CREATE MATERIALIZED VIEW user_months AS
SELECT user_id, tumble(interval '1 month') AS month, count(*) AS events
FROM product_events
WHERE user_id IS NOT NULL
GROUP BY user_id, tumble(interval '1 month');
