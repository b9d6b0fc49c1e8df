"""The report as Markdown."""


def mib(size):
    return f"{size / 2**20:,.0f} MiB"


def table(rows, raw):
    lines = [f"| question | views p50 | p99 | {raw} p50 | p99 | p50 ratio | runs |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        ours, duck = row["ours"], row["duckdb"]
        lines.append(
            f"| {row['question']} | {ours['p50']:.1f} ms | {ours['p99']:.1f} ms | {duck['p50']:.1f} ms | {duck['p99']:.1f} ms | {duck['p50'] / ours['p50']:.1f} | {ours['runs']}, {duck['runs']} |"
        )
    return lines


def markdown(report):
    made, built, fresh = report["history"], report["backfill"], report["fresh"]
    machine = report["machine"]
    count = report["compared_tenants"] * len(report["at_rest"])
    same = f"all {count} equal" if not report["different_answers"] else f"{len(report['different_answers'])} of {count} DIFFERENT"
    lines = [
        "# Dashboards on views, and DuckDB over the raw rows",
        "",
        f"{report['date']}, `{report['command']}`",
        "",
        f"{machine['cores']} cores ({machine['cpu']}), DuckDB {machine['duckdb']}.",
        "",
        "| | |",
        "| --- | --- |",
        f"| history | {made['rows']:,} rows, {report['tenants']} tenants, {report['users']:,} users each, 30 days, {made['files']:,} files, {mib(made['bytes'])}, median file {made['median_file'] / 1e6:.1f} MB |",
        f"| backfill of all built-in views | {built['seconds']:.0f} s, {made['rows'] / built['seconds'] / 1000:,.0f} thousand rows/s, {built['cpu_seconds']:.0f} CPU s, worker's peak memory {mib(built['peak_memory'])} |",
        f"| state of views | {mib(sum(v['bytes'] for v in built['views'].values()))} in {sum(v['files'] for v in built['views'].values())} files |",
        f"| answers compared | {same} |",
        f"| views held in memory | every view that was asked for, of every tenant, {report['held_after']:.0f} s after the answers were compared; at most {report['held_mib']:,} MiB (`query.held_views_bytes`) |",
        f"| peak memory in the end | worker {mib(report['memory']['worker'])}, query {mib(report['memory']['query'])} |",
        "",
        "## At rest",
        "",
        f"The views stand at the newest version of the table. Each question up to {report['runs']} times of each side (fewer where that takes over a minute), tenants in turn, one at a time.",
        "",
        *table(report["at_rest"], "DuckDB"),
        "",
        "## While events keep coming",
        "",
        f"{fresh['events']:,} events in {fresh['seconds']} s through the gateway. DuckDB reads the table's log before each question, as it must to see them.",
        f"An event counts in a view after p50 {fresh['visible_after_s']['p50']:.2f} s, at most {fresh['visible_after_s']['p99']:.2f} s"
        f" ({fresh['visible_after_s']['runs']} probes, from sending it to the gateway)." if fresh["visible_after_s"] else "",
        f"Afterwards the answers were {'equal again' if not fresh['different_answers'] else 'DIFFERENT'}.",
        "",
        *table(fresh["questions"], "DuckDB and log"),
        "",
        "## Views",
        "",
        "| view | ready after | state files | bytes |",
        "| --- | ---: | ---: | ---: |",
        *[f"| {name} | {v['ready_after']} s | {v['files']} | {v['bytes']:,} |" for name, v in sorted(built["views"].items())],
    ]
    return "\n".join(lines) + "\n"
