-- Of the users first seen in a month, how many came back in each month after it.
WITH months AS (
  SELECT DISTINCT user_id, month FROM user_months
), firsts AS (
  SELECT user_id, min(month) AS cohort FROM months GROUP BY user_id
)
SELECT cohort, month, count(*) AS users
FROM months JOIN firsts USING (user_id)
GROUP BY cohort, month
ORDER BY cohort, month;
