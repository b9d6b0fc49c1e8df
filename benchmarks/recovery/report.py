"""The report as Markdown."""

import statistics

import logins


def mib(size):
    return f"{size / 2**20:,.0f} MiB"


def markdown(report):
    built, live, crashes = report["build"], report["live"], report["recovery"]
    lines = [
        "# Large state: checkpoints and recovery",
        "",
        f"{report['date']}, `{report['command']}`",
        "",
        f"{report['machine']['cores']} cores ({report['machine']['cpu']}).",
        "",
        "## State and its checkpoints",
        "",
        "| | |",
        "| --- | --- |",
        f"| state, by the operator's count | {mib(built['state_bytes'])}, {built['state_keys']:,.0f} keys of {report['history']['logins']:,} logins |",
        f"| worker's memory | {mib(built['memory'])} resident, {mib(built['peak_memory'])} at most |",
        f"| taking the history in | {built['seconds']:.0f} s, {built['logins_per_second']:,.0f} logins/s, {built['cpu_seconds']:.0f} CPU s, checkpoints included |",
        f"| checkpoints meanwhile | {built['checkpoints']['count']:.0f}, {mib(built['checkpoints']['bytes'])}, {built['checkpoints']['seconds']:.1f} s in all |",
        f"| newest checkpoints then | full snapshots {mib(built['chain']['full'])}, changes after them {mib(built['chain']['changes'])} (compressed, all shards) |",
        *[
            f"| a shard's checkpoint of {what} (mean of {kind['count']}, {logins.SHARDS} shards) | {kind['bytes'] / 2**20:,.2f} MiB, {kind['seconds']:.3f} s, {kind['longest']:.3f} s at most |"
            for what, kind in [("changes, while events come", live["changes"]), ("everything", live["full"])]
        ],
        f"| worker's peak memory when every checkpoint is of everything | {mib(live['full']['peak_memory'])} |",
        "",
        "## Recovery after SIGKILL",
        "",
        "Seconds from the start of the process. *Restored*: the last shard has its state back. *Log read*: every shard has read its",
        "stream's log to the end. *Caught up*: findings of events sent while the worker was away are in the table, in every shard.",
        "",
        "| crash | read back | restored | log read | caught up | peak memory | bare limit | caught up ÷ bare | restored ÷ bare |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for number, crash in enumerate(crashes, 1):
        bare = crash["bare"]
        lines.append(
            f"| {number} | {mib(bare['stored_bytes'])}, {mib(bare['plain_bytes'])} plain, {bare['rows']:,} rows | {crash['restored']:.1f} | {crash['log_read']:.1f}"
            f" | {crash['caught_up']:.1f} | {mib(crash['peak_memory'])} | {bare['seconds']:.2f} | {crash['ratio']:.1f} | {crash['restored'] / bare['seconds']:.1f} |"
        )
    ratio = statistics.median(crash["ratio"] for crash in crashes)
    lines += ["", f"Median: caught up after {statistics.median(c['caught_up'] for c in crashes):.1f} s, {ratio:.1f} times the bare limit."]
    return "\n".join(lines) + "\n"
