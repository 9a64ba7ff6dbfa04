"""Resource estimates of a whole core (synth.py says what they are worth).

yosys elaborates the core of a target on its board, all of it at once, with every instance as a module of its own. Then
it maps, one after the other, each module that the core instantiates: flattened, with its ports as they are. So no cell
counts for two parts, and the sum lacks only what could be left out across their borders.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlavm.rtl.model import TOP, top_text
from dlavm.rtl.synth import MAP, STATISTICS, Usage, run_yosys, sources, statistics, usage
from dlavm.support.errors import CheckFailed
from dlavm.target.spec import TargetSpec

CORE = "dlavm_core"
NETLIST = "core.il"


@dataclass(frozen=True)
class Piece:
    """What is mapped at once: a module of the elaborated core, `dlavm_core` itself without those in it.

    `name` is yosys's: the module of targets/rtl, `$`, the path of the instance."""

    name: str
    without: tuple[str, ...] = ()
    """Modules of the elaborated core that it instantiates and that are pieces themselves."""

    @property
    def module(self) -> str:
        """The module of targets/rtl."""
        return self.name.partition("$")[0]


@dataclass(frozen=True)
class CoreSynthesis:
    """Cells of each piece; how long all of it took; the memory of the largest run of yosys."""

    pieces: Mapping[Piece, Usage]
    seconds: float
    peak_bytes: int


def core_pieces(design: Mapping[str, Any]) -> list[Piece]:
    """The pieces of an elaborated core, of which `design` has yosys's statistics (`stat -json`), dlavm_core's last.

    Raises CheckFailed where these are not of one core."""
    # Names that begin with a backslash are the source's own; where they are used as types it is left out.
    known = {str(name).removeprefix("\\"): module["num_cells_by_type"] for name, module in design["modules"].items()}
    cores = [name for name in known if name.partition("$")[0] == CORE]
    if len(cores) != 1:
        raise CheckFailed(f"synthesis: expected one {CORE}, got {len(cores)}")
    core = cores[0]
    inside = tuple(sorted(name for name in known[core] if name in known))
    return [*map(Piece, inside), Piece(core, inside)]


def elaborate(spec: TargetSpec, directory: Path) -> list[Piece]:
    """Writes the netlist of the core of a target on its board into `directory`.

    Raises DlavmError for a board whose memories do not fit each other, and as `run_yosys` does.
    """
    top = directory / f"{TOP}.sv"
    top.write_text(top_text(spec))
    for path in sources(CORE):
        (directory / path.name).write_text(path.read_text())
    files = " ".join(path.name for path in (*sources(CORE), top))
    run_yosys([f"read_slang --threads 1 --keep-hierarchy --top {TOP} {files}", f"hierarchy -check -top {TOP}",
               STATISTICS, f"write_rtlil {NETLIST}"], directory, TOP)  # fmt: skip
    return core_pieces(statistics(directory))


def synthesize_piece(piece: Piece, directory: Path) -> Usage:
    """Maps a piece of the core that was elaborated in `directory`. Raises as `run_yosys` does."""
    steps = [f"read_rtlil {NETLIST}", f"hierarchy -top \\{piece.name}", f"rename \\{piece.name} top"]
    steps += [f"blackbox \\{name}" for name in piece.without]
    run_yosys([*steps, MAP, STATISTICS], directory, piece.name)
    cells = statistics(directory)["design"]["num_cells_by_type"]
    return usage({name: count for name, count in cells.items() if name not in piece.without})


def synthesize_core(spec: TargetSpec, report: Callable[[str], None]) -> CoreSynthesis:
    """Elaborates the core of a target on its board and maps every piece of it; `report` gets a line after each step.

    Raises as `elaborate` does.
    """
    begin = last = time.monotonic()
    results: dict[Piece, Usage] = {}

    def done(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        report(f"{text}, {now - last:.0f} s")
        last = now

    with tempfile.TemporaryDirectory(prefix="dlavm-synth-") as name:
        pieces = elaborate(spec, Path(name))
        done(f"{spec.name} on {spec.board.name} elaborated: {len(pieces)} parts")
        for number, piece in enumerate(pieces, 1):
            results[piece] = synthesize_piece(piece, Path(name))
            done(f"{number} of {len(pieces)}, {piece.name}: {results[piece].lut:,} LUT")
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return CoreSynthesis(results, time.monotonic() - begin, peak_kib * 1024)


def core_table(pieces: Mapping[Piece, Usage]) -> str:
    """A Markdown table: a row for each module, the largest first, with all its instances; their sum."""
    totals: dict[str, tuple[int, Usage]] = {}
    for piece, cells in pieces.items():
        count, before = totals.get(piece.module, (0, Usage(0, 0, 0, 0, 0)))
        totals[piece.module] = count + 1, before + cells
    lines = ["| module | instances | LUT | FF | DSP | BRAM36 |", "|---|---:|---:|---:|---:|---:|"]
    for module, (count, u) in sorted(totals.items(), key=lambda row: -row[1][1].lut):
        title = f"{CORE}, what is left" if module == CORE else module
        lines.append(f"| {title} | {count} | {u.lut:,} | {u.ff:,} | {u.dsp:,} | {u.bram:g} |")
    u = sum((u for _, u in totals.values()), Usage(0, 0, 0, 0, 0))
    lines.append(f"| sum | {len(pieces)} | {u.lut:,} | {u.ff:,} | {u.dsp:,} | {u.bram:g} |")
    return "\n".join(lines)
