#!/usr/bin/env python3
"""Checkpoints of large state and recovery from them, against reading the same bytes: one command.

    python3 benchmarks/recovery/run.py --bin target/release/companyos

Makes a worker hold about a GiB of operator state, measures its checkpoints, kills it with SIGKILL
while events keep coming, and measures from its start to when nothing is behind. Writes results.md
and results.json beside this file; README.md says what is measured and what is not fair.
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
# Processes and packages are handled as in the other benchmark in Python. Its modules come second:
# both folders have a `measure`.
sys.path.append(str(HERE.parent / "dashboards"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=ROOT / "target/release/companyos", type=pathlib.Path)
    parser.add_argument("--state-gib", default=1.0, type=float, help="state to hold, by the operator's own count")
    parser.add_argument("--logins", type=int, help="logins to make, instead of as many as the state is thought to need")
    parser.add_argument("--tenants-per-shard", default=2, type=int)
    parser.add_argument("--rate", default=500, type=int, help="events a second that keep coming")
    parser.add_argument("--live-seconds", default=45, type=int, help="how long checkpoints are watched before the first crash")
    parser.add_argument("--crashes", default=3, type=int)
    parser.add_argument("--down-seconds", default=10, type=int, help="how long the worker is away")
    parser.add_argument("--static-member", action="store_true", help="start again as the same member of the group (kafka.instance_id)")
    parser.add_argument("--dir", type=pathlib.Path, help="where tables and logs go, and stay; a temporary folder otherwise")
    parser.add_argument("--results", default=HERE / "results.md", type=pathlib.Path)
    args = parser.parse_args()

    from packages import ensure_packages

    ensure_packages(__file__)
    import measure
    import report as writer

    folder = args.dir or pathlib.Path(tempfile.mkdtemp(prefix="companyos-recovery-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        report = measure.run(args, folder)
    finally:
        if not args.dir:
            shutil.rmtree(folder, ignore_errors=True)
    report["command"] = " ".join(["python3", "benchmarks/recovery/run.py", *sys.argv[1:]])
    report["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    text = writer.markdown(report)
    args.results.write_text(text)
    args.results.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
