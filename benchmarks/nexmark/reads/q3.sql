SELECT name, city, state, unnest(auctions) AS id FROM q3
