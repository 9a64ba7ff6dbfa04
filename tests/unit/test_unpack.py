"""Unpacking undoes packing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.formats import FORMATS
from dlavm.pack.units import from_slices, to_slices
from dlavm.pack.unpack import unpack_grid, unpack_rows, unstripe
from dlavm.pack.weights import pack_grid, pack_rows, stripe
from dlavm.target import load_target
from tests.unit.test_weights import random_grid

BOARDS = ("nano", "kv260", "vcu128")


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("n", "k"), [(1, 32), (1, 1), (16, 128), (17, 129), (700, 300), (40, 416)])
def test_grids_come_back(board: str, name: str, n: int, k: int) -> None:
    check(board, name, n, k, n * k)


@given(st.sampled_from(BOARDS), st.sampled_from(sorted(FORMATS)), st.integers(1, 70), st.integers(1, 300),
       st.integers(0))
@settings(max_examples=100)
def test_any_grids_come_back(board: str, name: str, n: int, k: int, seed: int) -> None:
    check(board, name, n, k, seed)


def check(board: str, name: str, n: int, k: int, seed: int) -> None:
    memory, form = load_target("v3", board).space("weights"), FORMATS[name]
    grid = random_grid(form, n, k, np.random.default_rng(seed))
    got = unpack_grid(pack_grid(grid, memory), n, k, form, memory)
    assert np.array_equal(got.codes, grid.codes)
    assert np.array_equal(got.scale, grid.scale) and got.scale.dtype == grid.scale.dtype
    assert (got.zero is None and grid.zero is None) or np.array_equal(got.zero, grid.zero)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_slices_hold_every_code(bits: int) -> None:
    codes = np.arange(1 << bits, dtype=np.uint8)
    blocks = np.resize(codes, (5, 8, 32))
    slices = to_slices(blocks, bits)
    assert slices.shape == (5, 8, bits, 4) and np.array_equal(from_slices(slices, bits), blocks)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(("rows", "n"), [(1, 1), (1, 256), (5, 7), (33, 100)])
def test_rows_come_back(board: str, rows: int, n: int) -> None:
    memory = load_target("v3", board).space("weights")
    values = np.random.default_rng(rows).normal(size=(rows, n)).astype(np.float16)
    data = pack_rows(values)
    assert np.array_equal(unpack_rows(unstripe(stripe(data, memory), memory, data.size), rows, n), values)
