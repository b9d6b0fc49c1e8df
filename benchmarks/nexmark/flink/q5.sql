CREATE VIEW counted AS
SELECT auction, count(*) AS num, window_start, window_end
FROM TABLE(HOP(TABLE bid, DESCRIPTOR(occurred_at), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
GROUP BY auction, window_start, window_end;

SELECT c.window_start, c.auction, c.num
FROM counted c JOIN (
  SELECT max(num) AS maxn, window_start, window_end FROM counted GROUP BY window_start, window_end
) m ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.maxn;
