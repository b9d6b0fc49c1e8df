-- Daily, weekly (from Monday of ISO weeks' epoch, Thursday 1970-01-01) and monthly active users.
CREATE MATERIALIZED VIEW daily_active_users AS
SELECT tumble(interval '1 day') AS day, count(DISTINCT user_id) AS users, count(*) AS events
FROM product_events
GROUP BY tumble(interval '1 day');

CREATE MATERIALIZED VIEW weekly_active_users AS
SELECT tumble(interval '7 days') AS week, count(DISTINCT user_id) AS users, count(*) AS events
FROM product_events
GROUP BY tumble(interval '7 days');

CREATE MATERIALIZED VIEW monthly_active_users AS
SELECT tumble(interval '1 month') AS month, count(DISTINCT user_id) AS users, count(*) AS events
FROM product_events
GROUP BY tumble(interval '1 month');
