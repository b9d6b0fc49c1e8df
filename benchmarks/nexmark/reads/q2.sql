SELECT json_get_int(payload, 'auction') AS auction, json_get_int(payload, 'price') AS price
FROM product_events WHERE feature = 'bid' AND json_get_int(payload, 'auction') % 123 = 0
