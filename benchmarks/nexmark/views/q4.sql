-- Highest bid of each auction with its category, a join as a fold over both. The mean by category is taken when reading.
CREATE MATERIALIZED VIEW q4 AS
SELECT
  json_get_int(payload, CASE WHEN feature = 'bid' THEN 'auction' ELSE 'id' END) AS auction,
  max(json_get_int(payload, 'category')) FILTER (WHERE feature = 'auction') AS category,
  max(json_get_int(payload, 'price')) FILTER (WHERE feature = 'bid') AS final
FROM product_events
WHERE feature IN ('auction', 'bid')
GROUP BY json_get_int(payload, CASE WHEN feature = 'bid' THEN 'auction' ELSE 'id' END)
HAVING count(*) FILTER (WHERE feature = 'auction') > 0 AND count(*) FILTER (WHERE feature = 'bid') > 0;
