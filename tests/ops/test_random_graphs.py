"""Random graphs, compiled and run: the bits are the same for every tiling, board, order of nodes and generation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from random import Random
from unittest.mock import patch

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlavm import compile as compiler
from dlavm.compile import Options
from dlavm.formats import BLOCK, FORMATS
from dlavm.graph import Graph
from dlavm.lower import attention, context
from dlavm.lower.context import Rows
from dlavm.lower.tiling import Tiling, is_legal
from dlavm.schedule import schedule
from dlavm.sim.native import NativeDevice
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_target
from dlavm.target.layout import KvLayout, PackedWeights, ceildiv
from dlavm.target.spec import Board
from dlavm.task import Program
from tests.conftest import examples
from tests.ops.run_graph import Step, outcome
from tests.prop.lowerable_graphs import CTX, VOCAB, lowerable_graphs, random_params

IDS = tuple(int(i) for i in np.random.default_rng(3).integers(0, VOCAB, CTX))
CUTS = [(6, 6), (1, 5, 6), (4, 1, 1, 6), (6, 1, 1, 1)]
EVERY = ("int4g128", "int4g128z")  # formats that every generation has


def steps(cut: tuple[int, ...]) -> list[Step]:
    begins = accumulate((0, *cut[:-1]))
    pairs = enumerate(zip(begins, cut, strict=True))
    return [Step(IDS[at : at + count], at, max(1, count - i)) for i, (at, count) in pairs]


def with_buffers(spec: TargetSpec, elements: int, accumulators: int) -> TargetSpec:
    return replace(spec, board=replace(spec.board, activation_elements=elements, accumulators=accumulators))


@contextmanager
def random_tilings(seed: int) -> Iterator[list[Tiling]]:
    """Every linear is cut in any way that its board allows."""
    rng, made = Random(seed), list[Tiling]()

    def choose(spec: TargetSpec, packed: PackedWeights, tokens: int) -> Tiling:
        made.append(random_tiling(rng, spec.board, packed, tokens))
        assert is_legal(spec, packed, made[-1])
        return made[-1]

    with patch.object(context, "choose_tiling", choose):
        yield made


def random_tiling(rng: Random, board: Board, packed: PackedWeights, tokens: int) -> Tiling:
    """Raises DlavmError for a board that is too small for any."""
    row_tile, section = packed.memory.row_tile, packed.section_k
    every = []
    for k in (packed.k, *range(section, packed.k, section)):
        for n in (packed.n, *range(row_tile, packed.n, row_tile)):
            most = min(tokens, board.activation_elements // (ceildiv(k, BLOCK) * BLOCK))
            if k < packed.k:
                most = min(most, board.accumulators // n)
            if most:
                every.append(Tiling(rng.randint(1, most), n, k))
    if not every:
        raise DlavmError("too small")
    return rng.choice(every)


UNTILED = with_buffers(load_target("v3", "nano"), 1 << 20, 1 << 20)
BOARDS = [load_target("v3", name) for name in ("nano", "kv260", "vcu128")]


@settings(max_examples=examples(25))
@given(
    graph=lowerable_graphs(formats=tuple(FORMATS)), cut=st.sampled_from(CUTS), spec=st.sampled_from(BOARDS),
    elements=st.sampled_from([160, 192, 256, 500, 1300, 8192]), accumulators=st.sampled_from([160, 512, 700, 4096]),
    seed=st.integers(0, 1 << 32),
)  # fmt: skip
def test_random_tilings(
    graph: Graph, cut: tuple[int, ...], spec: TargetSpec, elements: int, accumulators: int, seed: int
) -> None:
    params = random_params(graph)
    try:
        with random_tilings(seed):
            tiled = outcome(graph, with_buffers(spec, elements, accumulators), params, steps(cut), NativeDevice)
    except DlavmError as error:
        assume("too small" not in str(error) and "exceed the buffers" not in str(error))
        raise
    assert tiled == outcome(graph, UNTILED, params, steps(cut), NativeDevice)


@settings(max_examples=examples(25))
@given(
    lowerable_graphs(formats=tuple(FORMATS)), st.sampled_from(CUTS), st.sampled_from(BOARDS), st.integers(0, 1 << 32)
)  # fmt: skip
def test_random_orders_of_commands(graph: Graph, cut: tuple[int, ...], spec: TargetSpec, seed: int) -> None:
    """Any order that dependencies allow, and any groups of heads; the simulator refuses what no semaphore orders."""
    params, rng = random_params(graph), Random(seed)

    def groups(c: object, q: Rows, layout: KvLayout, unit: int, launches: object) -> int:
        even = [n for n in range(1, layout.heads + 1) if layout.heads % n == 0 and q.inner // n % unit == 0]
        return rng.choice([1, *even])

    def order(program: Program, spec: TargetSpec) -> Program:
        return schedule(program, spec, rng.choice)

    expected = outcome(graph, spec, params, steps(cut), NativeDevice)
    with patch.object(compiler, "schedule", order), patch.object(attention, "_groups", groups):
        assert outcome(graph, spec, params, steps(cut), NativeDevice) == expected


@settings(max_examples=examples(8) // 4)
@given(lowerable_graphs(formats=EVERY), st.sampled_from(CUTS))
def test_random_graphs_on_every_generation(graph: Graph, cut: tuple[int, ...]) -> None:
    params, expected = random_params(graph), None
    for target, rolls in (("v3", True), ("v3", False), ("v2", True), ("v1", True)):
        spec = load_target(target, "nano")
        found = outcome(graph, spec, params, steps(cut), NativeDevice, Options(rolls=rolls))
        found = [{name: data for name, data in one.items() if name != "next"} for one in found]  # the host's on v1
        expected = expected or found
        assert found == expected, (target, rolls)
