"""Quantising and packing: bounds, layout against the reference's reading of device memory, refusals."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.pack.weights import dequantize_int4, pack_index, pack_int4, pack_rows, quantize_int4, stripe
from dlavm.sim.reference import ReferenceDevice
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.target.layout import PackedWeights
from dlavm.target.spec import list_boards


@given(st.integers(1, 70), st.integers(1, 300), st.sampled_from(list_boards()), st.integers(0, 99))
@settings(max_examples=30)
def test_packed_weights_read_back(n: int, k: int, board: str, seed: int) -> None:
    spec = load_target("v3", board)
    memory = spec.space("weights")
    rng = np.random.default_rng(seed)
    q = rng.integers(-8, 8, (n, k)).astype(np.int8)
    scale = rng.standard_normal((n, -(-k // 128))).astype(np.float16)
    packed = pack_int4(q, scale, memory)
    layout = PackedWeights(memory, n, k)
    assert packed.size == layout.bytes
    device = ReferenceDevice(spec)
    linear = packed.reshape(memory.channels, -1, memory.port_bytes).transpose(1, 0, 2)
    device.mem_write(memory.base, np.ascontiguousarray(linear))
    w, s = device._matrix.unpack(memory.base, layout.tile_bytes, n, k)
    assert (w.reshape(n, -1)[:, :k] == q).all() and (w.reshape(n, -1)[:, k:] == 0).all()
    assert (s == scale).all()


def test_quantization_error_is_half_a_step() -> None:
    w = np.random.default_rng(0).standard_normal((16, 300)).astype(np.float32)
    q, scale = quantize_int4(w)
    step = np.repeat(scale.astype(np.float32), 128, axis=1)[:, :300]
    assert (np.abs(dequantize_int4(q, scale) - w) <= step * 0.5005 + 1e-6).all()
    assert q.min() >= -8 and q.max() <= 7


def test_zero_and_tiny_groups() -> None:
    w = np.zeros((2, 128), np.float32)
    w[0, 0] = 1
    w[1, 0] = 1e-12  # its scale is below fp16's smallest: the group becomes zero
    q, scale = quantize_int4(w)
    assert q[0, 0] == 7 and (q[1] == 0).all() and (dequantize_int4(q, scale)[1] == 0).all()
    q, scale = quantize_int4(np.zeros((2, 128), np.float32))
    assert not q.any() and not scale.any()
    assert not pack_rows(np.zeros((2, 8), np.float32)).any()


def test_a_tensor_that_fp16_makes_zero_is_refused() -> None:
    with pytest.raises(DlavmError, match=r"weight w: expected a scale that fp16 does not make zero, got .*e-08"):
        quantize_int4(np.full((2, 128), 1e-7, np.float32), "w")
    with pytest.raises(DlavmError, match=r"tensor g: expected values that fp16 does not make zero, got .*e-09"):
        pack_rows(np.full((1, 8), -9e-9, np.float32), "g")
    assert pack_rows(np.array([[1e-8, 1e-7]], np.float32)).any()


def test_refusals_name_the_tensor() -> None:
    with pytest.raises(DlavmError, match="weight w: expected finite values"):
        quantize_int4(np.array([[np.nan, 1]], np.float32), "w")
    with pytest.raises(DlavmError, match="weight w: a scale of"):
        quantize_int4(np.array([[1e6, 1]], np.float32), "w")
    with pytest.raises(DlavmError, match="tensor g: values that do not fit fp16"):
        pack_rows(np.array([[1e6]], np.float32), "g")


def test_rows_are_padded_and_striped() -> None:
    memory = load_target("v3", "nano").space("weights")
    rows = pack_rows(np.arange(10, dtype=np.float32).reshape(2, 5))
    assert rows.size == 2 * 16
    assert (rows.reshape(2, 16)[:, :10].copy().view(np.float16) == np.arange(10).reshape(2, 5)).all()
    striped = stripe(np.arange(48, dtype=np.uint8), memory)
    assert striped.shape == (2, 32)
    assert striped[0, :16].tolist() == list(range(16)) and striped[1, :16].tolist() == list(range(16, 32))
    assert striped[0, 16:].tolist() == list(range(32, 48)) and not striped[1, 16:].any()


def test_indices() -> None:
    assert pack_index(np.array([2, 0, 1, 2], np.int32)).view("<u4").tolist() == [2, 0, 1, 2]
    for index, message in (([0, 3, 1], "element 1 expected 0..2, got 3"), ([-1, 0], "element 0 expected 0..1, got -1")):
        with pytest.raises(DlavmError, match=f"tensor g: {message}"):
            pack_index(np.array(index), "g")
