-- The topic as Flink reads it: an explicit schema, so that its JSON parser skips what a query does not name.
CREATE TABLE events (
  occurred_at TIMESTAMP_LTZ(3),
  feature STRING,
  payload ROW<
    id BIGINT, name STRING, city STRING, state STRING,
    itemName STRING, seller BIGINT, category BIGINT, initialBid BIGINT, `reserve` BIGINT, expires BIGINT,
    auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING,
    `dateTime` BIGINT>,
  WATERMARK FOR occurred_at AS occurred_at - INTERVAL '4' SECOND
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '{{brokers}}',
  'properties.group.id' = 'flink-nexmark',
  'properties.fetch.max.bytes' = '52428800',
  'properties.max.partition.fetch.bytes' = '8388608',
  'properties.max.poll.records' = '10000',
  'topic' = 'nexmark{{suffix}}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601'
);

CREATE VIEW person AS
SELECT payload.id AS id, payload.name AS name, payload.city AS city, payload.state AS state, occurred_at
FROM events WHERE feature = 'person';

CREATE VIEW auction AS
SELECT payload.id AS id, payload.itemName AS itemName, payload.seller AS seller, payload.category AS category,
  payload.initialBid AS initialBid, payload.expires AS expires, occurred_at
FROM events WHERE feature = 'auction';

CREATE VIEW bid AS
SELECT payload.auction AS auction, payload.bidder AS bidder, payload.price AS price, payload.channel AS channel,
  payload.url AS url, occurred_at
FROM events WHERE feature = 'bid';
