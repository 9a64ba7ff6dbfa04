"""A run for ui.perfetto.dev and chrome://tracing: the JSON of the Trace Event Format.

A process for the core, with a track each for the layers, the front end and the engines, and one for the memories, with
counters. Times are microseconds at the board's clock, in whole nanoseconds; slices have their cycles as an argument.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from dlavm.profile.causes import text_of
from dlavm.profile.ops import Line, Op, read_listing
from dlavm.profile.path import Path, semaphore_source
from dlavm.profile.record import ENGINES, HOW, Record, Wait
from dlavm.profile.subject import Subject

Event = dict[str, Any]
CORE, MEMORY = 1, 2  # processes
THREADS = {"layers": 1, "front": 2, "matrix": 3, "vector": 4, "store": 5}
THREAD_NAMES = {"layers": "layers", "front": "front end"}


def trace(record: Record, ops: Sequence[Op], path: Path, subject: Subject) -> dict[str, Any]:
    """The whole file. Events are sorted by time; of those that begin together, the longer first."""
    writer = _Writer(record, ops, path, subject)
    events = sorted(writer.events(), key=lambda e: (e["ts"], -e.get("dur", 0)))
    board = subject.spec.board
    return {
        "traceEvents": [*writer.names(), *events],
        "displayTimeUnit": "ns",
        "otherData": {"model": subject.name, "target": subject.spec.name, "board": board.name,
                      "clock_mhz": board.clock_mhz, "cycles": record.cycles},
    }  # fmt: skip


class _Writer:
    def __init__(self, record: Record, ops: Sequence[Op], path: Path, subject: Subject) -> None:
        self._record, self._ops, self._path, self._subject = record, ops, path, subject
        self._clock = subject.spec.board.clock_mhz
        self._engines = {number: "matrix" if name == "load" else name
                         for name, number in subject.spec.enums["engine"].items()}  # fmt: skip
        self._by_engine = {e: sorted((op for op in ops if op.command.engine == e), key=lambda op: op.command.begin)
                           for e in ENGINES}  # fmt: skip

        self._front_waits = [wait for wait in record.waits if wait.track == "front" and wait.cause != "off"]
        self._front_ends = [wait.end for wait in self._front_waits]

    def names(self) -> Iterator[Event]:
        title = f"{self._subject.name} on {self._subject.spec.board.name}"
        for process, name in ((CORE, title), (MEMORY, "memory")):
            yield {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}}
        for track, thread in THREADS.items():
            name = THREAD_NAMES.get(track, f"{track} engine")
            yield {"ph": "M", "name": "thread_name", "pid": CORE, "tid": thread, "args": {"name": name}}
            yield {"ph": "M", "name": "thread_sort_index", "pid": CORE, "tid": thread, "args": {"sort_index": thread}}

    def events(self) -> Iterator[Event]:
        yield from self._layers()
        for engine in ENGINES:
            yield from self._commands(engine)
            yield from self._waits(engine)
        yield from self._front()
        yield from self._traffic()

    def _slice(self, track: str, name: str, category: str, begin: int, end: int, args: Mapping[str, Any]) -> Event:
        at, until = self._nanoseconds(begin), self._nanoseconds(end)
        return {"ph": "X", "name": name, "cat": category, "pid": CORE, "tid": THREADS[track], "ts": at / 1000,
                "dur": (until - at) / 1000, "args": {"cycles": end - begin, **args}}  # fmt: skip

    def _nanoseconds(self, cycle: int) -> int:
        """What viewers count in: rounded by itself, so that slices that meet in a cycle meet there too."""
        return round(cycle * 1000 / self._clock)

    def _layers(self) -> Iterator[Event]:
        """From the first begin of a layer's commands to the last end; layers follow each other."""
        runs = [(layer, list(group)) for layer, group in groupby(self._ops, key=lambda op: op.layer)]
        starts = [min(op.command.begin for op in group) for _, group in runs] + [self._record.cycles]
        for (layer, group), (begin, following) in zip(runs, pairwise(starts), strict=True):
            end = min(max(op.command.end for op in group), following)
            if layer and begin < end:
                yield self._slice("layers", f"layer {layer}", "layer", begin, end, {"commands": len(group)})

    def _commands(self, engine: str) -> Iterator[Event]:
        before = ""
        for op in self._by_engine[engine]:
            c = op.command
            args: dict[str, Any] = {"command": op.kind, "word": c.word, "number": c.number}
            if op.tensor:
                args["tensor"] = op.tensor
            args |= {"bytes": op.bytes, "MACs": op.macs, "critical path": c.number in self._path.numbers,
                     "cycles in the queue": c.begin - c.queued}  # fmt: skip
            if before:
                args["behind"] = before
            args["of them"] = {text_of(cause): n for cause, n in sorted(c.causes.items(), key=lambda item: -item[1])}
            yield self._slice(engine, label(op), "command", c.begin, c.end, args)
            before = label(op)

    def _waits(self, engine: str) -> Iterator[Event]:
        """Of a queue between its commands, and the longer ones of an engine inside a command."""
        for wait in self._record.waits:
            if wait.track != engine or wait.cause == "hand_over" or not wait.cycles:
                continue
            args: dict[str, Any] = {
                f"of them for {how[1:]}": n for how, n in zip(HOW, wait.how, strict=True) if how and n
            }
            name = f"wait: {text_of(wait.cause)}"
            if wait.cause == "semaphore":
                source = semaphore_source(wait.detail, self._engines)
                name = f"wait for {source or 'a semaphore'}"
                args |= {"semaphore": wait.detail, **self._giver(source, wait)}
            elif wait.cause == "nothing":
                args["front end meanwhile"] = self._meanwhile(wait)
            yield self._slice(engine, name, "queue" if wait.cause in ("semaphore", "nothing") else "stall", wait.begin,
                              wait.end, args)  # fmt: skip

    def _giver(self, source: str | None, wait: Wait) -> dict[str, str]:
        """The command behind which the semaphore was given: the source's last one by then."""
        ops = self._by_engine.get(source or "", [])  # one at a time, so in the order of their ends too
        done = bisect_right(ops, wait.end, key=lambda op: op.command.end)
        return {"until the end of": label(ops[done - 1])} if done else {}

    def _meanwhile(self, wait: Wait) -> dict[str, int]:
        """What the front end did while a queue was empty: reading, executing, or waiting behind another engine."""
        cycles: Counter[str] = Counter()
        for at in range(bisect_right(self._front_ends, wait.begin), len(self._front_waits)):
            state = self._front_waits[at]
            if state.begin >= wait.end:
                break
            cycles[text_of(state.cause)] += min(state.end, wait.end) - max(state.begin, wait.begin)
        return dict(cycles.most_common())

    def _front(self) -> Iterator[Event]:
        """A slice a command, its states inside."""
        listing = read_listing(self._subject.listing)
        for (number, word), group in groupby(self._front_waits, key=lambda wait: (wait.detail, wait.word)):
            states = list(group)
            line = listing.get(word, Line("?", ""))
            name = f"{line.op} {line.where}".strip()
            args: dict[str, Any] = {"word": word, "number": number}
            yield self._slice("front", name, "front end", states[0].begin, states[-1].end, args)
            for state in states:
                if state.cause in ("full", "fence", "load") and state.cycles > 1:
                    yield self._slice("front", f"wait: {text_of(state.cause)}", "stall", state.begin, state.end, {})

    def _traffic(self) -> Iterator[Event]:
        """GB/s that all channels of a memory read and write, and the share of cycles in which a channel moves one."""
        memories = list(self._subject.spec.board.memories.values())
        ends = {}
        for sample in self._record.traffic:
            memory, cycles = memories[sample.space], sample.end - sample.begin
            if not cycles:
                continue
            to_rate = memory.channels * self._subject.beat_bytes * self._clock / 1000 / cycles
            read, written = round(sample.read_beats * to_rate, 3), round(sample.written_beats * to_rate, 3)
            yield self._counter(f"{memory.name} GB/s", sample.begin, {"read": read, "written": written})
            yield self._counter(f"{memory.name} busy %", sample.begin, {"busy": round(100 * sample.busy / cycles, 2)})
            ends[memory.name] = sample.end
        for name, end in ends.items():
            yield self._counter(f"{name} GB/s", end, {"read": 0, "written": 0})
            yield self._counter(f"{name} busy %", end, {"busy": 0})

    def _counter(self, name: str, at: int, values: Mapping[str, float]) -> Event:
        return {"ph": "C", "name": name, "pid": MEMORY, "tid": 0, "ts": self._nanoseconds(at) / 1000,
                "args": dict(values)}  # fmt: skip


def label(op: Op) -> str:
    """What a person calls a command: its place in the model, and its kind."""
    return f"{op.place}: {op.kind}"
