"""Reads what the option `profile` of the timed simulator wrote (clib/src/timed/recorder.cpp). Times are cycles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dlavm.support.errors import DlavmError

TRACKS = ("front", "matrix", "vector", "store")
ENGINES = TRACKS[1:]
HOW = ("", "/latency", "/refresh")  # a wait for memory, by what memory did meanwhile


@dataclass(frozen=True)
class Command:
    """One that an engine executed: put into its queue, begun, found done. `words`: its payload, scalars in place;
    `causes`: cycles from begin to end by what it did or waited for (`dlavm.profile.causes`)."""

    engine: str
    number: int
    word: int
    queued: int
    begin: int
    end: int
    words: tuple[int, ...]
    causes: Mapping[str, int]

    @property
    def cycles(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Wait:
    """A track waits from `begin` to `end`. `detail`: the number of a semaphore, or of a command of the front end, whose
    word is `word`; `how`: cycles by what memory did, as in HOW."""

    track: str
    cause: str
    begin: int
    end: int
    detail: int
    word: int
    how: tuple[int, ...]

    @property
    def cycles(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Traffic:
    """Beats that a channel of memory `space` (by its place on the board) read and wrote, and its busy cycles."""

    space: int
    begin: int
    end: int
    read_beats: int
    written_beats: int
    busy: int


@dataclass(frozen=True)
class Record:
    """A run of `cycles`; commands and waits in the order of their ends."""

    cycles: int
    commands: tuple[Command, ...]
    waits: tuple[Wait, ...]
    traffic: tuple[Traffic, ...]


def read_record(path: Path) -> Record:
    """Raises DlavmError for a file that is not whole."""
    with path.open(encoding="utf-8") as file:
        return parse(file, str(path))


def parse(lines: Iterable[str], name: str = "profile") -> Record:
    """The record of a file's lines. Raises DlavmError naming the line that is wrong."""
    commands: list[Command] = []
    waits: list[Wait] = []
    traffic: list[Traffic] = []
    cycles = None
    for number, line in enumerate(lines, 1):
        kind, *cells = line.rstrip("\n").split(",")
        try:
            match kind:
                case "command":
                    commands.append(_command(cells))
                case "wait":
                    waits.extend(_waits(cells))
                case "memory":
                    traffic.append(Traffic(*map(int, cells)))
                case "end":
                    (cycles,) = map(int, cells)
                case _:
                    raise ValueError(kind)
        except (ValueError, TypeError) as error:
            raise DlavmError(f"{name}: line {number}: expected a row of a profile, got {line[:80]!r}") from error
    if cycles is None:
        raise DlavmError(f"{name}: expected a row `end`, got none: the run did not come to its end")
    return Record(cycles, tuple(commands), tuple(waits), tuple(traffic))


def _command(cells: list[str]) -> Command:
    engine, number, word, queued, begin, end, words, causes = cells
    if engine not in ENGINES:
        raise ValueError(engine)
    counts = dict(_cause(cause) for cause in causes.split())
    return Command(engine, int(number), int(word), int(queued), int(begin), int(end), tuple(map(int, words.split())),
                   counts)  # fmt: skip


def _cause(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    return name, int(count)


def _waits(cells: list[str]) -> Iterator[Wait]:
    """A WAIT that is passed is handed over in its last cycle."""
    track, cause, *numbers = cells
    begin, end, detail, word, *how = map(int, numbers)
    if track not in TRACKS or len(how) != len(HOW):
        raise ValueError(track)
    if cause != "semaphore":
        yield Wait(track, cause, begin, end, detail, word, tuple(how))
        return
    if end - begin > 1:
        yield Wait(track, cause, begin, end - 1, detail, word, (end - 1 - begin, 0, 0))
    yield Wait(track, "hand_over", end - 1, end, 0, 0, (1, 0, 0))
