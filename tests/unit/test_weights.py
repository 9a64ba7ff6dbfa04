"""Packing: every format's layout against the reference's reading of device memory, pieces and wholes, refusals."""
from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlavm.formats import FORMATS, Format, Grid, convert, quantize
from dlavm.pack.emit import Constant, pieces
from dlavm.pack.sources import Halves, Quantised, Tensor, read_through
from dlavm.pack.weights import checked, pack_grid, pack_index, pack_rows, stripe
from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.weights import read_weights
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.target.layout import PackedWeights
from dlavm.target.spec import Memory, list_boards

NANO = load_target("v3", "nano").space("weights")
NAMES = sorted(FORMATS)


def random_grid(form: Format, n: int, k: int, rng: np.random.Generator) -> Grid:
    """Any codes, but for NaN; zero points also past the codes."""
    codes = rng.integers(0, 1 << form.element.bits, (n, k)).astype(np.uint8)
    if form.element.name == "e4m3":
        codes[codes & 0x7F == 0x7F] = 0
    shape = n, form.groups(k)
    scale = rng.integers(87, 168, shape).astype(np.uint8) if form.scale == "e8m0" else rng.standard_normal(shape)
    zero = rng.integers(0, 256, shape).astype(np.uint8) if form.zero else None
    return Grid(form, codes, scale if form.scale == "e8m0" else scale.astype(np.float16), zero)


def linear_bytes(packed: NDArray[np.uint8], memory: Memory) -> NDArray[np.uint8]:
    return np.ascontiguousarray(packed.reshape(memory.channels, -1, memory.port_bytes).transpose(1, 0, 2)).reshape(-1)


@given(st.integers(1, 70), st.integers(1, 300), st.sampled_from(list_boards()), st.sampled_from(NAMES),
       st.integers(0, 99))
@settings(max_examples=100)
def test_packed_weights_read_back(n: int, k: int, board: str, name: str, seed: int) -> None:
    spec, form = load_target("v3", board), FORMATS[name]
    memory = spec.space("weights")
    grid = random_grid(form, n, k, np.random.default_rng(seed))
    packed, layout = pack_grid(grid, memory), PackedWeights(memory, n, k, form)
    assert packed.size == layout.bytes
    device = FlatMemory(spec)
    device.bytes(memory.base, packed.size)[...] = linear_bytes(packed, memory)
    w, s = read_weights(device, memory.base, layout.tile_bytes, n, k, form)
    assert (w.reshape(n, -1)[:, :k] == grid.integers()).all()
    assert (np.ldexp(s, form.element.unit_exponent) == grid.factors()).all()
    if not form.zero:
        assert (w.reshape(n, -1)[:, k:] == 0).all()


@pytest.mark.parametrize(("name", "n", "k", "beats"), [
    ("int4g128", 8, 128, 1 + 32), ("int4g128", 8, 129, 2 + 40), ("int4g32", 8, 128, 4 + 32),
    ("int4g128z", 8, 128, 2 + 32), ("int4g128z", 8, 300, 2 + 3 + 80), ("int8g64", 8, 64, 1 + 32),
    ("int8g32z", 8, 96, 2 + 3 + 48), ("mxfp4", 8, 64, 1 + 16), ("mxfp4", 8, 96, 2 + 24), ("mxfp6", 8, 32, 1 + 12),
    ("mxfp8", 8, 33, 1 + 32), ("fp8g128", 8, 256, 2 + 128), ("mxint8", 8, 64, 1 + 32),
])
def test_sizes(name: str, n: int, k: int, beats: int) -> None:
    """Beats of a tile: of metadata, then of units."""
    layout = PackedWeights(NANO, n, k, FORMATS[name])
    assert layout.tile_beats == beats and layout.bytes == beats * NANO.beat_row
    assert PackedWeights(NANO, 17, k, FORMATS[name]).bytes == 2 * layout.bytes  # row tiles of 16


@pytest.mark.parametrize(("name", "section"), [
    ("int4g32", 32), ("int4g128", 128), ("int4g64z", 128), ("int8g128z", 256), ("mxfp4", 64), ("fp8g128", 128)])
def test_sections_stand_alone(name: str, section: int) -> None:
    """What lies from `k_offset` on is the packed form of the rest of K."""
    form = FORMATS[name]
    grid = random_grid(form, 20, 3 * section + 5, np.random.default_rng(1))
    layout = PackedWeights(NANO, *grid.shape, form)
    assert layout.section_k == section
    whole = linear_bytes(pack_grid(grid, NANO), NANO).reshape(layout.tiles, -1)
    for k0 in range(0, grid.shape[1], section):
        first = k0 // form.group
        zero = None if grid.zero is None else grid.zero[:, first:]
        rest = Grid(form, grid.codes[:, k0:], grid.scale[:, first:], zero)
        expected = linear_bytes(pack_grid(rest, NANO), NANO).reshape(layout.tiles, -1)
        assert (whole[:, layout.k_offset(k0):] == expected).all()


def test_int4g128_byte_by_byte() -> None:
    """As doc/architecture.md has it: a beat of scales, then units of [pair][row][kk], the first half in low nibbles."""
    n, k = 13, 129
    rng = np.random.default_rng(2)
    grid = random_grid(FORMATS["int4g128"], n, k, rng)
    rows, at = NANO.port_bytes // 2, 0
    for channel in pack_grid(grid, NANO):
        mine = [int(row) for row in range(at, at + rows)]
        stream = bytearray()
        for g in range(2):
            stream += np.array([grid.scale[r, g] if r < n else 0 for r in mine], np.float16).tobytes()
            for block in range(4 * g, min(4 * g + 4, 5)):
                for pair in range(4):
                    for r in mine:
                        code = [int(grid.codes[r, i]) if r < n and i < k else 8
                                for i in range(32 * block + 8 * pair, 32 * block + 8 * pair + 8)]
                        stream += bytes(code[i] | code[i + 4] << 4 for i in range(4))
        assert channel.tobytes() == bytes(stream)
        at += rows


def test_six_bits_byte_by_byte() -> None:
    """Three slices for 16 k: the two high bits of four quads, then the low nibbles in two pairs."""
    grid = random_grid(FORMATS["mxfp6"], 16, 32, np.random.default_rng(3))
    rows = NANO.port_bytes // 2
    for number, channel in enumerate(pack_grid(grid, NANO)):
        codes = grid.codes[number * rows:(number + 1) * rows].astype(int)
        stream = bytearray(np.stack([grid.scale[number * rows:(number + 1) * rows, 0], np.zeros(rows, np.uint8)], 1))
        for half in range(2):
            q = codes[:, 16 * half:16 * half + 16].reshape(rows, 4, 4)
            stream += bytes(sum(q[r, j, i] // 16 << 2 * j for j in range(4)) for r in range(rows) for i in range(4))
            for pair in range(2):
                stream += bytes(q[r, 2 * pair, i] % 16 | q[r, 2 * pair + 1, i] % 16 << 4
                                for r in range(rows) for i in range(4))
        assert channel.tobytes() == bytes(stream)


def test_a_tensor_that_fp16_makes_zero_is_refused() -> None:
    with pytest.raises(DlavmError, match=r"weight w: expected a scale that fp16 does not make zero, got .*e-07"):
        quantize(np.full((2, 128), 1e-7, np.float32), FORMATS["int4g128"], "w")
    with pytest.raises(DlavmError, match=r"tensor g: expected values that fp16 does not make zero, got .*e-09"):
        pack_rows(np.full((1, 8), -9e-9, np.float32), "g")
    assert pack_rows(np.array([[1e-8, 1e-7]], np.float32)).any()


def test_refusals_name_the_tensor() -> None:
    with pytest.raises(DlavmError, match="tensor g: values that do not fit fp16"):
        pack_rows(np.array([[1e6]], np.float32), "g")
    form = FORMATS["fp8g128"]
    for code in (0x7F, 0xFF):
        grid = Grid(form, np.array([[1, code]], np.uint8), np.ones((1, 1), np.float16))
        with pytest.raises(DlavmError, match="weight w: expected numbers, got an E4M3 code of NaN"):
            checked(grid, "w")
    for bad in (np.nan, np.inf):
        grid = Grid(form, np.array([[1, 2]], np.uint8), np.array([[bad]], np.float16))
        with pytest.raises(DlavmError, match="weight w: expected finite scales, got NaN or infinity"):
            checked(grid, "w")


@pytest.mark.parametrize(("scale", "exponent"), [(86, -41), (168, 41), (0, -127), (255, 128)])
def test_scales_past_the_limit(scale: int, exponent: int) -> None:
    form = FORMATS["mxfp4"]
    grid = Grid(form, np.tile(np.uint8([0, 1]), (2, 20)), np.array([[127, 127], [scale, 127]], np.uint8))
    with pytest.raises(DlavmError, match=rf"weight w: scales expected within 2\^\+-40, got 2\^{exponent}$"):
        checked(grid, "w")
    blank = Grid(form, np.array([[1] * 32 + [0] * 8] * 2, np.uint8), np.array([[127, scale], [127, 127]], np.uint8))
    fixed = checked(blank, "w")  # a group of zeros may have any scale
    assert 87 <= fixed.scale.min() <= fixed.scale.max() <= 167
    assert (fixed.integers() == blank.integers()).all() and (fixed.scale[1] == 127).all()
    at_limit = Grid(form, blank.codes, np.array([[87, 167], [127, 127]], np.uint8))
    assert checked(at_limit, "w").scale.tolist() == at_limit.scale.tolist()


def tensor(name: str, values: NDArray[Any], grid: Grid | None = None) -> Tensor:
    return Tensor(name, values.shape, lambda rows: values[rows],
                  lambda rows: None if grid is None else grid.rows(*rows.indices(len(values))[:2]))


@pytest.mark.parametrize("name", NAMES)
def test_pieces_are_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlavm.pack.sources.FLOATS_AT_ONCE", 500)
    values = np.random.default_rng(4).standard_normal((50, 70)).astype(np.float32)
    form = FORMATS[name]
    source = Quantised([tensor("a", values[:13]), tensor("b", values[13:])], form)
    expected = quantize(values, form)
    for start, stop in ((0, 50), (0, 7), (10, 16), (13, 50), (49, 50)):
        got = source.rows(start, stop)
        assert (got.codes == expected.codes[start:stop]).all() and (got.scale == expected.scale[start:stop]).all()
        assert (got.zero is None) == (expected.zero is None)
        assert got.zero is None or (got.zero == expected.zero[start:stop]).all()  # type: ignore[index]
    source.finish()


def test_the_checkpoints_own_grid_is_kept() -> None:
    own = random_grid(FORMATS["int4g64"], 20, 200, np.random.default_rng(5))
    source = tensor("w", own.values(), own)
    assert (Quantised([source], own.format).rows(3, 9).codes == own.codes[3:9]).all()
    finer = Quantised([source], FORMATS["int4g32"]).rows(0, 20)
    assert (finer.values() == own.values()).all()
    coarser = Quantised([source], FORMATS["int4g128"]).rows(0, 20)  # not the same numbers: quantised anew
    assert (coarser.codes == quantize(own.values(), FORMATS["int4g128"]).codes).all()


def test_a_tensor_is_converted_in_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that another format could hold exactly are quantised where other rows are: no board decides about bits."""
    monkeypatch.setattr("dlavm.pack.sources.FLOATS_AT_ONCE", 64)
    own = random_grid(FORMATS["int8g32"], 4, 32, np.random.default_rng(6))
    own.codes[0] = 128 + 3
    assert convert(own.rows(0, 1), FORMATS["int4g32"]) is not None
    source = Quantised([tensor("w", own.values(), own)], FORMATS["int4g32"])
    assert (source.rows(0, 1).codes == quantize(own.values()[:1], FORMATS["int4g32"]).codes).all()
    assert (source.rows(0, 1).codes == source.rows(0, 4).codes[:1]).all()


def test_tiny_rows_of_a_tensor_are_no_error_but_a_tiny_tensor_is() -> None:
    values = np.zeros((8, 128), np.float32)
    values[0], values[7] = 1e-9, 1
    form = FORMATS["int4g128"]
    source = Quantised([tensor("w", values)], form)
    assert not source.rows(0, 4).scale.any() and source.rows(4, 8).scale.any()
    source.finish()
    for kind in ("packed", "rows"):
        with pytest.raises(DlavmError, match=r"(weight|tensor) w: expected .* fp16 does not make zero, got .* up to"):
            read_through(tensor("w", values[:4]), kind, form if kind == "packed" else None)
    read_through(tensor("w", np.zeros((4, 128), np.float32)), "packed", form)


def test_rows_of_several_tensors() -> None:
    rows = np.arange(40, dtype=np.float32).reshape(10, 4)
    source = Halves("t", [tensor("a", rows[:3]), tensor("b", rows[3:])])
    assert (source.rows(2, 5) == rows[2:5]).all()
    side = Halves("v", [tensor("a", rows[0]), tensor("b", rows[1])])  # vectors lie side by side
    assert side.rows(0, 1).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    with pytest.raises(DlavmError, match="tensor b: values that do not fit fp16"):
        Halves("t", [tensor("a", rows), tensor("b", rows * 1e5)]).rows(9, 12)


def test_rows_are_padded_and_striped() -> None:
    rows = pack_rows(np.arange(10, dtype=np.float32).reshape(2, 5))
    assert rows.size == 2 * 16
    assert (rows.reshape(2, 16)[:, :10].copy().view(np.float16) == np.arange(10).reshape(2, 5)).all()
    striped = stripe(np.arange(48, dtype=np.uint8), NANO)
    assert striped.shape == (2, 32)
    assert striped[0, :16].tolist() == list(range(16)) and striped[1, :16].tolist() == list(range(16, 32))
    assert striped[0, 16:].tolist() == list(range(32, 48)) and not striped[1, 16:].any()


def test_indices() -> None:
    assert pack_index(np.array([2, 0, 1, 2], np.int32)).view("<u4").tolist() == [2, 0, 1, 2]
    for index, message in (([0, 3, 1], "element 1 expected 0..2, got 3"), ([-1, 0], "element 0 expected 0..1, got -1")):
        with pytest.raises(DlavmError, match=f"tensor g: {message}"):
            pack_index(np.array(index), "g")


def test_experts_lie_one_behind_the_other() -> None:
    """Each checkpoint tensor of a param of three axes is a matrix with row tiles of its own."""
    form, rng = FORMATS["int8g32z"], np.random.default_rng(7)
    experts = [rng.standard_normal((21, 70)).astype(np.float32) for _ in range(3)]
    parts = tuple(tensor(f"e{i}", values) for i, values in enumerate(experts))
    constant = Constant("experts", 0, "packed", (21, 70), parts, form, count=3)
    layout, got = PackedWeights(NANO, 21, 70, form), np.zeros((NANO.channels, 0), np.uint8)
    for start, channels in pieces(constant, NANO):
        assert start == got.shape[1]
        got = np.concatenate([got, channels], axis=1)
    assert got.size == 3 * layout.bytes
    for i, values in enumerate(experts):
        one = got[:, i * layout.bytes // NANO.channels:][:, :layout.bytes // NANO.channels]
        assert (one == pack_grid(quantize(values, form), NANO)).all()


@pytest.mark.parametrize("kind", ["packed", "rows"])
def test_a_large_tensor_is_packed_in_little_memory(kind: str) -> None:
    """64 MB as float32, of which no more than a piece is held."""
    n, k, memory = 2048, 8192, load_target("v3", "vcu128").space("weights")
    row = np.random.default_rng(8).standard_normal(k).astype(np.float32)
    source = Tensor("w", (n, k), lambda rows: np.tile(row, (len(range(n)[rows]), 1)))
    form = FORMATS["mxfp6"] if kind == "packed" else None
    tracemalloc.start()
    packed = sum(channels.size for _, channels in pieces(Constant("w", 0, kind, (n, k), (source,), form), memory))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert packed == (PackedWeights(memory, n, k, form).bytes if form else 2 * n * k)
    assert peak < 48e6
