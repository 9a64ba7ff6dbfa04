"""Unpacking undoes packing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.pack.unpack import unpack_int4, unpack_rows, unstripe
from dlavm.pack.weights import pack_int4, pack_rows, quantize_int4, stripe
from dlavm.sim.reference.matrix import MatrixEngine
from dlavm.sim.reference.memory import FlatMemory
from dlavm.target import load_target

BOARDS = ("nano", "kv260", "vcu128")


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(("n", "k"), [(1, 32), (1, 1), (16, 128), (17, 129), (700, 300), (40, 416)])
def test_int4_comes_back(board: str, n: int, k: int) -> None:
    memory = load_target("v3", board).space("weights")
    w = np.random.default_rng(n * k).normal(size=(n, k)).astype(np.float32)
    q, scale = quantize_int4(w)
    got_q, got_scale = unpack_int4(pack_int4(q, scale, memory), n, k, memory)
    assert np.array_equal(got_q, q)
    assert np.array_equal(got_scale, scale)


@given(st.integers(1, 70), st.integers(1, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_any_integers_come_back(n: int, k: int, seed: int) -> None:
    memory = load_target("v3", "nano").space("weights")
    random = np.random.default_rng(seed)
    q = random.integers(-8, 8, size=(n, k)).astype(np.int8)
    scale = random.normal(size=(n, -(-k // 128))).astype(np.float16)
    got_q, got_scale = unpack_int4(pack_int4(q, scale, memory), n, k, memory)
    assert np.array_equal(got_q, q)
    assert np.array_equal(got_scale, scale)


def test_the_reference_reads_the_same_numbers() -> None:
    spec = load_target("v3", "nano")
    memory = spec.space("weights")
    q, scale = quantize_int4(np.random.default_rng(3).normal(size=(50, 200)).astype(np.float32))
    packed = pack_int4(q, scale, memory)
    flat = FlatMemory(spec)
    linear = unstripe(packed, memory, packed.size)
    flat.bytes(memory.base, linear.size)[...] = linear
    w, s = MatrixEngine(spec, flat).unpack(memory.base, packed.size // -(-50 // memory.row_tile), 50, 200)
    assert np.array_equal(w.reshape(50, -1)[:, :200], unpack_int4(packed, 50, 200, memory)[0])
    assert np.array_equal(s, unpack_int4(packed, 50, 200, memory)[1].astype(np.float32))


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(("rows", "n"), [(1, 1), (1, 256), (5, 7), (33, 100)])
def test_rows_come_back(board: str, rows: int, n: int) -> None:
    memory = load_target("v3", board).space("weights")
    values = np.random.default_rng(rows).normal(size=(rows, n)).astype(np.float16)
    data = pack_rows(values)
    assert np.array_equal(unpack_rows(unstripe(stripe(data, memory), memory, data.size), rows, n), values)
