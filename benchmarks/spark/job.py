"""Kafka to Delta with Spark Structured Streaming, for comparison with the engine.

Reads the topic from its first record to its end, decodes the envelope with from_json and an explicit
schema and appends the same columns, partitioned and compressed the same way. It does not check
payload hashes, residency, personal data or duplicates. Writes a JSON report of its batches.
"""

import argparse
import glob
import json
import os
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType, TimestampType

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

ENVELOPE = StructType(
    [
        # from_json gives the text of an object where the column is a string.
        StructField(name, TimestampType() if name == "occurred_at" else StringType())
        for name in (
            "event_id", "occurred_at", "tenant", "user_id", "role", "feature",
            "region", "env", "client", "pii_classification", "payload_hash", "payload",
        )
    ]
)


def session(jars: str, cores: int, memory: str) -> SparkSession:
    conf = {
        "spark.jars": ",".join(sorted(glob.glob(os.path.join(jars, "*.jar")))),
        "spark.driver.memory": memory,
        "spark.ui.enabled": "false",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(cores),
        # Delta replays its log in 50 tasks by default, which two cores would only queue.
        "spark.databricks.delta.snapshotPartitions": str(cores),
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.hadoop.parquet.compression.codec.zstd.level": "1",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.streaming.numRecentProgressUpdates": "100000",
    }
    builder = SparkSession.builder.master(f"local[{cores}]").appName("companyos-benchmark")
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def events(spark: SparkSession, args):
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", args.brokers)
        .option("subscribe", args.topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", args.max_offsets_per_trigger)
        # Fetches as large as the engine's own; the defaults favour many small ones.
        .option("kafka.max.poll.records", "10000")
        .option("kafka.fetch.max.bytes", str(50 << 20))
        .option("kafka.max.partition.fetch.bytes", str(8 << 20))
        .load()
    )
    decoded = records.select(
        F.from_json(F.col("value").cast("string"), ENVELOPE).alias("e"), "topic", "partition", "offset"
    )
    nothing = F.lit(None).cast("string")
    return decoded.select(
        "e.*",
        F.to_date("e.occurred_at").alias("day"),
        F.col("topic").alias("_topic"),
        F.col("partition").alias("_partition"),
        F.col("offset").alias("_offset"),
        F.lit(0).alias("_index"),
        F.current_timestamp().alias("_ingested_at"),
        nothing.alias("_trace_id"),
        nothing.alias("_dlp_rules"),
        nothing.alias("_origin"),
    )


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--out", required=True, help="folder of the Delta table")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--jars", required=True, help="folder with the Kafka and Delta jars")
    parser.add_argument("--report", required=True)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--memory", default="4g")
    parser.add_argument("--max-offsets-per-trigger", default="1000000")
    parser.add_argument("--trigger", choices=("available-now", "1s"), default="available-now")
    parser.add_argument("--events", type=int, required=True, help="records in the topic")
    args = parser.parse_args()

    started = time.time()
    spark = session(args.jars, args.cores, args.memory)
    ready = time.time()
    jvm = spark.sparkContext._gateway.proc.pid
    writer = (
        events(spark, args)
        .writeStream.format("delta")
        .outputMode("append")
        .partitionBy("tenant", "region", "day")
        .option("checkpointLocation", args.checkpoint)
    )
    trigger = {"availableNow": True} if args.trigger == "available-now" else {"processingTime": "1 second"}
    query = writer.trigger(**trigger).start(args.out)

    cpu_after_batch = {}
    ended = False
    while not ended:
        # Asked before looking, so that the last batch is looked at too.
        ended = bool(query.awaitTermination(0.1))
        last = query.lastProgress
        if last is not None and last["numInputRows"] > 0:
            cpu_after_batch.setdefault(last["batchId"], cpu_seconds(jvm))
            if args.trigger == "1s" and sum(p["numInputRows"] for p in query.recentProgress) >= args.events:
                query.stop()
    if query.exception() is not None:
        raise query.exception()

    batches = [
        {
            "batch": p["batchId"],
            "rows": p["numInputRows"],
            "seconds": p["durationMs"]["triggerExecution"] / 1000,
            "cpu_s_so_far": cpu_after_batch.get(p["batchId"]),
        }
        for p in query.recentProgress
        if p["numInputRows"] > 0
    ]
    with open(args.report, "w") as report:
        json.dump(
            {"spark_version": spark.version, "session_start_s": ready - started, "batches": batches}, report, indent=1
        )
    spark.stop()


if __name__ == "__main__":
    main()
