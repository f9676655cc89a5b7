"""Draws what scripts/bench.sh --json has measured, as SVG. Usage: python3 scripts/bench/plot.py rows|scale|peers FILE.json SVG

rows: each row's ratio to the bare work, and its target. scale: cost against size, both logarithmic, a line a figure; a slope of one
is linear growth. peers: the time of each program, in groups by job.
"""

import json
import math
import sys
from html import escape
from pathlib import Path

STYLE = """<style>
  text { font: 12px sans-serif; fill: #444 } .title { font-weight: bold } .grid { stroke: #bbb; stroke-width: .5 }
  .bar { fill: #4878a8 } .missed { fill: #c85a3c } .peer { fill: #999 } .target { stroke: #222; stroke-width: 2 }
  @media (prefers-color-scheme: dark) { text { fill: #ccc } .grid { stroke: #555 } .target { stroke: #eee } }
</style>"""
COLOURS = ["#4878a8", "#c85a3c", "#5a9a4a", "#8a6aa8", "#b08a2a", "#4aa0a0", "#a05a80", "#707070"]


def svg(width, height, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, STYLE, *parts, "</svg>\n"])


def text(x, y, words, more=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{escape(str(words))}</text>'


def rows(measured):
    """Bars of the ratio to the bare work, from 1/4 to 8, with a mark at the target."""
    left, width, line = 300, 420, 22
    rows = [row for row in measured if row["target"].endswith("x")]
    height = 40 + line * len(rows) + 20

    def place(ratio):
        return left + width * (math.log2(min(max(ratio, 0.25), 8)) + 2) / 5

    parts = [text(8, 18, "time with s4 / time without; the mark is the target", 'class="title"')]
    for ratio in (0.25, 0.5, 1, 2, 4, 8):
        x = place(ratio)
        parts.append(f'<line class="grid" x1="{x:.0f}" x2="{x:.0f}" y1="30" y2="{height - 22}"/>')
        parts.append(text(x, height - 6, f"{ratio:g}", 'text-anchor="middle"'))
    for number, row in enumerate(rows):
        y = 36 + line * number
        ratio, target = row["s4"] / row["bare"], float(row["target"][:-1])
        kind = "bar" if row["met"] else "bar missed"
        parts.append(text(left - 8, y + 13, row["row"], 'text-anchor="end"'))
        parts.append(f'<rect class="{kind}" x="{left}" y="{y + 2}" width="{place(ratio) - left:.1f}" height="{line - 8}"/>')
        x = place(target)
        parts.append(f'<line class="target" x1="{x:.0f}" x2="{x:.0f}" y1="{y}" y2="{y + line - 4}"/>')
        parts.append(text(place(ratio) + 5, y + 13, f"{ratio:.2f}"))
    return svg(left + width + 60, height, parts)


def panel(title, points, x0, y0, width, height):
    """One set of points, whose first value is the size."""
    names = [name for name in points[0] if name.endswith(" s")]
    size = next(iter(points[0]))
    points = [point for point in points if point[size] > 0]
    sizes = [math.log10(point[size]) for point in points]
    values = [math.log10(max(point[name], 1e-4)) for point in points for name in names]
    low, high = math.floor(min(values)), math.ceil(max(values))
    span = max(sizes) - min(sizes) or 1

    def place(log_size, log_value):
        return (
            x0 + 40 + (width - 150) * (log_size - min(sizes)) / span,
            y0 + height - 24 - (height - 50) * (log_value - low) / (high - low or 1),
        )

    parts = [text(x0, y0 + 14, title, 'class="title"')]
    for exponent in range(low, high + 1):
        y = place(min(sizes), exponent)[1]
        parts.append(f'<line class="grid" x1="{x0 + 40}" x2="{x0 + width - 110}" y1="{y:.0f}" y2="{y:.0f}"/>')
        parts.append(text(x0 + 36, y + 4, f"{10.0**exponent:g} s", 'text-anchor="end"'))
    for point, log_size in zip(points, sizes):
        parts.append(text(place(log_size, low)[0], y0 + height - 6, short(point[size]), 'text-anchor="middle"'))
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        line = [place(log_size, math.log10(max(point[name], 1e-4))) for log_size, point in zip(sizes, points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = y0 + 30 + 16 * number
        parts.append(f'<rect x="{x0 + width - 100}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(text(x0 + width - 86, y, name.removesuffix(" s")))
    return parts


def short(number):
    for step, unit in ((1 << 30, "G"), (1 << 20, "M")):
        if number >= step and number % step == 0:
            return f"{number // step}{unit}"
    return f"{number // 1000}k" if number >= 1000 and number % 1000 == 0 else str(number)


def scale(measured):
    parts = []
    titles = dict(nodes="nodes, one key each", keys="keys in a bucket", sizes="bytes of a key", tasks="tasks over 12 nodes")
    for number, (name, points) in enumerate(measured.items()):
        parts += panel(titles[name], points, 8 + 400 * (number % 2), 8 + 260 * (number // 2), 392, 250)
    return svg(808, 8 + 260 * ((len(measured) + 1) // 2), parts)


def peers(measured):
    """Groups of bars, one group a job, each scaled to its slowest."""
    left, width, line = 190, 420, 20
    jobs = list(dict.fromkeys(row["job"] for row in measured))
    parts, y = [], 8
    for job in jobs:
        of = [row for row in measured if row["job"] == job]
        most = max(row["seconds"] for row in of)
        parts.append(text(8, y + 14, job, 'class="title"'))
        y += 22
        for row in of:
            kind = "bar" if row["with"] == "s4" else "bar peer"
            length = width * row["seconds"] / most
            parts.append(text(left - 8, y + 13, row["with"], 'text-anchor="end"'))
            parts.append(f'<rect class="{kind}" x="{left}" y="{y + 2}" width="{length:.1f}" height="{line - 6}"/>')
            parts.append(text(left + length + 5, y + 13, f"{row['seconds']:.2f} s"))
            y += line
        y += 12
    return svg(left + width + 70, y, parts)


def main():
    kind, measured, target = sys.argv[1:]
    draw = dict(rows=rows, scale=scale, peers=peers)[kind]
    Path(target).write_text(draw(json.loads(Path(measured).read_text())))


if __name__ == "__main__":
    main()
