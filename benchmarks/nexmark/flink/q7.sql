SELECT B.auction, B.price, B.bidder, B.occurred_at
FROM bid B JOIN (
  SELECT MAX(price) AS maxprice, window_start, window_end
  FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(occurred_at), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end
) B1 ON B.price = B1.maxprice
WHERE B.occurred_at >= B1.window_start AND B.occurred_at < B1.window_end;
