"""Flink SQL over the topics of the benchmark, for comparison with the engine.

Runs the SELECTs of a file as one job: into blackhole sinks, with a run over another topic before it so that what is
timed is warm, or (--answer FILE) with the rows written down, changes folded. The cluster is the one PyFlink starts
in its own JVM; JVM_ARGS in the environment sizes it.
"""

import argparse
import collections
import datetime
import decimal
import json
import os
import re
import time

from pyflink.common import Configuration, RowKind
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, TableDescriptor, TableEnvironment

import rules

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

SETTINGS = {
    "execution.runtime-mode": "STREAMING",
    "parallelism.default": "2",
    "state.backend.type": "hashmap",
    "pipeline.object-reuse": "true",
    "table.local-time-zone": "UTC",
    # Those of the Nexmark project.
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "2 s",
    "table.exec.mini-batch.size": "50000",
    "table.optimizer.distinct-agg.split.enabled": "true",
}


def statements(path: str, values: dict):
    """The statements of a file, split at semicolons that end a line, placeholders in double braces filled."""
    with open(path) as file:
        text = "\n".join(line for line in file.read().splitlines() if not line.lstrip().startswith("--"))
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return [s.strip() for s in re.split(r";\s*(?:\n|$)", text) if s.strip()]


def environment(args, suffix: str):
    """A table environment with the sources and views, and the SELECTs to run."""
    configuration = Configuration()
    for key, value in SETTINGS.items():
        configuration.set_string(key, value)
    configuration.set_string("pipeline.jars", ";".join("file://" + os.path.join(args.jars, j) for j in os.listdir(args.jars)))
    env = TableEnvironment.create(EnvironmentSettings.new_instance().with_configuration(configuration).build())
    values = {"brokers": args.brokers, "suffix": suffix}
    if args.rules:
        predicates, values["evidence"] = rules.translate(args.rules)
        values["rules"] = rules.matched(predicates)
    selects = []
    for path in [args.tables, *args.query]:
        for statement in statements(path, values):
            if statement.upper().startswith("CREATE"):
                env.execute_sql(statement)
            else:
                selects.append(statement)
    return env, selects


def run(args, suffix: str) -> float:
    """Runs the job to the topic's end; returns the seconds from its submission."""
    env, selects = environment(args, suffix)
    started = time.time()
    job = env.create_statement_set()
    for select in selects:
        job.add_insert(TableDescriptor.for_connector("blackhole").build(), env.sql_query(select))
    job.execute().wait()
    return time.time() - started


def plain(value):
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value


def answers(args):
    """Each SELECT's rows at the topic's end, after all changes."""
    env, selects = environment(args, args.topic_suffix)
    result = []
    for select in selects:
        began = time.time()
        schema = env.sql_query(select).get_schema()
        names = schema.get_field_names()
        # Not every type of time can be handed to Python.
        columns = [
            f"CAST(`{name}` AS STRING)" if "TIMESTAMP" in str(kind).upper() else f"`{name}`"
            for name, kind in zip(names, schema.get_field_data_types())
        ]
        table = env.sql_query(f"SELECT {', '.join(columns)} FROM ({select})")
        rows = collections.Counter()
        with table.execute().collect() as changes:
            for row in changes:
                key = tuple(plain(v) for v in row)
                rows[key] += 1 if row.get_row_kind() in (RowKind.INSERT, RowKind.UPDATE_AFTER) else -1
        result.append({"columns": names, "rows": [row for row, count in rows.items() for _ in range(count)]})
        print(f"{len(rows)} different rows in {time.time() - began:.1f} s", flush=True)
    return result


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def jvm() -> int:
    """The JVM that PyFlink started: this process's only child. Started if it was not."""
    get_gateway()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as children:
            for child in children.read().split():
                return int(child)
    raise RuntimeError("PyFlink's JVM is not to be found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--tables", required=True, help="SQL file that declares the sources")
    parser.add_argument("--query", required=True, nargs="+", help="SQL files with views and the SELECTs to run")
    parser.add_argument("--rules", help="folder of Sigma rules, for {{rules}} and {{evidence}}")
    parser.add_argument("--topic-suffix", required=True, help="what {{suffix}} stands for in the sources")
    parser.add_argument("--warm-up-suffix", help="the same for the topics of the run before")
    parser.add_argument("--jars", required=True, help="folder with the Kafka connector")
    parser.add_argument("--report", required=True, help="file for times as JSON")
    parser.add_argument("--answer", help="file for the rows as JSON; nothing is timed")
    args = parser.parse_args()

    if args.answer:
        with open(args.answer, "w") as out:
            json.dump(answers(args), out)
        return
    started = time.time()
    if args.warm_up_suffix:
        run(args, args.warm_up_suffix)
    before_s, before_cpu_s = time.time() - started, cpu_seconds(jvm())
    seconds = run(args, args.topic_suffix)
    report = {
        "version": __import__("pyflink.version", fromlist=["__version__"]).__version__,
        "before_s": before_s,
        "before_cpu_s": before_cpu_s,
        "seconds": seconds,
        "cpu_s": cpu_seconds(jvm()) - before_cpu_s,
        "rules": len(rules.translate(args.rules)[0]) if args.rules else 0,
    }
    with open(args.report, "w") as out:
        json.dump(report, out, indent=1)


if __name__ == "__main__":
    main()
