-- Bids of each bidder per session of activity.
CREATE MATERIALIZED VIEW q11 AS
SELECT
  session(interval '10 seconds') AS window_start,
  json_get_int(payload, 'bidder') AS bidder,
  count(*) AS bid_count,
  max(occurred_at) AS last_bid
FROM product_events
WHERE feature = 'bid'
GROUP BY session(interval '10 seconds'), json_get_int(payload, 'bidder');
