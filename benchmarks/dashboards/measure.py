"""The run itself: history, backfill, equal answers, times at rest, times while events keep coming."""

import datetime
import http.client
import json
import os
import pathlib
import platform
import shutil
import statistics
import threading
import time

import deltalake
import duckdb

import history
import questions
from product import Client, Deployment, wait_for

STREAM = "product_events"


def run(args, folder):
    names = history.tenants(args.tenants)
    extra = f'[tasks]\nshards = {args.shards}\n[worker]\npipelines = ["{STREAM}"]'
    report = {"machine": machine(), "rows": args.rows, "tenants": args.tenants, "users": args.users, "shards": args.shards, "runs": args.runs, "held_mib": args.held_mib}
    report["history"] = history_in(folder / "history", args, names, extra)
    args.stored_rows = report["history"]["rows"]
    work = folder / "run"
    shutil.rmtree(work, ignore_errors=True)
    # The run changes the log and adds files, but never a file that is there: links are enough.
    shutil.copytree(folder / "history/tables", work / "tables", copy_function=link)
    with Deployment(args.bin, work, names, extra) as deployment:
        deployment.start_broker()
        end = datetime.datetime.fromisoformat(report["history"]["end"])
        worker, report["backfill"] = backfill(deployment)
        query = deployment.start("query", QUERY__HELD_VIEWS_BYTES=args.held_mib << 20)
        deployment.ready(query)
        asked = questions.all_questions(end)
        sides = Sides(deployment, names)
        report["different_answers"] = compare(sides, asked, names[: args.compare])
        report["compared_tenants"] = len(names[: args.compare])
        report["held_after"] = held_after(sides, asked, names)
        report["at_rest"] = [times(sides, question, names, args) for question in asked]
        report["fresh"] = fresh(deployment, sides, asked, names, args)
        report["memory"] = {p.name: p.status("VmHWM") for p in (worker, query)}
        return report


def machine():
    cpu = next((l.split(":")[1].strip() for l in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if l.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "duckdb": duckdb.__version__, "python": platform.python_version()}


def link(source, target):
    return os.link(source, target) if source.endswith(".parquet") else shutil.copy2(source, target)


def history_in(folder, args, names, extra):
    """Makes the history, or takes the one that is there already if it is the same."""
    wanted = {"asked": args.rows, "tenants": args.tenants, "users": args.users}
    made = folder / "history.json"
    if made.exists():
        known = json.loads(made.read_text())
        if {key: known[key] for key in wanted} == wanted:
            print(f"the history of {known['end']} is there already", flush=True)
            return known
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Deployment(args.bin, folder, names, extra) as deployment:
        deployment.start_broker()
        known = make_history(deployment, args, names) | wanted
    made.write_text(json.dumps(known))
    return known


def make_history(deployment, args, names):
    """The table as the worker makes it, then files beside it; views only exist later."""
    worker = deployment.start("worker", name="table-maker", TASKS__ENABLED="false", VIEWS__ENABLED="false")
    root = deployment.tables / STREAM
    wait_for("the table", lambda: worker.alive() and (root / "_delta_log/00000000000000000000.json").exists(), 60)
    worker.stop()
    end = datetime.datetime.now(datetime.UTC).replace(second=0, microsecond=0)
    print(f"writing {args.rows:,} rows of {len(names)} tenants", flush=True)
    made = history.add(root, end, args.rows, names, args.users, say=lambda text: print(text, flush=True))
    return {**made, "end": end.isoformat()}


def backfill(deployment):
    """Starts the worker on the history and waits until every view is ready."""
    print("building the views", flush=True)
    worker = deployment.start("worker", SLO__PATHS="[]")
    began = time.monotonic()
    resident, finished = 0, {}

    def ready():
        nonlocal resident
        worker.alive()
        resident = max(resident, worker.status("VmRSS"))
        views = deployment.views()
        for name, view in views.items():
            if view["ready"] and name not in finished:
                finished[name] = round(time.monotonic() - began, 1)
                print(f"  {name} ready after {finished[name]} s", flush=True)
        return views and all(view["ready"] for view in views.values())

    wait_for("the views", ready, 7200, every=1)
    seconds = time.monotonic() - began
    state = {}
    for name in finished:
        shown = json.loads(deployment.command("pipeline", "show", name, "--json", config=True))
        status = shown["status"]
        behind = [p for p in status["parts"] if p["stream_version"] is not None and p["position"] != p["stream_version"]]
        if behind:
            raise RuntimeError(f"{name} is ready, but not at the newest version: {behind}")
        state[name] = {"ready_after": finished[name], "files": status["files"], "bytes": status["bytes"]}
    return worker, {"seconds": seconds, "cpu_seconds": worker.cpu_seconds(), "peak_memory": worker.status("VmHWM"), "views": state}


class Sides:
    """Both ways to an answer."""

    def __init__(self, deployment, names):
        self.clients = {name: Client(deployment, name) for name in names}
        self.table = deltalake.DeltaTable(str(deployment.tables / STREAM))
        self.root = deployment.tables / STREAM
        self.duckdb = duckdb.connect()
        self.duckdb.execute("SET TimeZone = 'UTC'")
        self.duckdb.execute("SET parquet_metadata_cache = true")
        self.files = {}
        self.list_files()

    def list_files(self):
        """Each tenant's files at the newest version."""
        self.table.update_incremental()
        self.files = {name: [] for name in self.clients}
        for uri in self.table.file_uris():
            tenant = uri.rpartition("/tenant=")[2].partition("/")[0]
            self.files[tenant].append(uri.removeprefix("file://"))

    def ours(self, question, tenant):
        return self.clients[tenant].ask(question[1])

    def raw(self, question, tenant, files=None):
        files = files or self.files[tenant]
        events = f"read_parquet({files}, hive_partitioning = true)"
        return self.duckdb.sql(question[2].format(events=events)).to_arrow_table()

    def raw_newest(self, question, tenant):
        """As someone must who wants fresh rows: the log is read first."""
        self.table.update_incremental()
        files = self.table.file_uris([("tenant", "=", tenant)])
        return self.raw(question, tenant, [f.removeprefix("file://") for f in files])


def compare(sides, asked, names):
    """Every question of every tenant, asked of both; those whose answers differ."""
    different = []
    for question in asked:
        rows = 0
        for tenant in names:
            ours, raw = questions.rows_of(sides.ours(question, tenant)), questions.rows_of(sides.raw(question, tenant))
            rows += len(raw)
            if ours != raw:
                odd = [r for r in ours if r not in raw][:3], [r for r in raw if r not in ours][:3]
                different.append({"question": question[0], "tenant": tenant, "ours": repr(odd[0]), "raw": repr(odd[1])})
        wrong = sum(d["question"] == question[0] for d in different)
        print(f"{'same' if not wrong else f'DIFFERENT for {wrong} tenants'}: {question[0]} ({rows} rows)", flush=True)
    return different


def held_after(sides, asked, names):
    """Seconds until the query process holds the views of all tenants, which their plans show."""
    began = time.monotonic()

    def held(question, tenant):
        plan = sides.ours(("", "EXPLAIN " + question[1]), tenant).to_pylist()
        return "ScopedScan" not in str(plan)

    for question in asked:
        for tenant in names:
            sides.ours(question, tenant)
            wait_for(f"{question[0]} of {tenant}", lambda: held(question, tenant), 120, every=0.05)
    return time.monotonic() - began


def timed(ask, *arguments):
    began = time.perf_counter()
    ask(*arguments)
    return (time.perf_counter() - began) * 1000


def summary(samples):
    ordered = sorted(samples)
    return {"p50": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], "runs": len(ordered)}


def times(sides, question, names, args):
    """Milliseconds of each side, tenants in turn; all is warm."""

    def of(ask):
        samples, until = [], time.monotonic() + args.seconds
        while len(samples) < args.runs and (len(samples) < 20 or time.monotonic() < until):
            samples.append(timed(ask, question, names[len(samples) % len(names)]))
        return samples

    ours, raw = of(sides.ours), of(sides.raw)
    result = {"question": question[0], "ours": summary(ours), "duckdb": summary(raw)}
    print(f"{result['duckdb']['p50'] / result['ours']['p50']:6.1f}x  {result['ours']['p50']:.1f} ms, {result['duckdb']['p50']:.1f} ms: {question[0]}", flush=True)
    return result


def fresh(deployment, sides, asked, names, args):
    """The same questions while events keep coming; how soon an event counts in a view; equal at the end."""
    gateway = deployment.start("gateway")
    deployment.ready(gateway)
    stop, sent = threading.Event(), []
    producer = threading.Thread(target=produce, args=(deployment, names, args.fresh_rate, stop, sent))
    producer.start()
    lag = []
    result = {question[0]: {"ours": [], "duckdb": []} for question in asked}
    until = time.monotonic() + args.fresh_seconds
    turn = 0
    try:
        while time.monotonic() < until:
            tenant = names[turn % len(names)]
            for question in asked:
                result[question[0]]["ours"].append(timed(sides.ours, question, tenant))
                result[question[0]]["duckdb"].append(timed(sides.raw_newest, question, tenant))
            turn += 1
            if turn % 5 == 0:
                lag.append(visible_after(deployment, sides, names[0], f"probe-{turn}"))
    finally:
        stop.set()
        producer.join()
    rows = args.stored_rows + sum(sent) + len(lag)
    wait_for("the views to catch up", lambda: caught_up(sides, names, rows), 60, every=1)
    sides.list_files()
    different = compare(sides, asked[:2], names[: args.compare])
    return {
        "seconds": args.fresh_seconds, "rate": args.fresh_rate, "events": sum(sent), "different_answers": different,
        "visible_after_s": summary(lag) if lag else None,
        "questions": [{"question": name, "ours": summary(v["ours"]), "duckdb": summary(v["duckdb"])} for name, v in result.items()],
    }


def send(deployment, connection, tenant, events):
    headers = {"Authorization": f"Bearer {deployment.tokens[tenant]}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/events", json.dumps(events), headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 202:
        raise RuntimeError(f"{answer.status}: {body[:300]!r}")


def event(tenant, number, feature="feature-x"):
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "event_id": f"fresh-{number}", "occurred_at": now, "tenant": tenant, "env": "prod", "region": "local", "user_id": "fresh-user",
        "role": "viewer", "feature": feature, "client": "web/1.5", "pii_classification": "pseudonymous", "payload": {"format": "csv"},
    }


def produce(deployment, names, rate, stop, sent):
    """About `rate` events a second, in batches of one tenant each."""
    connection = http.client.HTTPConnection("127.0.0.1", deployment.gateway, timeout=30)
    number, batch = 0, 10
    while not stop.wait(batch / rate):
        tenant = names[(number // batch) % len(names)]
        send(deployment, connection, tenant, [event(tenant, number + i) for i in range(batch)])
        number += batch
        sent.append(batch)


def visible_after(deployment, sides, tenant, feature):
    """Seconds from sending an event of a feature of its own until the view counts it."""
    connection = http.client.HTTPConnection("127.0.0.1", deployment.gateway, timeout=30)
    began = time.monotonic()
    send(deployment, connection, tenant, [event(tenant, feature, feature)])
    question = ("", f"SELECT events FROM feature_adoption WHERE feature = '{feature}'")
    wait_for(feature, lambda: sides.ours(question, tenant).num_rows > 0, 30, every=0.02)
    return time.monotonic() - began


def caught_up(sides, names, rows):
    """Whether the table has all rows that were sent, and the views' counts are those of the table."""
    total = 0
    for tenant in names:
        viewed = sides.ours(("", "SELECT sum(events) FROM daily_active_users"), tenant).column(0)[0].as_py()
        stored = sides.ours(("", f"SELECT count(*) FROM {STREAM}"), tenant).column(0)[0].as_py()
        if viewed != stored:
            return False
        total += stored
    return total == rows
