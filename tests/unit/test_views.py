"""slice: rows over the bytes of a fused projection, in the graph's text and in the tasks."""

from __future__ import annotations

import pytest

from dlavm.graph import Builder, Graph, Value, parse_graph, print_graph
from dlavm.lower import lower
from dlavm.passes import QuantizeWeights
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.task import Launch, Program, print_program, verify

NANO = load_target("v3", "nano")
WIDTH = 48


def fused(*parts: tuple[int, int]) -> Graph:
    """A projection of 48 elements; each (start, size) of it goes through an activation of its own."""
    b = Builder("m", ctx=8, chunk=4)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 32)))
    with b.scope("layer 7"):
        h = b.linear(x, b.param("fused", (WIDTH, 32)))
        acts: dict[str, Value] = {}
        for start, size in parts:
            acts[f"y{start}"] = b.act(b.slice(h, start=start, size=size, name=f"from {start}"), fn="silu")
    return QuantizeWeights()(b.finish(**acts))


def acts(program: Program) -> list[str]:
    """The lines of the ACT launches."""
    return [line for line in print_program(program, NANO).splitlines() if "launch ACT" in line]


def test_text_comes_back() -> None:
    text = print_graph(fused((0, 16), (16, 32)))
    assert "%layer7.from_16 = slice(%layer7.fused) {start=16, size=32} : f16[token, 32] @" in text
    assert print_graph(parse_graph(text)) == text


def test_parts_are_rows_of_the_whole() -> None:
    program = lower(fused((0, 16), (16, 24), (40, 8)), NANO).program
    verify(program, NANO)
    sources = [line.split(" src=")[1].split(" src_si")[0] for line in acts(program)]
    stride = f"src_so={2 * WIDTH // 16}"
    assert sources == [f"@layer7.fused {stride}", f"@layer7.fused+2 {stride}", f"@layer7.fused+5 {stride}"]
    assert [line.split(" dim=")[1].split()[0] for line in acts(program)] == ["16", "24", "8"]
    assert sum(isinstance(stmt, Launch) for stmt in program.body) == 2 + 3 + 1  # gather, linear, acts, the table


def test_a_part_of_every_head_and_a_part_of_a_part() -> None:
    b = Builder("m", ctx=8, chunk=4)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 96)))
    heads = b.reshape(b.slice(x, start=16, size=80), shape=(b.token, 2, 40))
    program = lower(b.finish(y=b.act(b.slice(heads, start=8, size=32), fn="silu")), NANO).program
    verify(program, NANO)
    assert "src=@embedding+3 src_so=12 src_si=5" in acts(program)[0] and "rows_i=2 dim=32" in acts(program)[0]


@pytest.mark.parametrize("start", [4, 17])
def test_a_start_between_16_bytes_is_refused(start: int) -> None:
    message = rf"^slice at layer 7 / from {start}: start expected a multiple of 8 elements, got {start}$"
    with pytest.raises(DlavmError, match=message):
        lower(fused((start, 8)), NANO)
