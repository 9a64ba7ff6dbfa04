"""The vector engine's steps and row programs: `targets/isa/vector.yaml` as the tables of the RTL and of its twin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlavm.support.described import Kind, check_keys, check_range, read_yaml
from dlavm.support.errors import DlavmError

PLACE = "targets/isa/vector.yaml"
STREAMS = 4
FORWARDING = ("ADD", "MAX")  # units that take their own result back before it is in a memory (vector_lane.sv)
GROUPS = ("alone", "maps", "reduces")  # what rows in turns need: they never are, nothing, accumulators of their own
RANGES = ("row", "half", "rot", "tail", "front", "seen", "back")
STORES = ("nothing", "elements", "both", "first", "second")
KINDS = {"pass": str, "tree": str, "once": str, "loop": int}
PHASE_KEYS: Mapping[str, Kind] = {"range": str, "loads": list, "common": list, "store": str, "drain": bool}


@dataclass(frozen=True)
class Step:
    """One chunk through one unit of every lane; the names are those of vector_pkg.sv."""

    unit: str
    a: str
    b: str
    to: str
    special: str
    last: bool  # of its program


@dataclass(frozen=True)
class Program:
    """Steps that follow each other, the first at place `first` of the table."""

    name: str
    doc: str
    first: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Phase:
    """Of a row: a pass over a range, a tree, a program on one chunk, a way back, or the end."""

    kind: str
    program: str
    range: str
    loads: int  # mask of streams
    common: int  # mask of those among them that the rows of a group share
    store: str
    drain: bool
    back: int


@dataclass(frozen=True)
class RowProgram:
    """Phases that follow each other, the first at place `first` of the table; the last one is `done`."""

    name: str
    groups: str
    first: int
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class VectorTables:
    programs: tuple[Program, ...]
    rows: tuple[RowProgram, ...]


def load_vector(root: Path) -> VectorTables:
    """The tables below `root` (targets/). Raises DlavmError for what is no such table."""
    table = read_yaml((root / "isa" / "vector.yaml").read_text(encoding="utf-8"), PLACE)
    check_keys(PLACE, table, {"programs": dict, "rows": dict})
    programs: list[Program] = []
    first = 0
    for name, entry in table["programs"].items():
        check_keys(f"{PLACE}: {name}", entry, {"doc": str, "steps": list})
        steps = tuple(_step(f"{PLACE}: {name}", text, text is entry["steps"][-1]) for text in entry["steps"])
        programs.append(Program(name, entry["doc"], first, steps))
        first += len(steps)
    rows: list[RowProgram] = []
    first = 0
    for name, entry in table["rows"].items():
        place = f"{PLACE}: {name}"
        check_keys(place, entry, {"phases": list}, {"groups": str})
        phases = [_phase(place, phase, table["programs"]) for phase in entry["phases"]]
        for at, phase in enumerate(phases):
            check_range(f"{place}: loop", phase.back, 0, at)
        groups = _one_of(place, entry.get("groups", "alone"), GROUPS)
        rows.append(RowProgram(name, groups, first, (*phases, Phase("done", "zero", "row", 0, 0, "nothing", False, 0))))
        first += len(rows[-1].phases)
    return VectorTables(tuple(programs), tuple(rows))


def _step(place: str, text: Any, last: bool) -> Step:
    words = str(text).split()
    if not 4 <= len(words) <= 5:
        raise DlavmError(f"{place}: expected `unit a b to [special]`, got {text!r}")
    unit, a, b, to = words[:4]
    if to == "ACC" and not last:
        raise DlavmError(f"{place}: expected the step that accumulates last, got {text!r}")
    if a == to == "ACC" and unit not in FORWARDING:
        raise DlavmError(f"{place}: expected {' or '.join(FORWARDING)} to go on with an accumulator, got {text!r}")
    return Step(unit, a, b, to, words[4] if len(words) == 5 else "PLAIN", last)


def _phase(place: str, entry: Any, programs: Iterable[str]) -> Phase:
    kinds = [kind for kind in KINDS if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1:
        raise DlavmError(f"{place}: expected one of {', '.join(KINDS)}, got {entry!r}")
    kind = kinds[0]
    check_keys(place, entry, {kind: KINDS[kind]}, PHASE_KEYS)
    value = entry[kind]
    common = _mask(place, entry.get("common", []))
    return Phase(
        kind=f"tree_{_one_of(place, value, ('add', 'max'))}" if kind == "tree" else kind,
        program=_one_of(place, value, programs) if kind in ("pass", "once") else "zero",
        range=_one_of(place, entry.get("range", "row"), RANGES),
        loads=_mask(place, entry.get("loads", [])) | common,
        common=common,
        store=_one_of(place, entry.get("store", "nothing"), STORES),
        drain=entry.get("drain", False),
        back=value if kind == "loop" else 0,
    )


def _mask(place: str, streams: list[Any]) -> int:
    for stream in streams:
        check_range(f"{place}: stream", stream, 0, STREAMS - 1)
    return sum(1 << stream for stream in streams)


def _one_of(place: str, value: str, known: Iterable[str]) -> str:
    if value not in known:
        raise DlavmError(f"{place}: expected {', '.join(known)}, got {value!r}")
    return value
