SELECT
  json_get_int(payload, 'auction') AS auction, json_get_int(payload, 'bidder') AS bidder,
  0.908 * json_get_int(payload, 'price') AS price, occurred_at
FROM product_events WHERE feature = 'bid'
