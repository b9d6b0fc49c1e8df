SELECT bidder, count(*) AS bid_count, window_start, window_end
FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(occurred_at), INTERVAL '10' SECOND))
GROUP BY bidder, window_start, window_end;
