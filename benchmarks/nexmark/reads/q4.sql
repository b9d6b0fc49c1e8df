SELECT category, avg(final) AS price FROM q4 GROUP BY category
