#!/usr/bin/env python3
"""Real files through the whole engine, judged by a reader that shares nothing with it.

Replays three public files through Kafka and the worker, then compares what the tables hold with
what DuckDB finds in the raw files: row counts, quarantine reasons and three queries' answers, the
queries asked once through `companyos sql` and once of DuckDB over the tables' Parquet files.

    python3 benchmarks/real_input/check.py --data DIR --bin target/release/companyos

DIR holds wikiticker-2015-09-12-sampled.json.gz (Wikipedia edits, as in Apache Druid's tutorial),
apache_access_2015-05.log.gz (elastic/examples) and cloudtrail_ec2_s3_exfiltration.ndjson.gz
(OTRF/Security-Datasets). Needs Java 17 and Maven for Kafka; `duckdb` and `deltalake` from PyPI are
installed into a virtual environment in the cache folder the first time.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("COMPANYOS_CACHE", pathlib.Path.home() / ".cache/companyos"))
WIKI = "wikiticker-2015-09-12-sampled.json.gz"
APACHE = "apache_access_2015-05.log.gz"
CLOUDTRAIL = "cloudtrail_ec2_s3_exfiltration.ndjson.gz"
# Left out of the configuration, so that their events must be refused.
UNKNOWN_TENANT = "vi-wikipedia"
# May store in Europe only; its edits from elsewhere must be refused.
EUROPE_ONLY = "ru-wikipedia"
REGIONS = ["eu-west-1", "us-east-1", "ap-south-1"]


def ensure_venv():
    place = CACHE / "real-input-venv"
    python = place / "bin/python"
    if not python.exists():
        venv.create(place, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "duckdb", "deltalake", "pyarrow", "numpy", "pytz"], check=True)
    if pathlib.Path(sys.prefix).resolve() != place.resolve():
        os.execv(python, [str(python), __file__, *sys.argv[1:]])


def slug(channel):
    return re.sub(r"[^a-z0-9]+", "-", channel.lower()).strip("-")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--bin", default=ROOT / "target/release/companyos", type=pathlib.Path)
    args = parser.parse_args()
    ensure_venv()
    import duckdb

    raw = duckdb.connect()
    raw.execute(f"CREATE TABLE wiki AS SELECT * FROM read_json('{args.data / WIKI}', format='newline_delimited')")
    raw.execute(
        f"CREATE TABLE apache AS SELECT column0 AS line FROM read_csv('{args.data / APACHE}', delim='\\x01',"
        " header=false, quote='', escape='', columns={'column0': 'VARCHAR'})"
    )
    raw.execute(
        f"CREATE TABLE cloudtrail AS SELECT * FROM read_json('{args.data / CLOUDTRAIL}', format='newline_delimited',"
        " maximum_object_size=100000000, union_by_name=true)"
    )
    raw.create_function("slug", slug, ["VARCHAR"], "VARCHAR")

    with tempfile.TemporaryDirectory(prefix="companyos-real-") as folder:
        work = pathlib.Path(folder)
        config = write_config(work, raw)
        subprocess.run(["cargo", "xtask", "kafka", "up", "--port", "19592", "--dir", work / "kafka"], cwd=ROOT, check=True)
        try:
            check(args, work, config, raw)
        finally:
            subprocess.run(["cargo", "xtask", "kafka", "down", "--dir", work / "kafka"], cwd=ROOT, check=False)


def write_config(work, raw):
    tenants = sorted(slug(c) for (c,) in raw.execute("SELECT DISTINCT channel FROM wiki").fetchall())
    lines = ["[kafka]", 'brokers = "127.0.0.1:19592"', "[tenancy]", 'home_region = "us-east-1"']
    for region in REGIONS:
        lines += [f"[tenancy.regions.{region}]", f'storage = "file://{work}/tables/{region}"']
        (work / "tables" / region).mkdir(parents=True)
    for tenant in [*tenants, "webshop", "acme"]:
        if tenant != UNKNOWN_TENANT:
            regions = ["eu-west-1"] if tenant == EUROPE_ONLY else REGIONS
            lines += [f"[tenancy.tenants.{tenant}]", 'environments = ["prod"]', f"regions = {json.dumps(regions)}"]
    for name, stream in [("wiki", "product_events"), ("apache", "product_events"), ("cloudtrail", "security_signals")]:
        # The data is of 2015 and 2020: far past, which is refused unless a pipeline allows it.
        lines += ["[[pipelines]]", f'name = "{name}"', f'stream = "{stream}"', f'topics = ["{name}"]']
        lines += ["[pipelines.decode]", "max_age_days = 20000"]
    path = work / "companyos.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def check(args, work, config, raw):
    environment = {**os.environ, "COMPANYOS_CONFIG": str(config)}
    maps = ROOT / "pipelines/maps"
    for file, map_file, topic in [(WIKI, "wikiticker", "wiki"), (APACHE, "apache_access", "apache"), (CLOUDTRAIL, "cloudtrail", "cloudtrail")]:
        command = [args.bin, "replay", args.data / file, "--map", maps / f"{map_file}.yaml", "--topic", topic]
        subprocess.run([*command, "--state-dir", work, "--quiet"], env=environment, check=True)
    log = open(work / "worker.log", "w")
    worker = subprocess.Popen([args.bin, "worker"], env=environment, stdout=log, stderr=log)
    wanted = sum(raw.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ["wiki", "apache", "cloudtrail"])
    try:
        deadline = time.monotonic() + 180
        while (stored := len(read(work, "product_events", ["event_id"])) + len(read(work, "security_signals", ["event_id"])) + len(read(work, "quarantine", ["reason"]))) < wanted:
            if time.monotonic() > deadline or worker.poll() is not None:
                print((work / "worker.log").read_text()[-3000:])
                sys.exit(f"stored {stored} of {wanted} rows")
            time.sleep(0.5)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    compare(args, work, environment, raw, stored, wanted)


def read(work, table, columns):
    """Rows of all regions, by the Delta log and Parquet files alone."""
    import deltalake

    rows = []
    for region in REGIONS:
        path = work / "tables" / region / table
        if (path / "_delta_log").is_dir():
            rows += deltalake.DeltaTable(str(path)).to_pyarrow_table(columns=columns).to_pylist()
    return rows


def compare(args, work, environment, raw, stored, wanted):
    import collections
    import duckdb
    import pyarrow

    failures = []

    def same(what, found, expected):
        good = found == expected
        print(f"{'ok  ' if good else 'DIFF'} {what}: {len(found) if isinstance(found, list) else found}")
        if not good:
            failures.append(f"{what}\n  tables: {str(found)[:600]}\n  raw:    {str(expected)[:600]}")

    same("every row is stored or quarantined, once", stored, wanted)
    outside = "countryIsoCode IS NULL OR NOT list_contains(?, upper(countryIsoCode))"
    europe = europe_countries()
    refused = raw.execute(
        f"SELECT slug(channel), count(*) FILTER (slug(channel) = '{UNKNOWN_TENANT}'),"
        f" count(*) FILTER (slug(channel) = '{EUROPE_ONLY}' AND ({outside})) FROM wiki GROUP BY 1",
        [europe],
    ).fetchall()
    expected = {"unknown_tenant": sum(r[1] for r in refused), "region_not_allowed": sum(r[2] for r in refused)}
    found = collections.Counter(r["reason"] for r in read(work, "quarantine", ["reason"]))
    same("quarantine reasons", dict(found), expected)

    product = duckdb.connect()
    rows = pyarrow.Table.from_pylist(read(work, "product_events", ["event_id", "tenant", "region", "feature", "occurred_at", "payload", "_topic"]))
    product.register("product_events", rows)
    same("no event id twice", product.execute("SELECT count(*) - count(DISTINCT (tenant, event_id)) FROM product_events").fetchone()[0], 0)

    # 1. Edits and bytes added by wiki and namespace, over the tables' files.
    allowed = f"slug(channel) <> '{UNKNOWN_TENANT}' AND NOT (slug(channel) = '{EUROPE_ONLY}' AND ({outside}))"
    same(
        "query 1: edits and bytes added by tenant and feature",
        product.execute(
            "SELECT tenant, feature, count(*), sum(CAST(json_extract_string(payload, '$.added') AS BIGINT))::BIGINT"
            " FROM product_events WHERE _topic = 'wiki' GROUP BY ALL ORDER BY ALL"
        ).fetchall(),
        raw.execute(
            f"SELECT slug(channel), lower(trim(namespace)), count(*), sum(added)::BIGINT FROM wiki WHERE {allowed} GROUP BY ALL ORDER BY ALL",
            [europe],
        ).fetchall(),
    )

    def ask(tenant, sql):
        done = subprocess.run([args.bin, "sql", "--tenant", tenant, "--format", "json", sql], env=environment, check=True, capture_output=True, text=True)
        return [tuple(row.values()) for row in json.loads(done.stdout)]

    # 2. Requests by hour, through our own SQL.
    same(
        "query 2: requests by hour",
        ask("webshop", "SELECT CAST(date_part('epoch', date_trunc('hour', occurred_at)) AS BIGINT) h, count(*) n FROM product_events GROUP BY 1 ORDER BY 1"),
        raw.execute(
            "SELECT epoch(date_trunc('hour', strptime(regexp_extract(line, '\\[([^\\]]+)\\]', 1), '%d/%b/%Y:%H:%M:%S %z')))::BIGINT h, count(*)"
            " FROM apache GROUP BY 1 ORDER BY 1"
        ).fetchall(),
    )
    # 3. Signals by type and severity, through our own SQL.
    has_error = "errorCode" in [c[0] for c in raw.execute("DESCRIBE cloudtrail").fetchall()]
    severity = "CASE WHEN coalesce(errorCode, '') <> '' THEN 'high' ELSE 'medium' END" if has_error else "'medium'"
    same(
        "query 3: signals by type and severity",
        ask("acme", "SELECT signal_type, severity, count(*) n FROM security_signals GROUP BY 1, 2 ORDER BY 1, 2"),
        raw.execute(f"SELECT lower(trim(eventName)), {severity}, count(*) FROM cloudtrail GROUP BY 1, 2 ORDER BY 1, 2").fetchall(),
    )
    if failures:
        sys.exit("\n".join(["", *failures]))


def europe_countries():
    """The countries of eu-west-1, read from the map itself: the one thing both sides must share."""
    text = (ROOT / "pipelines/maps/wikiticker.yaml").read_text()
    block = re.search(r"eu-west-1: \[(.*?)\]", text, re.S).group(1)
    return re.findall(r"[A-Z]{2}", block)


if __name__ == "__main__":
    main()
