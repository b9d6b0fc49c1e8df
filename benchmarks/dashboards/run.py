#!/usr/bin/env python3
"""Dashboards on views against DuckDB over the raw rows: one command, both in the same run.

    python3 benchmarks/dashboards/run.py --bin target/release/companyos

Writes a month of 50 tenants' product events into the product's own Delta table, lets `companyos
worker` build its views from it, asks both sides the same questions, compares every answer, and
writes results.md and results.json beside this file. README.md says what is measured and what is not
fair. Needs Python 3.10; duckdb, deltalake, pyarrow and numpy from PyPI are installed into a virtual
environment in the cache folder if they are missing.
"""

import argparse
import datetime
import json
import pathlib
import shutil
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=ROOT / "target/release/companyos", type=pathlib.Path)
    parser.add_argument("--rows", default=100_000_000, type=int)
    parser.add_argument("--tenants", default=50, type=int)
    parser.add_argument("--users", default=2000, type=int, help="users of a tenant")
    parser.add_argument("--runs", default=200, type=int, help="times each question is asked of each side")
    parser.add_argument("--seconds", default=60, type=int, help="longest time for one question and side, after 20 runs")
    parser.add_argument("--compare", default=1000, type=int, help="tenants whose answers are compared")
    parser.add_argument("--fresh-seconds", default=60, type=int, help="length of the part in which events keep coming")
    parser.add_argument("--fresh-rate", default=50, type=int, help="events a second then, over all tenants")
    parser.add_argument("--shards", default=4, type=int, help="tasks.shards")
    parser.add_argument("--held-mib", default=4096, type=int, help="query.held_views_bytes, in MiB")
    parser.add_argument("--dir", type=pathlib.Path, help="where tables and logs go, and stay: another run takes the history from there; a temporary folder otherwise")
    parser.add_argument("--results", default=HERE / "results.md", type=pathlib.Path)
    return parser.parse_args()


def main():
    args = arguments()
    from packages import ensure_packages

    ensure_packages(__file__)
    import measure

    folder = args.dir or pathlib.Path(tempfile.mkdtemp(prefix="companyos-dashboards-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        report = measure.run(args, folder)
        report["command"] = " ".join(["python3", "benchmarks/dashboards/run.py", *sys.argv[1:]])
        report["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        import report as writer

        text = writer.markdown(report)
        args.results.write_text(text)
        args.results.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        print(text)
    finally:
        if not args.dir:
            shutil.rmtree(folder, ignore_errors=True)
    different = report["different_answers"] + report["fresh"]["different_answers"]
    if different:
        sys.exit(f"{len(different)} answers differ")


if __name__ == "__main__":
    main()
