"""Burn rates the plain way. Reads rows `microseconds good total` and, after a line `---`, moments to
evaluate at; writes for each moment good and total of every window and of 30 days, as JSON. With
arguments `MINUTES TARGET` it counts slices of so many minutes that reach the target, with `MINUTES`
alone the sum of the slices' ratios."""
import json
import sys

minutes_of_slice = int(sys.argv[1]) if len(sys.argv) > 1 else 1
target = float(sys.argv[2]) if len(sys.argv) > 2 else None
# Older than three days is kept in tiles, to which the far end of a longer window is rounded down.
tile = max(15, minutes_of_slice)

rows, moments = sys.stdin.read().split("---")
rows = [tuple(map(int, line.split())) for line in rows.split("\n") if line]


def count(inside):
    if len(sys.argv) == 1:
        return [sum(r[1] for r in inside), sum(r[2] for r in inside)]
    slices = {}
    for at, good, total in inside:
        of = slices.setdefault(at // 60_000_000 // minutes_of_slice, [0, 0])
        of[0] += good
        of[1] += total
    ratios = [good / total for good, total in slices.values()]
    return [sum(ratios) if target is None else sum(r >= target for r in ratios), len(ratios)]


for moment in map(int, moments.split()):
    out = []
    for minutes in (5, 30, 60, 120, 360, 1440, 4320, 43200):
        last = moment // 60_000_000
        first = last - minutes + 1
        first -= first % (tile if minutes > 4320 else minutes_of_slice)
        out.append(count([r for r in rows if first <= r[0] // 60_000_000 <= last]))
    print(json.dumps(out))
