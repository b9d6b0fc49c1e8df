-- Top features whose use fell by more than a fifth from one week to the next.
WITH weeks AS (
  SELECT feature,
         sum(CASE WHEN day >= date_trunc('day', now()) - interval '7 days' THEN events ELSE 0 END) AS this_week,
         sum(CASE WHEN day < date_trunc('day', now()) - interval '7 days' THEN events ELSE 0 END) AS last_week
  FROM feature_adoption
  WHERE day >= date_trunc('day', now()) - interval '14 days' AND day < date_trunc('day', now())
  GROUP BY feature
)
SELECT feature, last_week, this_week, cast(this_week AS double) / last_week - 1 AS change
FROM (SELECT * FROM weeks ORDER BY last_week DESC LIMIT 10)
WHERE last_week > 0 AND this_week < 0.8 * last_week
ORDER BY change;
