"""TOPK: order and ties, and the softmax of what is chosen, against a slow count."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.support.env import SIMD_LEVELS
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.target.isa import Instr, encode_program

SPEC = load_target("v3", "nano")
SRC, IDS, WEIGHTS, PROGRAM = 0, 1 << 16, 1 << 17, 1 << 18
RNG = np.random.default_rng(5)


@pytest.fixture(params=["reference", *SIMD_LEVELS[1:]])
def device(request: pytest.FixtureRequest) -> Any:
    with (ReferenceDevice if request.param == "reference" else NativeDevice)(SPEC) as made:
        if request.param != "reference":
            try:
                made.set_option("simd", request.param)
            except DlavmError as e:
                pytest.skip(f"this machine lacks {request.param}: {e}")
        yield made


def topk(device: Any, logits: NDArray[np.float16], k: int, renormalize: bool) -> tuple[Any, NDArray[np.float32]]:
    """Ids and weights of each row of logits (rows, n)."""
    rows, n = logits.shape
    stride = -(-2 * n // 16)
    padded = np.zeros((rows, 8 * stride), np.float16)
    padded[:, :n] = logits
    fields = {"renormalize": int(renormalize), "src": SRC // 16, "src_so": stride, "rows_o": rows, "n": n, "k": k,
              "ids": IDS // 16, "weights": WEIGHTS // 16}
    words = encode_program(SPEC, [Instr("TOPK", fields), Instr("END")])
    device.mem_write(SRC, padded.tobytes())
    device.mem_write(PROGRAM, np.array(words, dtype=np.uint32).tobytes())
    for name, value in (("PROGRAM", PROGRAM // 16), ("PROGRAM_WORDS", len(words)), ("CONTROL", 1)):
        device.csr_write(SPEC.registers[name].offset, value)
    device.run()
    found = (np.frombuffer(device.mem_read(at, 4 * rows * k), dtype) for at, dtype in ((IDS, "<u4"), (WEIGHTS, "<f4")))
    ids, weights = (values.reshape(rows, k) for values in found)
    return ids, weights


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 4), (8, 2), (60, 4), (129, 8), (300, 12)])
def test_against_a_slow_count(device: Any, n: int, k: int, renormalize: bool) -> None:
    """Logits with many equal ones."""
    logits = np.round(RNG.standard_normal((5, n)) * 3).astype(np.float16)
    ids, weights = topk(device, logits, k, renormalize)
    for row, chosen, found in zip(logits.astype(np.float64), ids.tolist(), weights, strict=True):
        assert chosen == sorted(range(n), key=lambda i: (-row[i], i))[:k]
        p = np.exp(row - row.max())
        exact = p[chosen] / (p[chosen] if renormalize else p).sum()
        assert (np.abs(found / exact - 1) < 1e-5).all()


def test_zeros_and_extremes(device: Any) -> None:
    """-0 equals +0; what stands for infinity reads as the largest; far smaller ones weigh nothing."""
    rows = np.array([[0x8000, 0x0000, 0x8000, 0xFC00], [0x7C00, 0x7BFF, 0xFBFF, 0x7E01]], np.uint16)
    ids, weights = topk(device, rows.view(np.float16), 4, True)
    assert ids.tolist() == [[0, 1, 2, 3], [0, 1, 3, 2]]
    assert np.allclose(weights, [[1 / 3, 1 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3, 0]], rtol=1e-5, atol=1e-12)
