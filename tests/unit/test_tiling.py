"""Tilings: what fits the buffers, what the model says it costs, what is chosen; the model's bytes are those of the
commands."""
from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.formats import FORMATS
from dlavm.graph import Builder
from dlavm.lower import lower
from dlavm.lower.tiling import Tiling, candidates, choose_tiling, cost, is_legal
from dlavm.passes import QuantizeWeights
from dlavm.schedule.traffic import operands
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_target
from dlavm.target.layout import PackedWeights
from dlavm.task import trace
from tests.conftest import examples
from tests.unit.test_lower import NANO, with_buffers

BOARDS = [load_target("v3", board) for board in ("nano", "kv260", "vcu128", "v80")]


def packed(spec: TargetSpec, n: int, k: int, form: str = "int4g128") -> PackedWeights:
    return PackedWeights(spec.space("weights"), n, k, FORMATS[form])


def any_tiling(data: st.DataObject, spec: TargetSpec, matrix: PackedWeights, most: int) -> Tiling:
    """A legal one of up to `most` tokens, whole or in pieces of any size."""
    section, row_tile = matrix.section_k, matrix.memory.row_tile
    fitting = list(candidates(spec, matrix, most))
    large = data.draw(st.sampled_from(fitting))
    tokens, n, k = data.draw(st.integers(1, large.tokens)), large.n, large.k
    if k > section and (k < matrix.k or matrix.n * tokens <= spec.board.accumulators):
        k = data.draw(st.integers(1, k // section)) * section
    if n > row_tile:
        n = data.draw(st.sampled_from([n, *(row_tile * m for m in (1, 2, n // row_tile) if row_tile * m <= n)]))
    return Tiling(tokens, n, k)


@pytest.mark.parametrize("form", ["int4g128", "int8g32"])
@pytest.mark.parametrize(("n", "k", "tokens", "expected"), [
    (96, 64, 40, (40, 96, 64)),  # everything fits
    (96, 70, 40, (40, 96, 70)),
    (96, 512, 40, (16, 96, 512)),  # 16 tokens of 512
    (96, 513, 40, (14, 96, 513)),  # 15 would fit; an odd one has a lane for itself
    (96, 8192, 1, (1, 96, 8192)),  # one token gains nothing from tiles
    (96, 8193, 1, (1, 96, 8192)),  # K tiles
    (5000, 9000, 1, (1, 4096, 8192)),  # and N tiles, because the accumulators are carried
])  # fmt: skip
def test_what_is_chosen(n: int, k: int, tokens: int, expected: tuple[int, int, int], form: str) -> None:
    assert choose_tiling(NANO, packed(NANO, n, k, form), tokens) == Tiling(*expected)


def test_weights_stay_where_few_whole_rows_fit() -> None:
    """On nano one row of 8192 fits whole; in tiles two or more tokens share a fetch."""
    for form in ("int4g128", "int8g32"):
        matrix = packed(NANO, 96, 8192, form)
        chosen = choose_tiling(NANO, matrix, 40)
        whole = cost(NANO, matrix, Tiling(1, 96, 8192), 40)
        assert chosen.k < 8192 and cost(NANO, matrix, chosen, 40).weight_bytes <= whole.weight_bytes / 2
    spec = load_target("v3", "kv260")
    matrix = packed(spec, 8192, 29568, "int8g128")  # four whole rows fit, and eight are needed for the lanes to be busy
    assert cost(spec, matrix, Tiling(4, 8192, 29568), 128).bound == "ddr"
    chosen = choose_tiling(spec, matrix, 128)
    assert chosen.k < matrix.k and chosen.tokens > 4 and cost(spec, matrix, chosen, 128).bound == "lanes"


@pytest.mark.parametrize(("form", "expected"), [
    ("int4g32", 992), ("int4g64", 960), ("int4g128", 896), ("int4g128z", 768), ("int8g32z", 960), ("mxfp6", 960),
])
def test_k_tiles_end_with_sections(form: str, expected: int) -> None:
    spec = with_buffers(1000, 64)
    assert choose_tiling(spec, packed(spec, 96, 2000, form), tokens=1).k == expected


def test_a_section_larger_than_the_buffer() -> None:
    spec = with_buffers(128, 64)
    assert choose_tiling(spec, packed(spec, 96, 512), 4).k == 128
    with pytest.raises(DlavmError, match=r"buffers too small for a \[96, 512\] linear in int4g128z"):
        choose_tiling(spec, packed(spec, 96, 512, "int4g128z"), 4)


def test_what_bounds_a_linear() -> None:
    """Llama-2-7B on a vcu128: memory in decode, lanes from three tokens a fetch on; what is beside HBM counts alone."""
    spec = load_target("v3", "vcu128")
    down = packed(spec, 4096, 11008)
    single = cost(spec, down, Tiling(1, 4096, 11008), 1)
    assert (single.bound, single.commands, single.weight_bytes) == ("hbm", 1, down.bytes)
    assert single.cycles == pytest.approx(down.bytes / 2048 + 65)
    chunk = cost(spec, down, Tiling(46, 4096, 11008), 128)
    assert (chunk.bound, chunk.commands, chunk.weight_bytes) == ("lanes", 3, 3 * down.bytes)
    assert chunk.cycles == 128 * 4096 * 11008 / 8192 + 3 * 65
    assert cost(spec, down, Tiling(47, 4096, 11008), 128).cycles > chunk.cycles  # 47 tokens take the lanes of 48
    assert cost(spec, down, Tiling(2, 4096, 11008), 128).bound == "hbm"
    old = load_target("v2", "vcu128")
    assert cost(old, packed(old, 512, 1 << 17), Tiling(1, 512, 1 << 17), 1).bound == "hbm"
    assert cost(old, packed(old, 512, 1 << 17), Tiling(1, 512, 1 << 17), 1).activation_bytes > 1 << 18


@settings(max_examples=examples(200))
@given(st.data(), st.integers(0, 3), st.integers(1, 20000), st.integers(1, 30000), st.integers(1, 300))
def test_nothing_legal_is_cheaper(data: st.DataObject, number: int, n: int, k: int, tokens: int) -> None:
    spec = BOARDS[number]
    matrix = packed(spec, n, k, data.draw(st.sampled_from(["int4g128", "int8g32z", "mxfp4"])))
    assert all(is_legal(spec, matrix, tiling) for tiling in candidates(spec, matrix, tokens))

    def cycles(tiling: Tiling) -> float:
        return cost(spec, matrix, tiling, tokens).cycles + tokens * cost(spec, matrix, tiling, 1).cycles

    other = any_tiling(data, spec, matrix, tokens)
    assert is_legal(spec, matrix, other)
    assert cycles(choose_tiling(spec, matrix, tokens)) <= cycles(other)


@settings(max_examples=examples(60), deadline=None)
@given(st.data(), st.integers(1, 200), st.integers(1, 1500), st.integers(1, 9), st.booleans())
def test_the_program_moves_what_the_model_says(data: st.DataObject, n: int, k: int, tokens: int, bias: bool) -> None:
    spec = with_buffers(1024, 128)
    matrix = packed(spec, n, k, data.draw(st.sampled_from(["int4g128", "int8g32"])))
    tiling = any_tiling(data, spec, matrix, 9)
    b = Builder("one", ctx=16, chunk=9)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, k)))
    y = b.linear(x, b.param("w", (n, k)), *([b.param("bias", (n,))] if bias else []))
    graph = QuantizeWeights(matrix.format.name)(b.finish(y=y))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlavm.lower.context.choose_tiling", lambda *_: tiling)
        program = lower(graph, spec).program
    assert program.buffer["w"].bytes == matrix.bytes and len(program.buffers) == 5 + bias  # once, in any tiles
    bases = {buffer.name: i << 20 for i, buffer in enumerate(program.buffers)}
    linears = [i for i in trace(program, {"token": tokens, "kv_len": 0, "head_rows": 1}, bases) if i.op == "LINEAR"]
    moved = dict.fromkeys(("wgt", "src", "dst", "bias"), 0)
    for one in linears:
        for operand in operands("LINEAR", {name: int(str(v)) for name, v in one.fields.items()}, spec):
            moved[operand.name] += operand.bytes
    said = cost(spec, matrix, tiling, tokens)
    assert (moved["wgt"], moved["src"] + moved["dst"], len(linears)) \
        == (said.weight_bytes, said.activation_bytes, said.commands)
    fetches = -(-tokens // tiling.tokens)
    assert moved["bias"] == bias * fetches * 2 * n


def test_the_page_has_the_table() -> None:
    root = Path(__file__).parents[2]
    made = runpy.run_path(str(root / "scripts" / "tilings.py"))["report"]()
    assert made in (root / "doc" / "architecture.md").read_text(), "stale: run scripts/tilings.py"


def test_a_slow_core_waits_for_its_lanes() -> None:
    matrix = packed(NANO, 96, 8192)
    slow = replace(NANO, board=replace(NANO.board, clock_mhz=1))  # two beat rows a cycle, of the hundred there are
    assert is_legal(slow, matrix, choose_tiling(slow, matrix, 40))
    assert cost(slow, matrix, Tiling(2, 96, 4096), 40).cycles == 40 * 96 * 8192 / 256 + 40 * 65
