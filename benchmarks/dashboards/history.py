"""A month of product events as a Delta table that the worker takes for its own.

The table is made by the worker itself; files are written here in its layout (one file a tenant and
day, which is what compaction leaves; sorted by time, zstd level 3, the same columns and statistics)
and added to its log. Row *i* of a tenant and day depends on the seed alone.
"""

import concurrent.futures
import datetime
import hashlib
import json
import pathlib
import time

import deltalake
import numpy
import pyarrow
import pyarrow.parquet
from deltalake.transaction import AddAction

FEATURES = [f"feature-{name}" for name in "x editor search export share comment report import board api audit theme".split()]
ROLES = ["viewer", "editor", "analyst", "admin", "owner"]
ROLE_SHARES = [0.5, 0.25, 0.15, 0.07, 0.03]
CLIENTS = ["web/1.4", "web/1.5", "ios/3.2", "android/3.1", "cli/0.9", "desktop/2.0"]
PAYLOADS = [json.dumps({"format": f, "ok": ok}, separators=(",", ":")) for f in ("csv", "pdf", "xlsx") for ok in (True, False)]
DAYS = 30


def tenants(count):
    return [f"tenant-{i:02}" for i in range(count)]


def plan(end, rows, names):
    """(tenant, day, first second, last second, rows) of every file; rows in proportion to time, two thirds at weekends."""
    start = end - datetime.timedelta(days=DAYS)
    spans = []
    at = start
    while at < end:
        midnight = datetime.datetime.combine(at.date() + datetime.timedelta(days=1), datetime.time(), datetime.UTC)
        spans.append((at, min(midnight, end)))
        at = midnight
    weights = numpy.array([(b - a).total_seconds() * (0.67 if a.weekday() >= 5 else 1.0) for a, b in spans])
    steps = len(names)
    cuts = numpy.round(numpy.concatenate([[0.0], numpy.cumsum(numpy.repeat(weights, steps))]) / (weights.sum() * steps) * rows)
    counts = numpy.diff(cuts).astype(int)
    jobs = []
    for i, (a, b) in enumerate(spans):
        for j, name in enumerate(names):
            jobs.append((name, a.date().isoformat(), a.timestamp(), b.timestamp(), int(counts[i * steps + j]), j, i))
    return [job for job in jobs if job[4] > 0]


def coded(values, codes):
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(codes.astype(numpy.int32)), pyarrow.array(values))


def event_ids(rng, rows):
    digits = numpy.frombuffer(b"0123456789abcdef", numpy.uint8)
    raw = rng.integers(0, 256, (rows, 16), numpy.uint8)
    text = numpy.empty((rows, 32), numpy.uint8)
    text[:, 0::2], text[:, 1::2] = digits[raw >> 4], digits[raw & 15]
    offsets = numpy.arange(0, 32 * (rows + 1), 32, dtype=numpy.int32)
    return pyarrow.StringArray.from_buffers(rows, pyarrow.py_buffer(offsets.tobytes()), pyarrow.py_buffer(text.tobytes()))


def write_file(root, users, job):
    """One file, and the action that adds it to the log."""
    tenant, day, first, last, rows, tenant_index, day_index = job
    rng = numpy.random.default_rng([20260101, tenant_index, day_index])
    micros = numpy.sort(rng.integers(int(first * 1e6), int(last * 1e6), rows))
    # A few users do much, most do little; a user keeps one role.
    user = (rng.random(rows) ** 2 * users).astype(numpy.int64)
    roles = numpy.random.default_rng([7, tenant_index]).choice(len(ROLES), users, p=ROLE_SHARES)
    shares = 1 / (1 + numpy.arange(len(FEATURES)))
    if day_index > DAYS - 8:
        # The last week a feature of each tenant is used far less: something for the report to find.
        shares[1 + tenant_index % 4] *= 0.5
    feature = rng.choice(len(FEATURES), rows, p=shares / shares.sum())
    payload = rng.integers(0, len(PAYLOADS), rows)
    names = [f"u-{tenant_index:02}-{i:06}" for i in range(users)]
    user_ids = pyarrow.DictionaryArray.from_arrays(pyarrow.array(user.astype(numpy.int32), mask=rng.random(rows) < 0.01), pyarrow.array(names))
    stamp = pyarrow.timestamp("us", "UTC")
    ingested = micros + rng.integers(200_000, 1_500_000, rows)
    partition = rng.integers(0, 4, rows).astype(numpy.int32)
    empty = pyarrow.nulls(rows, pyarrow.string())
    hashes = [hashlib.sha256(p.encode()).hexdigest() for p in PAYLOADS]
    columns = [
        ("event_id", event_ids(rng, rows), False),
        ("occurred_at", pyarrow.array(micros, stamp), False),
        ("user_id", user_ids, True),
        ("role", coded(ROLES, roles[user]), False),
        ("feature", coded(FEATURES, feature), False),
        ("env", coded(["prod", "staging"], (rng.random(rows) < 0.1)), False),
        ("client", coded(CLIENTS, rng.integers(0, len(CLIENTS), rows)), False),
        ("pii_classification", coded(["pseudonymous"], numpy.zeros(rows)), False),
        ("payload_hash", coded(hashes, payload), False),
        ("payload", coded(PAYLOADS, payload), True),
        ("_topic", coded(["history"], numpy.zeros(rows)), False),
        ("_partition", pyarrow.array(partition), False),
        ("_offset", pyarrow.array(day_index * 10**9 + numpy.arange(rows)), False),
        ("_index", pyarrow.array(numpy.zeros(rows, numpy.int32)), False),
        ("_ingested_at", pyarrow.array(ingested, stamp), False),
        ("_trace_id", empty, True),
        ("_dlp_rules", empty, True),
        ("_origin", empty, True),
    ]
    schema = pyarrow.schema([pyarrow.field(name, column.type, nullable) for name, column, nullable in columns])
    table = pyarrow.Table.from_arrays([column for _, column, _ in columns], schema=schema)
    below = f"tenant={tenant}/region=local/day={day}/part-history-{tenant_index:04}.zstd.parquet"
    path = pathlib.Path(root) / below
    path.parent.mkdir(parents=True, exist_ok=True)
    text = [name for name, column, _ in columns if pyarrow.types.is_dictionary(column.type) or name == "_topic"]
    pyarrow.parquet.write_table(
        table, path, compression="zstd", compression_level=3, use_dictionary=text, store_schema=False,
        row_group_size=1_000_000, write_page_index=True,
    )
    iso = lambda t: datetime.datetime.fromtimestamp(int(t) / 1e6, datetime.UTC).isoformat(timespec="milliseconds")[:23] + "Z"
    beyond = lambda t: iso(int(t) + 1000)
    least = {"occurred_at": iso(micros[0]), "_ingested_at": iso(ingested.min()), "env": "prod"}
    most = {"occurred_at": beyond(micros[-1]), "_ingested_at": beyond(ingested.max()), "env": "staging"}
    stats = {"numRecords": rows, "minValues": least, "maxValues": most, "nullCount": {"occurred_at": 0, "_ingested_at": 0, "env": 0}}
    values = {"tenant": tenant, "region": "local", "day": day}
    return below, path.stat().st_size, values, int(time.time() * 1000), json.dumps(stats)


def add(root, end, rows, names, users, workers=2, say=print):
    """Writes the files and adds them, a commit a day. Returns what was written, in figures."""
    jobs = plan(end, rows, names)
    began = time.monotonic()
    by_day = {}
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        done = pool.map(write_file, [root] * len(jobs), [users] * len(jobs), jobs, chunksize=4)
        for number, (job, written) in enumerate(zip(jobs, done), 1):
            by_day.setdefault(job[1], []).append(AddAction(*written[:3], written[3], True, written[4]))
            if number % 250 == 0:
                say(f"  {number} of {len(jobs)} files, {time.monotonic() - began:.0f} s")
    table = deltalake.DeltaTable(str(root))
    for _, actions in sorted(by_day.items()):
        table.create_write_transaction(actions, "append", table.schema(), ["tenant", "region", "day"])
        table.update_incremental()
    table.create_checkpoint()
    sizes = [action.size for actions in by_day.values() for action in actions]
    return {
        "rows": sum(job[4] for job in jobs), "files": len(sizes), "bytes": sum(sizes),
        "median_file": int(numpy.median(sizes)), "seconds": time.monotonic() - began,
    }
