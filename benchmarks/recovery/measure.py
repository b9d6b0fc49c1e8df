"""The run: state built, its checkpoints measured, the worker killed and started again."""

import datetime
import http.client
import json
import os
import pathlib
import platform
import re
import threading
import time

import deltalake
import pyarrow

import logins
from product import Deployment, wait_for

EXTRA = f"""
[tasks]
shards = {logins.SHARDS}
[worker]
pipelines = ["{logins.STREAM}"]
# Bursts of one tenant are this benchmark's business, not the gateway's.
[gateway.rates.default]
events_per_second = 100000
burst_events = 400000
"""
# What the operator counts a login of this benchmark as, in bytes; only to choose how many to make.
BYTES_A_LOGIN = 577


def run(args, folder):
    names = logins.tenants(args.tenants_per_shard)
    with Deployment(args.bin, folder, names, EXTRA) as deployment:
        report = {"machine": {"cores": os.cpu_count(), "cpu": cpu()}, "state_gib": args.state_gib}
        deployment.start_broker()
        maker = deployment.start("worker", name="table-maker", TASKS__ENABLED="false", VIEWS__ENABLED="false")
        root = deployment.tables / logins.STREAM
        wait_for("the table", lambda: maker.alive() and (root / "_delta_log/00000000000000000000.json").exists(), 60)
        maker.stop()
        users = args.logins or int(args.state_gib * 2**30 / BYTES_A_LOGIN)
        print(f"writing {users:,} logins", flush=True)
        report["history"] = logins.add(root, datetime.datetime.now(datetime.UTC), users, names)
        gateway = deployment.start("gateway")
        deployment.ready(gateway)
        report["build"] = build(deployment, users)
        producer = Producer(deployment, names, args.rate)
        with producer:
            report["live"] = live(deployment, args.live_seconds)
            report["recovery"] = [recover(deployment, producer, names, args, number) for number in range(args.crashes)]
        return report


def cpu():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((l.split(":")[1].strip() for l in lines if l.startswith("model name")), platform.machine())


class Checkpoints:
    """Watches the shards' checkpoints: of each, whether it was of everything or of changes, its bytes and seconds."""

    def __init__(self, deployment, name):
        self.deployment, self.name, self.seen = deployment, name, []
        self.stop, self.thread = threading.Event(), threading.Thread(target=self.work)

    def __enter__(self):
        self.known = self.counts()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def counts(self):
        metrics, counts = self.deployment.metrics(self.name), {}
        for key, name in [("count", "seconds_count"), ("seconds", "seconds_sum"), ("bytes", "bytes_sum")]:
            for labels, value in of_detect(metrics, f"companyos_checkpoint_{name}"):
                counts.setdefault(labels["shard"], {})[key] = value
        return counts

    def work(self):
        while not self.stop.wait(0.2):
            now, newest = self.counts(), manifests(self.deployment)
            for shard, counted in now.items():
                before = self.known.get(shard, {"count": 0, "seconds": 0, "bytes": 0})
                # Two since the last look cannot be told apart; at one in ten seconds that does not happen.
                if counted["count"] - before["count"] == 1 and newest[int(shard)]:
                    kind = "full" if len(newest[int(shard)]["chain"]) == 1 else "changes"
                    self.seen.append({"shard": shard, "kind": kind, "bytes": counted["bytes"] - before["bytes"], "seconds": counted["seconds"] - before["seconds"]})
            self.known = now or self.known

    def of(self, kind):
        """The kind's number of checkpoints, mean bytes and seconds, and the longest."""
        these = [c for c in self.seen if c["kind"] == kind]
        mean = lambda key: sum(c[key] for c in these) / max(1, len(these))
        return {"count": len(these), "bytes": mean("bytes"), "seconds": mean("seconds"), "longest": max((c["seconds"] for c in these), default=0)}


def of_detect(metrics, name):
    return [(labels, value) for labels, value in metrics.get(name, []) if labels.get("operator") == "detect"]


def total(metrics, name):
    return sum(value for _, value in of_detect(metrics, name))


def tails(metrics):
    """(shards that report, versions behind): shards whose log is read to its end report 0."""
    lags = [(labels["shard"], value) for labels, value in of_detect(metrics, "companyos_tail_lag_versions") if labels.get("table") == logins.STREAM]
    return len({shard for shard, _ in lags}), sum(value for _, value in lags)


def build(deployment, users):
    """Starts the worker on the history; ends when all of it is in state and in a checkpoint."""
    began = time.monotonic()
    worker = deployment.start("worker", VIEWS__ENABLED="false")
    newest = deltalake.DeltaTable(str(deployment.tables / logins.STREAM)).version()

    def read():
        worker.alive()
        return all(m and m["positions"].get(logins.STREAM, -1) >= newest for m in manifests(deployment).values())

    wait_for("the state", read, 3600, every=0.5)
    seconds = time.monotonic() - began
    metrics = deployment.metrics("worker")
    result = {
        "seconds": seconds, "logins_per_second": users / seconds, "cpu_seconds": worker.cpu_seconds(),
        "state_bytes": total(metrics, "companyos_state_bytes"), "state_keys": total(metrics, "companyos_state_keys"),
        "peak_memory": worker.status("VmHWM"), "memory": worker.status("VmRSS"), "checkpoints": checkpoints(metrics), "chain": chain(deployment),
    }
    print(f"state {result['state_bytes'] / 2**30:.2f} GiB by its own count, resident {result['memory'] / 2**30:.2f} GiB, {seconds:.0f} s", flush=True)
    return result


def checkpoints(metrics):
    """How many checkpoints were written, their bytes and seconds, over all shards, so far."""
    return {
        "count": total(metrics, "companyos_checkpoint_seconds_count"),
        "seconds": total(metrics, "companyos_checkpoint_seconds_sum"),
        "bytes": total(metrics, "companyos_checkpoint_bytes_sum"),
    }


def manifests(deployment):
    """The newest manifest of every shard."""
    found = {}
    for shard in range(logins.SHARDS):
        folder = deployment.tables / f"_state/detect/{shard}-of-{logins.SHARDS}/manifest"
        newest = max(folder.glob("*.json"), default=None)
        try:
            found[shard] = json.loads(newest.read_text()) if newest else None
        except (OSError, ValueError):
            found[shard] = None
    return found


def chain(deployment):
    """Bytes of the newest checkpoints: the full snapshot, and the changes after it."""
    steps = [[sum(f["bytes"] for f in step["files"]) for step in m["chain"]] for m in manifests(deployment).values() if m]
    return {"full": sum(s[0] for s in steps if s), "changes": sum(sum(s[1:]) for s in steps), "steps": [len(s) for s in steps]}


class Producer:
    """Logins of new users at a steady rate, sent through the gateway until the block ends."""

    def __init__(self, deployment, names, rate):
        self.deployment, self.names, self.rate = deployment, names, rate
        self.stop, self.sent, self.problem = threading.Event(), 0, None
        self.thread = threading.Thread(target=self.work)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def work(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.deployment.gateway, timeout=60)
        batch, number, due = 20, 0, time.monotonic()
        try:
            while not self.stop.is_set():
                tenant = self.names[number % len(self.names)]
                send(self.deployment, connection, tenant, [login(tenant, f"live-{number}-{i}") for i in range(batch)])
                self.sent += batch
                number += 1
                due += batch / self.rate
                self.stop.wait(max(0.0, due - time.monotonic()))
        except Exception as problem:
            self.problem = problem


def login(tenant, name):
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "event_id": name, "occurred_at": now, "tenant": tenant, "env": "prod", "region": "local", "actor": f"{name}@{tenant}.example",
        "signal_type": "login", "severity": "info", "class_uid": 3002, "evidence": logins.evidence(f"{name}@{tenant}.example", f"s-{name}"),
    }


def send(deployment, connection, tenant, events):
    headers = {"Authorization": f"Bearer {deployment.tokens[tenant]}", "Content-Type": "application/json"}
    connection.request("POST", f"/v1/events/{logins.STREAM}", json.dumps(events), headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 202:
        raise RuntimeError(f"{answer.status}: {body[:300]!r}")


def live(deployment, seconds):
    """Checkpoints while events arrive: of changes, as configured; then of everything, each of them."""
    result = {"wall": seconds}
    with Checkpoints(deployment, "worker") as watched:
        time.sleep(seconds)
    result["changes"], result["full_meanwhile"] = watched.of("changes"), watched.of("full")
    worker = deployment.running[-1]
    worker.stop()
    # Zero snapshots of changes between two of everything.
    worker = deployment.start("worker", name="worker-full", VIEWS__ENABLED="false", TASKS__FULL_EVERY=0)
    wait_for("the worker", lambda: worker.alive() and tails(deployment.metrics("worker-full"))[0] == logins.SHARDS, 600)
    with Checkpoints(deployment, "worker-full") as watched:
        wait_for("full checkpoints", lambda: worker.alive() and watched.of("full")["count"] >= 2 * logins.SHARDS, 300)
    result["full"] = watched.of("full") | {"peak_memory": worker.status("VmHWM")}
    worker.stop()
    worker = deployment.start("worker", name="worker-again", VIEWS__ENABLED="false")
    wait_for("the worker", lambda: worker.alive() and tails(deployment.metrics("worker-again"))[0] == logins.SHARDS, 600)
    # So that what is read back is as it usually is: a full snapshot and some changes.
    with Checkpoints(deployment, "worker-again") as watched:
        wait_for("checkpoints", lambda: worker.alive() and watched.of("changes")["count"] >= 2 * logins.SHARDS, 300)
    for kind in ("changes", "full"):
        print(f"checkpoints of {kind}: {result[kind]}", flush=True)
    return result


def recover(deployment, producer, names, args, number):
    """Kills the worker, leaves it away for a while, starts it, and waits until nothing is behind."""
    worker = deployment.running[-1]
    worker.kill()
    held = chain(deployment)
    bare = [read_bare(deployment) for _ in range(3)]
    time.sleep(args.down_seconds)
    markers = mark(deployment, names, number)
    sent = producer.sent
    settings = {"KAFKA__INSTANCE_ID": "recovery"} if args.static_member else {}
    began = time.monotonic()
    started = time.time()
    worker = deployment.start("worker", name=f"worker-{number}", VIEWS__ENABLED="false", **settings)
    times = {}

    def caught_up():
        worker.alive()
        shards, behind = tails(deployment.metrics(worker.name))
        if shards == logins.SHARDS and "log_read" not in times and behind == 0:
            times["log_read"] = time.monotonic() - began
        if found(deployment, markers):
            times["found"] = time.monotonic() - began
        return "found" in times and "log_read" in times

    wait_for("the worker to have caught up", caught_up, 1800, every=0.1)
    restored = [stamp - started for stamp in restored_at(worker)]
    metrics = deployment.metrics(worker.name)
    result = {
        "chain": held, "bare": bare[-1], "bare_first_seconds": bare[0]["seconds"], "sent_before_start": sent,
        "assigned_to_restored": restored, "restored": max(restored, default=None), "log_read": times["log_read"], "caught_up": times["found"],
        "peak_memory": worker.status("VmHWM"), "memory": worker.status("VmRSS"), "cpu_seconds": worker.cpu_seconds(),
        "state_bytes": total(metrics, "companyos_state_bytes"), "state_keys": total(metrics, "companyos_state_keys"),
        "ratio": times["found"] / bare[-1]["seconds"],
    }
    print(
        f"restored after {result['restored']:.1f} s, caught up after {result['caught_up']:.1f} s, bare {bare[-1]['seconds']:.2f} s,"
        f" peak {result['peak_memory'] / 2**30:.2f} GiB", flush=True,
    )
    if producer.problem:
        raise producer.problem
    return result


def restored_at(worker):
    """Wall-clock times of the log's lines that say that the operator has taken its state back."""
    stamps = []
    for line in worker.log.read_text().splitlines():
        line = re.sub(r"\x1b\[[0-9;]*m", "", line)
        if "operator started" in line and "detect" in line:
            stamps.append(datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp())
    return sorted(stamps)


def mark(deployment, names, number):
    """One event in every shard that a rule of one event finds, sent while nobody reads."""
    markers = set()
    for shard in range(logins.SHARDS):
        tenant = next(name for name in names if logins.shard_of(name) == shard)
        marker = f"marker-{number}-{shard}"
        event = login(tenant, marker) | {"actor": marker, "signal_type": "replayed_token", "class_uid": None, "evidence": {"verdict": "refused"}}
        connection = http.client.HTTPConnection("127.0.0.1", deployment.gateway, timeout=30)
        send(deployment, connection, tenant, [{k: v for k, v in event.items() if v is not None}])
        markers.add(marker)
    return markers


def found(deployment, markers):
    """Whether the table of findings has the markers of all shards."""
    folder = deployment.tables / "detections"
    if not (folder / "_delta_log").is_dir():
        return False
    entities = deltalake.DeltaTable(str(folder)).to_pyarrow_table(columns=["entity"]).column(0).to_pylist()
    return markers <= set(entities)


def read_bare(deployment):
    """The bare limit: the same files read and decompressed one after the other, and nothing done with them."""
    began = time.perf_counter()
    stored = rows = plain = 0
    for shard, manifest in manifests(deployment).items():
        for step in manifest["chain"]:
            for file in step["files"]:
                path = deployment.tables / f"_state/detect/{shard}-of-{logins.SHARDS}" / file["path"]
                table = pyarrow.ipc.open_stream(pyarrow.py_buffer(path.read_bytes())).read_all()
                stored, rows, plain = stored + file["bytes"], rows + table.num_rows, plain + table.nbytes
    return {"seconds": time.perf_counter() - began, "stored_bytes": stored, "plain_bytes": plain, "rows": rows}
