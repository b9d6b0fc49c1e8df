-- The highest bid of each 10 seconds, whole; its fields are picked when reading.
CREATE MATERIALIZED VIEW q7 AS
SELECT
  tumble(interval '10 seconds') AS window_start,
  last_value(payload ORDER BY json_get_int(payload, 'price')) AS bid
FROM product_events
WHERE feature = 'bid'
GROUP BY tumble(interval '10 seconds');
