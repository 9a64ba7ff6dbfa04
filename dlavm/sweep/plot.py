"""Pictures of a sweep: one result over one axis, a line for each combination of the others. SVG files of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dlavm.report.svg import COLOURS, Axis, picture, tag, text, title
from dlavm.report.text import number
from dlavm.sweep.grid import varying

WIDTH, HEIGHT, LEGEND = 960.0, 420.0, 20.0
LEFT, TOP, BOTTOM = 76.0, 30.0, 52.0
NUMERIC = ("depth", "chunk", "activation_elements", "accumulators")  # axes that a line is drawn along, the best first
METRICS = {"tg_tok_s": "tokens a second, one by one", "pp_tok_s": "tokens a second of a prompt"}
STYLE = """text { font: 12px system-ui, sans-serif; fill: #1c2330; } .soft { fill: #5c6675; }
.middle { text-anchor: middle; } .end { text-anchor: end; } .grid { stroke: #d9dee6; fill: none; }
.line { fill: none; stroke-width: 2; } rect { fill: #fff; }
"""
PALETTE = ("#2f6fb3", "#c4601d", "#2c8a57", "#8757b0", "#a8861a", "#b8405e", "#1f8a99", "#7b8494")
DASHES = ("none", "7 4", "2 3", "10 3 2 3")  # for more lines than colours

Series = dict[str, list[tuple[str, float]]]


def plots(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The pictures by file name: a result of METRICS that some row has, over the axis that fits best."""
    made = {}
    for metric, what in METRICS.items():
        shown = [row for row in rows if row[metric]]
        if shown:
            axis = x_axis(shown)
            made[f"{metric}.svg"] = draw(series(shown, axis, metric), axis, what)
    return made


def x_axis(rows: Sequence[Mapping[str, str]]) -> str:
    """The numeric axis of which there are several values, else any such axis."""
    several = varying(rows)
    return next((name for name in (*NUMERIC, *several) if name in several), "depth")


def series(rows: Sequence[Mapping[str, str]], axis: str, metric: str) -> Series:
    """Values over the axis, by the names of the lines: what varies besides."""
    others = [name for name in varying(rows) if name != axis]
    found: Series = {}
    for row in rows:
        name = ", ".join(f"{row[other]}" if other in ("board", "quant", "kv") else f"{other} {row[other] or 'default'}"
                         for other in others)  # fmt: skip
        found.setdefault(name, []).append((row[axis], float(row[metric])))
    return found


def draw(lines: Series, axis: str, what: str) -> str:
    """The picture. Values of the axis are numbers where all of them are, else places in their order."""
    values = list(dict.fromkeys(x for points in lines.values() for x, _ in points))
    numeric = all(value.isdecimal() for value in values)
    places = {value: float(value) if numeric else float(i) for i, value in enumerate(values)}
    names = [name for name in lines if name]
    bottom = HEIGHT - BOTTOM
    most = max(y for points in lines.values() for _, y in points)
    ticks = round_ticks(most)
    y = Axis(0, max(most, ticks[-1]), bottom, TOP)
    inset = 0 if numeric else (WIDTH - LEFT) / (2 * len(values))
    x = Axis(min(places.values()), max(places.values()), LEFT + inset, WIDTH - 20 - inset)
    marks = [tag("style", STYLE), tag("rect", width="100%", height="100%"), text(LEFT, 18, what)]
    marks += _grid(x, y, places, ticks, axis)
    for place, (name, points) in enumerate(lines.items()):
        marks += _line(place, name, [(x(places[v]), y(value), f"{v}: {value:.4g}") for v, value in points])
    marks += [m for i, name in enumerate(names) for m in _legend(i, name)]
    height = HEIGHT + LEGEND * math.ceil(len(names) / 2)
    drawn = picture(WIDTH, height, what, marks)
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def round_ticks(most: float) -> list[float]:
    """Some four to ten round values from 0 up to or just below `most`, which is above 0."""
    step = 10.0 ** math.floor(math.log10(most))
    while most / step < 4:
        step /= 2
    return [step * i for i in range(int(most / step) + 1)]


def _grid(x: Axis, y: Axis, places: Mapping[str, float], ticks: Sequence[float], axis: str) -> list[str]:
    marks = []
    for tick in ticks:
        marks.append(tag("path", d=f"M{LEFT:.0f} {y(tick):.1f}H{WIDTH - 10:.0f}", class_="grid"))
        marks.append(text(LEFT - 8, y(tick) + 4, number(tick), class_="soft end"))
    for value, place in places.items():
        marks.append(text(x(place), y.start + 18, value or "default", class_="soft middle"))
    marks.append(text((LEFT + WIDTH) / 2, y.start + 38, axis.replace("_", " "), class_="soft middle"))
    return marks


def _colour(place: int) -> tuple[str, str]:
    return PALETTE[place % COLOURS], DASHES[place // COLOURS % len(DASHES)]


def _line(place: int, name: str, points: Sequence[tuple[float, float, str]]) -> list[str]:
    colour, dashes = _colour(place)
    ordered = sorted(points)
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in ordered)
    marks = [tag("path", d=path, class_="line", stroke=colour, stroke_dasharray=dashes)]
    for x, y, words in ordered:
        tip = title(f"{name}: {words}" if name else words)
        marks.append(tag("g", tip, tag("circle", cx=x, cy=y, r=4.0, fill=colour)))
    return marks


def _legend(place: int, name: str) -> list[str]:
    colour, dashes = _colour(place)
    x, y = LEFT + (place % 2) * (WIDTH - LEFT) / 2, HEIGHT + LEGEND * (place // 2)
    return [tag("path", d=f"M{x:.0f} {y:.0f}h28", class_="line", stroke=colour, stroke_dasharray=dashes),
            text(x + 36, y + 4, name)]  # fmt: skip
