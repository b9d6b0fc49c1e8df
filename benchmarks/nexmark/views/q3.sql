-- Who is selling in particular US states? A join of persons and auctions as a fold over both, by the person's id.
CREATE MATERIALIZED VIEW q3 AS
SELECT
  json_get_int(payload, CASE WHEN feature = 'person' THEN 'id' ELSE 'seller' END) AS person,
  max(json_get_str(payload, 'name')) FILTER (WHERE feature = 'person') AS name,
  max(json_get_str(payload, 'city')) FILTER (WHERE feature = 'person') AS city,
  max(json_get_str(payload, 'state')) FILTER (WHERE feature = 'person') AS state,
  array_agg_first(json_get_int(payload, 'id'), 1000)
    FILTER (WHERE feature = 'auction' AND json_get_int(payload, 'category') = 10) AS auctions
FROM product_events
WHERE feature IN ('person', 'auction')
GROUP BY json_get_int(payload, CASE WHEN feature = 'person' THEN 'id' ELSE 'seller' END)
HAVING max(json_get_str(payload, 'state')) FILTER (WHERE feature = 'person') IN ('OR', 'ID', 'CA')
  AND count(*) FILTER (WHERE feature = 'auction' AND json_get_int(payload, 'category') = 10) > 0;
