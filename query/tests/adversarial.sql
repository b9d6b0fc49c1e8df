-- Statements that try to reach another tenant's rows, each run as alpha. A block is one statement
-- after a line with what must come of it:
--   =value    the first value of the first row
--   empty     no rows
--   refused   a 4xx answer
--   any       whatever it is, it must not leak (the harness checks that of every answer)

--: =8
SELECT count(*) FROM product_events

--: =alpha
SELECT DISTINCT tenant FROM product_events

--: =1
SELECT count(DISTINCT tenant) FROM product_events

--: empty
SELECT * FROM product_events WHERE tenant = 'beta'

--: empty
SELECT * FROM product_events WHERE tenant <> 'alpha'

--: =8
SELECT count(*) FROM product_events WHERE tenant = 'beta' OR 1 = 1

--: =8
SELECT count(*) FROM product_events WHERE tenant = 'beta' OR tenant IS NOT NULL

--: =8
SELECT count(*) FROM product_events WHERE NOT (tenant = 'nobody')

--: empty
SELECT * FROM product_events WHERE tenant IN ('beta', 'gamma')

--: empty
SELECT * FROM product_events WHERE tenant LIKE 'b%'

--: empty
SELECT * FROM product_events WHERE tenant ~ '^b'

--: empty
SELECT * FROM product_events WHERE user_id LIKE 'BETA%'

--: empty
SELECT payload FROM product_events WHERE payload LIKE '%SECRET%'

--: =alpha
SELECT max(tenant) FROM product_events

--: =alpha
SELECT min(tenant) FROM product_events

--: =8
SELECT count(*) FROM "product_events"

--: =8
SELECT count(*) FROM PRODUCT_EVENTS

--: refused
SELECT count(*) FROM "PRODUCT_EVENTS"

--: =8
SELECT count(*) FROM public.product_events

--: =8
SELECT count(*) FROM companyos.public.product_events

--: =8
SELECT count(*) FROM "companyos"."public"."product_events"

--: refused
SELECT * FROM datafusion.public.product_events

--: refused
SELECT * FROM beta.public.product_events

--: refused
SELECT * FROM companyos.beta.product_events

--: refused
SELECT * FROM delta.product_events

--: refused
SELECT * FROM product_events_raw

--: refused
SELECT * FROM quarantine_actions

--: =8
WITH p AS (SELECT * FROM product_events) SELECT count(*) FROM p

--: =8
WITH product_events AS (SELECT * FROM companyos.public.product_events) SELECT count(*) FROM product_events

--: empty
WITH t AS (SELECT 'beta' AS tenant) SELECT p.* FROM product_events p JOIN t USING (tenant)

--: empty
WITH t(tenant) AS (VALUES ('beta'), ('gamma')) SELECT p.user_id FROM product_events p WHERE p.tenant IN (SELECT tenant FROM t)

--: =8
SELECT (SELECT count(*) FROM product_events)

--: =8
SELECT count(*) FROM (SELECT * FROM (SELECT * FROM product_events) a) b

--: =0
SELECT count(*) FROM product_events a WHERE EXISTS (SELECT 1 FROM product_events b WHERE b.tenant <> a.tenant)

--: =8
SELECT count(*) FROM product_events a WHERE NOT EXISTS (SELECT 1 FROM product_events b WHERE b.tenant <> a.tenant)

--: any
SELECT (SELECT count(*) FROM product_events b WHERE b.tenant >= a.tenant) FROM product_events a LIMIT 1

--: =0
SELECT count(*) FROM product_events WHERE tenant > (SELECT max(tenant) FROM sli_metrics)

--: =0
SELECT count(*) FROM product_events WHERE tenant <> ALL (SELECT tenant FROM sli_metrics)

--: any
SELECT count(*) FROM product_events WHERE 'beta' = ANY (SELECT tenant FROM product_events)

--: =16
SELECT count(*) FROM (SELECT tenant FROM product_events UNION ALL SELECT tenant FROM product_events) u

--: =1
SELECT count(*) FROM (SELECT tenant FROM product_events UNION SELECT tenant FROM sli_metrics) u

--: empty
SELECT tenant FROM product_events EXCEPT SELECT 'alpha'

--: empty
SELECT tenant FROM product_events INTERSECT SELECT 'beta'

--: =64
SELECT count(*) FROM product_events a CROSS JOIN product_events b

--: =64
SELECT count(*) FROM product_events a FULL OUTER JOIN product_events b ON a.tenant = b.tenant

--: =0
SELECT count(*) FROM product_events a JOIN product_events b ON a.tenant <> b.tenant

--: =8
SELECT count(*) FROM product_events a LEFT ANTI JOIN (SELECT 'beta' AS tenant) b ON a.tenant = b.tenant

--: =0
SELECT count(*) FROM (SELECT 'beta' AS tenant) a LEFT SEMI JOIN product_events b ON a.tenant = b.tenant

--: =0
SELECT count(*) FROM product_events NATURAL JOIN product_events AS other

--: any
SELECT l.n FROM product_events p, LATERAL (SELECT count(*) AS n FROM product_events q WHERE q.tenant <> p.tenant) l

--: any
SELECT count(*) FROM product_events p CROSS JOIN LATERAL (SELECT p.tenant AS t) l

--: =8
SELECT (SELECT count(*) FROM product_events b WHERE b.tenant = a.tenant) FROM product_events a LIMIT 1

--: =4
SELECT count(*) FROM product_events a JOIN product_events b USING (event_id, tenant) WHERE a.env = 'prod' 

--: =5
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT max(n) FROM r

--: any
WITH RECURSIVE r(n, t) AS (SELECT 1, 'beta' UNION ALL SELECT n + 1, p.user_id FROM r JOIN product_events p ON p.tenant = r.t WHERE n < 3) SELECT * FROM r WHERE n > 1

--: =8
SELECT count(*) OVER () FROM product_events LIMIT 1

--: =alpha
SELECT first_value(tenant) OVER (ORDER BY tenant DESC) FROM product_events LIMIT 1

--: =alpha
SELECT last_value(tenant) OVER (ORDER BY tenant ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM product_events LIMIT 1

--: =alpha
SELECT lead(tenant) OVER (ORDER BY tenant) FROM product_events LIMIT 1

--: =8
SELECT row_number() OVER (ORDER BY event_id) AS n FROM product_events ORDER BY n DESC LIMIT 1

--: =alpha
SELECT tenant FROM product_events GROUP BY ROLLUP (tenant) HAVING tenant IS NOT NULL

--: =8
SELECT count(*) FROM product_events GROUP BY CUBE (tenant, feature) ORDER BY 1 DESC LIMIT 1

--: empty
SELECT tenant, count(*) FROM product_events GROUP BY tenant HAVING tenant <> 'alpha'

--: =8
SELECT count(*) FILTER (WHERE tenant = 'alpha' OR true) FROM product_events

--: =0
SELECT count(*) FILTER (WHERE tenant <> 'alpha') FROM product_events

--: =0
SELECT sum(CASE WHEN tenant = 'beta' THEN 1 ELSE 0 END) FROM product_events

--: =8
SELECT cardinality(array_agg(user_id)) FROM product_events

--: any
SELECT string_agg(user_id, ',') FROM product_events

--: =8
SELECT approx_distinct(user_id) FROM product_events

--: =2.5
SELECT max(value) FROM sli_metrics

--: =8
SELECT sum(value) FROM sli_metrics

--: any
SELECT approx_percentile_cont(value, 1.0) FROM sli_metrics

--: =8
SELECT count(*) FROM product_events WHERE 1 / (CASE WHEN tenant = 'beta' THEN 0 ELSE 1 END) = 1

--: refused
SELECT count(*) FROM product_events WHERE 1 / (tenant = 'beta')::int > 0

--: =8
SELECT count(*) FROM product_events WHERE 1 / (tenant = 'alpha')::int > 0

--: refused
SELECT CAST(user_id AS INT) FROM product_events

--: =0
SELECT count(*) FROM product_events WHERE CAST(CASE WHEN tenant = 'alpha' THEN '0' ELSE user_id END AS INT) > 0

--: =0
SELECT count(*) FROM product_events WHERE CASE WHEN tenant <> 'alpha' THEN CAST(payload AS INT) END > 0

--: =0
SELECT count(*) FROM sli_metrics WHERE arrow_cast(CASE WHEN value > 100 THEN service ELSE '1' END, 'Int64') > 1

--: refused
SELECT arrow_cast(user_id, 'Int64') FROM product_events

--: =0
SELECT count(*) FROM product_events WHERE to_timestamp(CASE WHEN tenant = 'beta' THEN user_id ELSE '2020-01-01' END) > now()

--: =0
SELECT count(*) FROM product_events WHERE regexp_like(user_id, CASE WHEN tenant = 'beta' THEN '(' ELSE 'zzz' END)

--: =8
SELECT count(*) FROM product_events WHERE random() >= 0 OR tenant = 'beta'

--: =8
SELECT count(*) FROM product_events WHERE random() < 2 AND (tenant = 'beta') IS NOT NULL

--: any
SELECT user_id, random() < 2 FROM product_events WHERE random() < 2 ORDER BY user_id DESC LIMIT 50

--: =8
SELECT count(*) FROM product_events WHERE coalesce(nullif(tenant, 'alpha'), 'beta') = 'beta'

--: =alpha
SELECT coalesce(tenant, 'x') FROM product_events ORDER BY tenant DESC NULLS FIRST LIMIT 1

--: =2
SELECT count(*) FROM quarantine

--: empty
SELECT * FROM quarantine WHERE tenant IS NULL

--: empty
SELECT detail FROM quarantine WHERE tenant IS DISTINCT FROM 'alpha'

--: =alpha detail
SELECT max(detail) FROM quarantine

--: empty
SELECT * FROM quarantine WHERE quarantine_id IN ('q-beta', 'q-nobody')

--: =0
SELECT count(*) FROM quarantine WHERE detail LIKE '%SECRET%'

--: =10
SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'

--: any
SELECT * FROM information_schema.tables

--: any
SELECT * FROM information_schema.columns

--: any
SELECT * FROM information_schema.views

--: any
SELECT * FROM information_schema.schemata

--: refused
SELECT * FROM information_schema.df_settings

--: refused
SELECT * FROM companyos.information_schema.df_settings

--: refused
SELECT * FROM (SELECT * FROM information_schema."df_settings") s

--: refused
SELECT (SELECT max(value) FROM information_schema.df_settings)

--: any
SELECT routine_name FROM information_schema.routines LIMIT 3

--: any
SELECT * FROM pg_catalog.pg_tables

--: any
SHOW TABLES

--: any
SHOW COLUMNS FROM product_events

--: refused
SHOW ALL

--: refused
SHOW datafusion.runtime.temp_directory

--: any
DESCRIBE product_events

--: refused
SET datafusion.execution.target_partitions = 1

--: refused
SET TIME ZONE 'UTC'

--: refused
RESET datafusion.execution.target_partitions

--: any
EXPLAIN SELECT * FROM product_events

--: any
EXPLAIN SELECT count(*) FROM product_events WHERE tenant = 'beta'

--: any
EXPLAIN FORMAT TREE SELECT * FROM product_events WHERE day = DATE '2026-01-02'

--: any
EXPLAIN FORMAT PGJSON SELECT max(user_id) FROM product_events

--: any
EXPLAIN (FORMAT indent, STATISTICS true) SELECT * FROM product_events

--: refused
EXPLAIN ANALYZE SELECT * FROM product_events

--: refused
EXPLAIN VERBOSE SELECT * FROM product_events

--: refused
EXPLAIN ANALYZE VERBOSE SELECT * FROM product_events

--: refused
EXPLAIN (ANALYZE true) SELECT * FROM product_events

--: refused
EXPLAIN EXPLAIN ANALYZE SELECT * FROM product_events

--: refused
EXPLAIN CREATE TABLE x AS SELECT * FROM product_events

--: refused
EXPLAIN COPY product_events TO '/tmp/adversarial.csv'

--: refused
CREATE VIEW v AS SELECT * FROM product_events

--: refused
CREATE OR REPLACE VIEW product_events AS SELECT 1

--: refused
CREATE TABLE t AS SELECT * FROM product_events

--: refused
CREATE TEMPORARY TABLE t (a INT)

--: refused
CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/'

--: refused
CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'file:///etc/passwd'

--: refused
CREATE DATABASE d

--: refused
CREATE SCHEMA s

--: refused
CREATE FUNCTION f(INT) RETURNS INT RETURN $1

--: refused
CREATE INDEX i ON product_events (tenant)

--: refused
DROP TABLE product_events

--: refused
DROP VIEW IF EXISTS product_events

--: refused
INSERT INTO product_events SELECT * FROM product_events

--: refused
UPDATE product_events SET tenant = 'alpha'

--: refused
DELETE FROM product_events WHERE tenant = 'beta'

--: refused
TRUNCATE TABLE product_events

--: refused
COPY product_events TO '/tmp/adversarial.parquet'

--: refused
COPY (SELECT * FROM product_events) TO '/tmp/adversarial.csv' STORED AS CSV

--: refused
SELECT * INTO t FROM product_events

--: refused
SELECT * FROM '/etc/passwd'

--: refused
SELECT * FROM 'file:///etc/passwd'

--: refused
SELECT * FROM 'product_events/tenant=b*/data.parquet'

--: refused
SELECT * FROM "file:///etc/hostname"

--: refused
SELECT * FROM 's3://bucket/key.parquet'

--: refused
SELECT * FROM read_csv('/etc/passwd')

--: refused
SELECT * FROM read_parquet('/')

--: refused
SELECT * FROM parquet_metadata('/x')

--: refused
SELECT * FROM metadata_cache()

--: refused
SELECT * FROM list_files_cache()

--: refused
SELECT * FROM product_events('beta')

--: refused
SELECT current_setting('datafusion.runtime.temp_directory')

--: refused
SELECT getenv('PATH')

--: refused
SELECT pg_read_file('/etc/passwd')

--: refused
SELECT repeat('x', 2000000000)

--: refused
SELECT generate_series(1, 100000000000)

--: =10
SELECT count(*) FROM generate_series(1, 10)

--: refused
SELECT 1; SELECT * FROM product_events

--: refused
SELECT 1; SET datafusion.catalog.default_schema = 'beta'

--: refused
; DROP TABLE product_events

--: =8
SELECT count(*) FROM product_events -- WHERE tenant = 'alpha'

--: =8
SELECT count(*) FROM product_events /* ; DROP TABLE product_events */ WHERE 1 = 1

--: =0
SELECT count(*) FROM product_events WHERE user_id = '' OR tenant = 'be' || 'ta'

--: empty
SELECT * FROM product_events WHERE tenant = chr(98) || 'eta'

--: empty
SELECT * FROM product_events WHERE tenant = reverse('ateb')

--: empty
SELECT * FROM product_events WHERE upper(tenant) = 'BETA'

--: empty
SELECT * FROM product_events WHERE encode(tenant::bytea, 'hex') = '62657461'

--: empty
SELECT * FROM product_events WHERE digest(tenant, 'md5') = digest('beta', 'md5')

--: refused
PREPARE p AS SELECT * FROM product_events

--: refused
EXECUTE p('beta')

--: refused
DEALLOCATE p

--: refused
BEGIN

--: refused
ROLLBACK

--: refused
USE beta

--: refused
CALL f()

--: refused
KILL 1

--: refused
GRANT ALL ON product_events TO alpha

--: refused
SELECT * FROM product_events WHERE tenant = $1

--: refused
SELECT * FROM product_events FOR SYSTEM_TIME AS OF '2020-01-01' WHERE nonsense = 1

--: refused
SELECT __delta_rs_path FROM product_events

--: refused
SELECT _metadata FROM product_events

--: refused
SELECT _file, filename FROM product_events

--: refused
SELECT input_file_name() FROM product_events

--: any
SELECT arrow_metadata(tenant) FROM product_events LIMIT 1

--: =prod
SELECT env FROM product_events ORDER BY env LIMIT 1

--: any
SELECT * FROM product_events TABLESAMPLE BERNOULLI (100)

--: any
SELECT * FROM product_events LIMIT 100 OFFSET 1

--: empty
SELECT * FROM product_events ORDER BY tenant DESC OFFSET 8

--: any
TABLE product_events

--: any
FROM product_events

--: any
SELECT unnest(array_agg(DISTINCT tenant)) FROM product_events

--: any
SELECT * FROM product_events PIVOT (count(event_id) FOR tenant IN ('alpha', 'beta'))

--: any
SELECT * EXCLUDE (tenant) FROM product_events

--: any
SELECT * REPLACE ('x' AS tenant) FROM product_events WHERE tenant = 'beta'

--: =0
SELECT count(*) FROM product_events WHERE 'x' = (SELECT 'x' WHERE tenant = 'beta')

--: any
SELECT tenant FROM product_events QUALIFY row_number() OVER (PARTITION BY tenant ORDER BY event_id) = 1

--: any
SELECT s.tenant, q.detail FROM sli_metrics s FULL JOIN quarantine q ON s.tenant = q.tenant

--: =12
SELECT (SELECT count(*) FROM product_events) + (SELECT count(*) FROM sli_metrics)

--: =8
SELECT count(payload->>'k') + count(*) FILTER (WHERE payload->>'k' IS NULL) FROM product_events

--: any
SELECT json_as_text(payload, 'k') FROM product_events WHERE json_get_str(payload, 'k') LIKE '%SECRET%'

--: any
SELECT * FROM product_events WHERE json_get_int(payload, 'k') / (CASE WHEN tenant = 'beta' THEN 0 ELSE 1 END) > 0
