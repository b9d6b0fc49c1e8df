SELECT
  json_get_int(bid, 'auction') AS auction, json_get_int(bid, 'price') AS price, json_get_int(bid, 'bidder') AS bidder,
  to_timestamp_millis(json_get_int(bid, 'dateTime')) AS at
FROM q7
