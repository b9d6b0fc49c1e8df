SELECT tenant, env, region, FLOOR(occurred_at TO DAY) AS `day`, feature, `role`,
  count(*) AS events, count(DISTINCT user_id) AS users
FROM product_events
GROUP BY tenant, env, region, FLOOR(occurred_at TO DAY), feature, `role`;

SELECT tenant, env, region, service, window_end, sum(good) AS good, sum(total) AS total
FROM TABLE(HOP(TABLE availability, DESCRIPTOR(occurred_at), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE))
GROUP BY tenant, env, region, service, window_start, window_end;

SELECT tenant, env, region, service, window_end, sum(good) AS good, sum(total) AS total
FROM TABLE(HOP(TABLE availability, DESCRIPTOR(occurred_at), INTERVAL '1' MINUTE, INTERVAL '30' MINUTE))
GROUP BY tenant, env, region, service, window_start, window_end;

SELECT tenant, env, region, service, window_end, sum(good) AS good, sum(total) AS total
FROM TABLE(HOP(TABLE availability, DESCRIPTOR(occurred_at), INTERVAL '1' MINUTE, INTERVAL '1' HOUR))
GROUP BY tenant, env, region, service, window_start, window_end;

SELECT tenant, env, region, service, window_end, sum(good) AS good, sum(total) AS total
FROM TABLE(HOP(TABLE availability, DESCRIPTOR(occurred_at), INTERVAL '1' MINUTE, INTERVAL '6' HOUR))
GROUP BY tenant, env, region, service, window_start, window_end;

SELECT event_id, tenant, rules FROM matched WHERE rules <> '';
