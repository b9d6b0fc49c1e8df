"""Burn rates the plain way. Reads rows `microseconds good total` and, after a line `---`, moments to
evaluate at; writes for each moment good and total of every window and of 30 days, as JSON."""
import json
import sys

rows, moments = sys.stdin.read().split("---")
rows = [tuple(map(int, line.split())) for line in rows.split("\n") if line]
for moment in map(int, moments.split()):
    out = []
    for minutes in (5, 30, 60, 120, 360, 1440, 4320, 43200):
        last = moment // 60_000_000
        first = last - minutes + 1
        if minutes > 4320:
            first -= first % 15
        inside = [r for r in rows if first <= r[0] // 60_000_000 <= last]
        out.append([sum(r[1] for r in inside), sum(r[2] for r in inside)])
    print(json.dumps(out))
