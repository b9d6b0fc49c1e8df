CREATE TABLE product_events (
  occurred_at TIMESTAMP_LTZ(3), tenant STRING, env STRING, region STRING, `role` STRING, feature STRING, user_id STRING
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '{{brokers}}',
  'properties.group.id' = 'flink-mix',
  'properties.fetch.max.bytes' = '52428800',
  'properties.max.partition.fetch.bytes' = '8388608',
  'properties.max.poll.records' = '10000',
  'topic' = 'mix-product_events{{suffix}}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601'
);

CREATE TABLE sli_metrics (
  occurred_at TIMESTAMP_LTZ(3), tenant STRING, env STRING, region STRING, service STRING, sli_type STRING,
  good DOUBLE, total DOUBLE,
  WATERMARK FOR occurred_at AS occurred_at - INTERVAL '4' SECOND
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '{{brokers}}',
  'properties.group.id' = 'flink-mix',
  'properties.fetch.max.bytes' = '52428800',
  'properties.max.partition.fetch.bytes' = '8388608',
  'properties.max.poll.records' = '10000',
  'topic' = 'mix-sli_metrics{{suffix}}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601'
);

CREATE TABLE security_signals (
  event_id STRING, tenant STRING, source STRING, signal_type STRING, evidence {{evidence}}
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '{{brokers}}',
  'properties.group.id' = 'flink-mix',
  'properties.fetch.max.bytes' = '52428800',
  'properties.max.partition.fetch.bytes' = '8388608',
  'properties.max.poll.records' = '10000',
  'topic' = 'mix-security_signals{{suffix}}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json'
);

CREATE VIEW availability AS
SELECT tenant, env, region, service, good, total, occurred_at
FROM sli_metrics WHERE service = 'checkout' AND sli_type = 'availability';

CREATE VIEW matched AS
SELECT event_id, tenant, {{rules}} AS rules FROM security_signals;
