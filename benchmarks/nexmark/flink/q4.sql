-- Without Nexmark's "bid while the auction is open", which a fold over one stream cannot ask.
SELECT Q.category, AVG(CAST(Q.final AS DOUBLE)) AS price
FROM (
  SELECT MAX(B.price) AS final, A.category
  FROM auction A, bid B
  WHERE A.id = B.auction
  GROUP BY A.id, A.category
) Q
GROUP BY Q.category;
