SELECT
  json_get_int(payload, 'auction') AS auction, json_get_int(payload, 'bidder') AS bidder,
  json_get_int(payload, 'price') AS price, json_get_str(payload, 'channel') AS channel,
  json_get_str(payload, 'url') AS url, occurred_at
FROM product_events WHERE feature = 'bid'
