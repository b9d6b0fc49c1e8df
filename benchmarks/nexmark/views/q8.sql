-- Persons who opened an auction in the 10 seconds in which they came: a join as a fold over both.
CREATE MATERIALIZED VIEW q8 AS
SELECT
  tumble(interval '10 seconds') AS window_start,
  json_get_int(payload, CASE WHEN feature = 'person' THEN 'id' ELSE 'seller' END) AS id,
  max(json_get_str(payload, 'name')) FILTER (WHERE feature = 'person') AS name
FROM product_events
WHERE feature IN ('person', 'auction')
GROUP BY tumble(interval '10 seconds'), json_get_int(payload, CASE WHEN feature = 'person' THEN 'id' ELSE 'seller' END)
HAVING count(*) FILTER (WHERE feature = 'person') > 0 AND count(*) FILTER (WHERE feature = 'auction') > 0;
