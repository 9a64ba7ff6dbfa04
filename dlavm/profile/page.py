"""The page of a profile: the tables, the roofline, where the cycles went. One file, no network."""

from __future__ import annotations

from collections.abc import Sequence

from dlavm.profile.causes import LIMITS, text_of
from dlavm.profile.ops import Op
from dlavm.profile.roofline import draw, reached
from dlavm.profile.subject import Subject
from dlavm.profile.table import Row, Table, sums
from dlavm.report.page import environment
from dlavm.report.svg import Axis, picture, tag, text, title
from dlavm.report.text import number, share, size
from dlavm.target.sizes import matrix_lanes

HEAD = ("commands", "cycles", "of the step", "bytes", "of the memory's peak", "of the lanes", *LIMITS, "bound by")
MOST_CAUSES = 16


def render(subject: Subject, what: str, tables: Sequence[tuple[str, Table]], ops: Sequence[Op]) -> str:
    """The text of the page. `what`: the step; `tables`: of the same run, with what their rows are."""
    spec, first = subject.spec, tables[0][1]
    points = reached(ops, spec)
    seconds = first.cycles / (spec.board.clock_mhz * 1e6)
    header = [
        ("step", what),
        ("board", f"{spec.board.name}: {matrix_lanes(spec):,} matrix lanes at {spec.board.clock_mhz:g} MHz"),
        ("cycles", f"{first.cycles:,}, {1000 * seconds:.3f} ms"),
        ("nothing runs", f"{first.idle:,} cycles, {share(first.idle, first.cycles)}"),
        ("control", f"{first.control:,} cycles, {share(first.control, first.cycles)}: "
                    "nothing runs because no command is there yet"),
    ]  # fmt: skip
    return environment().get_template("profile.html.j2").render(
        name=subject.name, target=spec.name, board=spec.board.name, header=header, head=HEAD,
        tables=[(what, [cells(row, table) for row in table.rows], total_cells(table)) for what, table in tables],
        limits=_limits(sums(first.rows)), legend=[(f"c{i}", name) for i, name in enumerate(LIMITS)],
        causes=_causes(ops), roofline=draw(points, spec),
        points=[(str(i), p.name, f"{p.macs_byte:.2f}", f"{number(p.macs_s)}MAC/s", f"{100 * p.share_of_roof:.1f} %",
                 f"{p.cycles:,}") for i, p in enumerate(points, 1)])  # fmt: skip


def cells(row: Row, table: Table) -> tuple[str, ...]:
    """A row of the table."""
    shares = ["-" if value is None else f"{100 * value:.1f} %" for value in (row.memory_share, row.lanes_share)]
    limits = [f"{count:,}" if count else "-" for count in row.limits.values()]
    return (row.name, f"{row.commands:,}" if row.commands else "-", f"{row.cycles:,}", share(row.cycles, table.cycles),
            size(row.bytes) if row.bytes else "-", *shares, *limits, row.bound)  # fmt: skip


def total_cells(table: Table) -> tuple[str, ...]:
    """The row of the sums."""
    totals, cycles = sums(table.rows), table.cycles
    commands, moved = sum(row.commands for row in table.rows), sum(row.bytes for row in table.rows)
    return ("all", f"{commands:,}", f"{cycles:,}", share(cycles, cycles), size(moved), "", "",
            *(f"{n:,}" for n in totals.values()), max(LIMITS, key=lambda name: totals[name]))  # fmt: skip


def _limits(totals: dict[str, int]) -> str:
    """One bar of all cycles, by limit."""
    x = Axis(0, sum(totals.values()), 0, 960)
    marks, at = [], 0
    for place, (name, count) in enumerate(totals.items()):
        tip = title(f"{name}: {count:,} cycles, {share(count, sum(totals.values()))}")
        begin, end = x(at), x(at + count)
        words = [text((begin + end) / 2, 20, name, class_="inside")] if end - begin > 60 else []
        bar = tag("rect", x=begin, y=4, width=end - begin, height=24, class_=f"c{place} box")
        marks.append(tag("g", tip, bar, *words))
        at += count
    return picture(960, 32, "cycles by limit", marks)


def _causes(ops: Sequence[Op]) -> list[tuple[str, ...]]:
    """What the engines did while they had commands, the most first."""
    counts: dict[tuple[str, str], int] = {}
    for op in ops:
        for cause, count in op.command.causes.items():
            key = op.command.engine, cause
            counts[key] = counts.get(key, 0) + count
    whole = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_CAUSES]
    return [(f"{engine}: {text_of(cause)}", f"{n:,}", share(n, whole)) for (engine, cause), n in ranked]
