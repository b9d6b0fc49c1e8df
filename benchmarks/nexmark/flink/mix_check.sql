-- What can be compared as it is: the panes' sums stand for the windows over them.
SELECT tenant, env, region, FLOOR(occurred_at TO DAY) AS `day`, feature, `role`,
  count(*) AS events, count(DISTINCT user_id) AS users
FROM product_events
GROUP BY tenant, env, region, FLOOR(occurred_at TO DAY), feature, `role`;

SELECT tenant, env, region, service, sum(good) AS good, sum(total) AS total
FROM availability
GROUP BY tenant, env, region, service;

SELECT event_id, rules FROM matched WHERE rules <> '';
