-- Services whose p95 latency was over its target in the last three intervals of five minutes.
SELECT service, count(*) AS intervals_over, max(p95) AS worst_p95, max(target) AS target
FROM service_latency
WHERE slot >= date_bin(interval '5 minutes', now()) - interval '15 minutes'
  AND slot < date_bin(interval '5 minutes', now())
  AND p95 > target
GROUP BY service
HAVING count(*) = 3;
