SELECT tenant, env, region, service, good_budget AS good, total_budget AS total
FROM (
  SELECT *, row_number() OVER (PARTITION BY tenant, env, region, service ORDER BY evaluated_at DESC) AS newest
  FROM slo_burn WHERE slo = 'checkout-availability'
)
WHERE newest = 1
