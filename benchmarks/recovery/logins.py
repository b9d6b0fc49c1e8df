"""A day of logins by very many users as the product's security_signals table, for state to be held of.

The table is made by the worker itself; files are written here in its layout and added to its log in
the order of their time, so that the detections' operator reads them as it would have read them live.
Every login is of a user of its own, with a place and a second factor: it stays in the memory of
impossible travel (a day), of habits of a second factor (30 days) and, while young, of brute force
and of sessions.
"""

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

STREAM = "security_signals"
SHARDS = 4


def shard_of(tenant):
    """The product's rule: the first eight bytes of the name's SHA-256."""
    return int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:8], "big") % SHARDS


def tenants(each):
    """Names of as many tenants in every shard."""
    by_shard, number = {shard: [] for shard in range(SHARDS)}, 0
    while any(len(names) < each for names in by_shard.values()):
        name = f"org-{number:03}"
        if len(by_shard[shard_of(name)]) < each:
            by_shard[shard_of(name)].append(name)
        number += 1
    return sorted(name for names in by_shard.values() for name in names)


def evidence(user, session, mfa=True):
    """What an identity provider says about a login."""
    return {
        "status": "success", "user": {"name": user}, "is_mfa": mfa,
        "actor": {"session": {"uid": session}},
        "src_endpoint": {"ip": "203.0.113.7", "location": {"lat": 51.5, "long": -0.12}},
    }


def repeated(value, rows):
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(numpy.zeros(rows, numpy.int32)), pyarrow.array([value]))


def write_file(root, tenant, day, first_user, micros, offset, name):
    rows = len(micros)
    users = [f"user-{first_user + i:08}@{tenant}.example" for i in range(rows)]
    stamp = pyarrow.timestamp("us", "UTC")
    text = json.dumps(evidence("USER", "SESSION"), separators=(",", ":"))
    empty = pyarrow.nulls(rows, pyarrow.string())
    columns = [
        ("event_id", pyarrow.array([f"login-{first_user + i:08}" for i in range(rows)]), False),
        ("occurred_at", pyarrow.array(micros, stamp), False),
        ("env", repeated("prod", rows), False),
        ("actor", pyarrow.array(users), False),
        ("signal_type", repeated("login", rows), False),
        ("severity", repeated("info", rows), False),
        ("evidence", pyarrow.array([text.replace("USER", u).replace("SESSION", f"s-{first_user + i:08}") for i, u in enumerate(users)]), False),
        ("lineage", empty, True),
        ("class_uid", pyarrow.array(numpy.full(rows, 3002)), True),
        ("nonce", empty, True),
        ("source", empty, True),
        ("signature", empty, True),
        ("pii_classification", empty, True),
        ("payload_hash", empty, True),
        ("payload", empty, True),
        ("_topic", repeated("history", rows), False),
        ("_partition", pyarrow.array(numpy.zeros(rows, numpy.int32)), False),
        ("_offset", pyarrow.array(offset + numpy.arange(rows)), False),
        ("_index", pyarrow.array(numpy.zeros(rows, numpy.int32)), False),
        ("_ingested_at", pyarrow.array(micros + 500_000, stamp), False),
        ("_trace_id", empty, True),
        ("_dlp_rules", empty, True),
        ("_origin", empty, True),
    ]
    schema = pyarrow.schema([pyarrow.field(n, c.type, nullable) for n, c, nullable in columns])
    below = f"tenant={tenant}/region=local/day={day}/part-{name}.zstd.parquet"
    path = pathlib.Path(root) / below
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_arrays([c for _, c, _ in columns], schema=schema)
    pyarrow.parquet.write_table(table, path, compression="zstd", store_schema=False)
    values = {"tenant": tenant, "region": "local", "day": day}
    return AddAction(below, path.stat().st_size, values, int(time.time() * 1000), True, json.dumps(statistics(micros, offset)))


def statistics(micros, offset):
    """What the product's writer says of a file, as far as readers of the log prune by it."""
    iso = lambda t: datetime.datetime.fromtimestamp(int(t) / 1e6, datetime.UTC).isoformat(timespec="milliseconds")[:23] + "Z"
    least = {"occurred_at": iso(micros[0]), "_ingested_at": iso(micros[0] + 500_000), "_partition": 0, "_offset": int(offset)}
    most = {"occurred_at": iso(micros[-1] + 1000), "_ingested_at": iso(micros[-1] + 501_000), "_partition": 0, "_offset": int(offset) + len(micros) - 1}
    return {"numRecords": len(micros), "minValues": least, "maxValues": most, "nullCount": {name: 0 for name in least}}


def add(root, end, users, names, hours=20, per_commit=100_000):
    """Adds logins of `users` users, the last one at `end`."""
    table = deltalake.DeltaTable(str(root))
    commits = max(1, -(-users // per_commit))
    span = hours * 3600 * 1_000_000
    first = int(end.timestamp() * 1e6) - span
    size, user = 0, 0
    for number in range(commits):
        rows = users * (number + 1) // commits - users * number // commits
        actions = []
        for index, tenant in enumerate(names):
            own = rows * (index + 1) // len(names) - rows * index // len(names)
            low, high = first + span * number // commits, first + span * (number + 1) // commits
            micros = numpy.linspace(low, high, own, endpoint=False).astype(numpy.int64)
            days = micros // 86_400_000_000
            for day in numpy.unique(days):
                part = micros[days == day]
                date = (datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day))).isoformat()
                actions.append(write_file(root, tenant, date, user, part, user, f"{number:05}-{day}"))
                user += len(part)
        size += sum(action.size for action in actions)
        table.create_write_transaction(actions, "append", table.schema(), ["tenant", "region", "day"])
        table.update_incremental()
    return {"logins": user, "commits": commits, "bytes": size}
