SELECT window_start, auction, num
FROM (SELECT window_start, auction, num, max(num) OVER (PARTITION BY window_start) AS most FROM q5)
WHERE num = most
