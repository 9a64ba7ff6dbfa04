"""The critical path of a run: every cycle belongs to one command, or to the gap in front of one.

From the end of the run backwards: a command has its cycles from begin to end; in front of it is the command that it
had to wait for: the one before it in its queue, the one whose signal its queue waited for, or, where its queue was
empty, the one that ended last. Cycles between the two are control while nothing runs and nothing is handed over, and
otherwise the latency of the way from one engine to another.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlavm.profile.causes import CONTROL, LATENCY
from dlavm.profile.record import ENGINES, Command, Record, Wait

Span = tuple[int, int]


@dataclass(frozen=True)
class Gap:
    """Cycles of the path in which none of its commands runs, by limit; `before`: the number of the command that comes,
    None behind the last."""

    begin: int
    end: int
    before: int | None
    cycles: Mapping[str, int]


@dataclass(frozen=True)
class Path:
    """`numbers` of the commands on it, and the gaps; together they have every cycle of the run once. `idle`: cycles in
    which no engine runs a command; `control`: those of them in which nothing is handed over either, because no command
    is there."""

    numbers: frozenset[int]
    gaps: tuple[Gap, ...]
    idle: int
    control: int


def critical_path(record: Record, engines: Mapping[str, int]) -> Path:
    """`engines`: the numbers of the ISA, by which the compiler numbers semaphores (dlavm/codegen/ordering.py)."""
    return _Walk(record, engines).run()


class _Ends:
    """Commands by their ends."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = sorted(commands, key=lambda c: c.end)
        self._ends = [c.end for c in self.commands]

    def last(self, until: int) -> Command | None:
        """The one that ended last, not after `until`."""
        at = bisect_right(self._ends, until)
        return self.commands[at - 1] if at else None


class _Walk:
    def __init__(self, record: Record, engines: Mapping[str, int]) -> None:
        self._cycles = record.cycles
        self._all = _Ends(record.commands)
        self._of = {e: _Ends([c for c in record.commands if c.engine == e]) for e in ENGINES}
        self._waits = {e: [w for w in record.waits if w.track == e and w.cause in QUEUE] for e in ENGINES}
        self._wait_ends = {e: [w.end for w in waits] for e, waits in self._waits.items()}
        self._names = {number: "matrix" if name == "load" else name for name, number in engines.items()}
        busy = [(c.begin, c.end) for c in record.commands]
        passing = [(w.begin, w.end) for e in ENGINES for w in self._waits[e] if w.cause == "hand_over"]
        self._quiet = complement(union([*busy, *passing]), record.cycles)
        self._idle = complement(union(busy), record.cycles)

    def run(self) -> Path:
        numbers: list[int] = []
        gaps: list[Gap] = []
        at, after = self._cycles, None
        command = self._all.last(at)
        while True:
            begin = command.end if command else 0
            if begin < at:
                quiet = overlap(self._quiet, begin, at)
                gaps.append(Gap(begin, at, after, {CONTROL: quiet, LATENCY: at - begin - quiet}))
            if command is None:
                break
            numbers.append(command.number)
            at, after = command.begin, command.number
            command = self.before(command)
        return Path(frozenset(numbers), tuple(reversed(gaps)), total(self._idle), total(self._quiet))

    def before(self, command: Command) -> Command | None:
        """The command that this one had to wait for; None at the beginning."""
        engine, at = command.engine, command.begin + 1  # in its first cycle the queue still hands it over
        waits = self._waits[engine]
        for place in range(bisect_right(self._wait_ends[engine], at) - 1, -1, -1):
            wait = waits[place]
            if wait.end < at:  # what was before was a command
                break
            if wait.cause == "semaphore":
                source = self.source(wait)
                return (self._of[source] if source else self._all).last(wait.end)
            if wait.cause == "nothing":
                return self._all.last(wait.end)
            at = wait.begin
        return self._of[engine].last(command.begin)

    def source(self, wait: Wait) -> str | None:
        """The engine whose signal a queue waits for."""
        return semaphore_source(wait.detail, self._names)


QUEUE = ("nothing", "semaphore", "hand_over")


def semaphore_source(semaphore: int, names: Mapping[int, str]) -> str | None:
    """The engine that gives a semaphore, in programs of this compiler. `names`: engines by number."""
    return names.get(semaphore // len(names))


def union(spans: Sequence[Span]) -> list[Span]:
    """Disjoint spans in order that cover the same."""
    out: list[Span] = []
    for begin, end in sorted(s for s in spans if s[0] < s[1]):
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((begin, end))
    return out


def complement(spans: Sequence[Span], end: int) -> list[Span]:
    """What of 0 .. end disjoint spans in order leave."""
    edges = [0, *(edge for span in spans for edge in span), end]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


def overlap(spans: Sequence[Span], begin: int, end: int) -> int:
    """Cycles of begin .. end that disjoint spans in order cover."""
    at = max(0, bisect_right(spans, (begin, begin)) - 1)
    covered = 0
    while at < len(spans) and spans[at][0] < end:
        covered += max(0, min(end, spans[at][1]) - max(begin, spans[at][0]))
        at += 1
    return covered


def total(spans: Sequence[Span]) -> int:
    return sum(end - begin for begin, end in spans)
