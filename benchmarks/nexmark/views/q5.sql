-- Bids of each auction in the last 10 seconds, every 2 seconds. The hottest are picked when reading.
CREATE MATERIALIZED VIEW q5 AS
SELECT
  hop(interval '10 seconds', interval '2 seconds') AS window_start,
  json_get_int(payload, 'auction') AS auction,
  count(*) AS num
FROM product_events
WHERE feature = 'bid'
GROUP BY hop(interval '10 seconds', interval '2 seconds'), json_get_int(payload, 'auction');
