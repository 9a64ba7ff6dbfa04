"""SOFTMAX: windows and slopes against the formula; rows whose first blocks are left out give the same bits."""
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
BATCH, TOKENS, GROUP, ROW = 2, 5, 3, 320  # ROW: columns between rows
SCORES, DST, RECIP, SLOPES, PROGRAM = 0, 1 << 16, 1 << 17, (1 << 17) + 4096, 1 << 18
RNG = np.random.default_rng(3)
VALUES = (RNG.standard_normal((BATCH, TOKENS, GROUP, ROW)) * 4).astype(np.float16)
SLOPE_VALUES = np.array([[0.5, 2**-8, 0.0], [-0.25, 3e4, 0.037]], dtype=np.float32)
WINDOWS = (0, 1, 2, 31, 32, 33, 63, 64, 100, 129, 250, 1 << 23)
Result = tuple[NDArray[np.float16], NDArray[np.float32]]


@pytest.fixture(params=["reference", *SIMD_LEVELS[1:]])
def device(request: pytest.FixtureRequest) -> Any:
    with (ReferenceDevice if request.param == "reference" else NativeDevice)(SPEC) as made:
        if request.param != "reference":
            try:
                made.set_option("simd", request.param)
            except DlavmError as e:
                pytest.skip(f"this machine lacks {request.param}: {e}")
        yield made


def softmax(device: Any, scores: NDArray[np.float16], **fields: int) -> Result:
    """P (batch, tokens, group, width) and the reciprocals of one command over rows of `scores`."""
    rows = {"rows_o": TOKENS, "rows_i": GROUP, "batch": BATCH}
    strides = {f"{name}_{s}": 2 * ROW * n // 16 for name in ("src", "dst")
               for s, n in (("b", TOKENS * GROUP), ("so", GROUP), ("si", 1))}
    places = {"src": SCORES // 16, "dst": DST // 16, "recip": RECIP // 16, "slopes": SLOPES // 16}
    words = encode_program(SPEC, [Instr("SOFTMAX", rows | strides | places | fields), Instr("END")])
    device.mem_write(SCORES, scores.tobytes())
    device.mem_write(DST, b"\x55" * scores.nbytes)
    device.mem_write(SLOPES, SLOPE_VALUES.tobytes())
    device.mem_write(PROGRAM, np.array(words, dtype=np.uint32).tobytes())
    for name, value in (("PROGRAM", PROGRAM // 16), ("PROGRAM_WORDS", len(words)), ("CONTROL", 1)):
        device.csr_write(SPEC.registers[name].offset, value)
    device.run()
    p = np.frombuffer(device.mem_read(DST, scores.nbytes), np.float16).reshape(scores.shape)
    recip = np.frombuffer(device.mem_read(RECIP, 4 * BATCH * TOKENS * GROUP), np.float32)
    assert (p[..., fields["width"]:].view(np.uint16) == 0x5555).all()  # nothing is written behind the width
    return p[..., :fields["width"]], recip.reshape(BATCH, TOKENS, GROUP)


@pytest.mark.parametrize("slanted", [0, 1])
@pytest.mark.parametrize("visible", [1, 30, 33, 126, 260])
def test_against_the_formula(device: Any, visible: int, slanted: int) -> None:
    """P is e^(s - max) over the visible positions and exactly zero elsewhere, whatever stands there."""
    width = visible + TOKENS - 2  # the last row is cut
    for window in WINDOWS:
        p, recip = softmax(device, VALUES, visible=visible, width=width, window=window, use_slopes=slanted)
        position = np.arange(width)
        for o in range(TOKENS):
            seen = min(visible + o, width)
            hidden = (position >= seen) | (position < (seen - window if window else 0))
            distance = position - (seen - 1)
            bias = slanted * SLOPE_VALUES[..., None] * distance.astype(np.float32)
            s = (VALUES[:, o, :, :width].astype(np.float32) + bias).astype(np.float64)  # the sum is rounded to fp32
            s = np.where(hidden, -np.inf, s)
            exact = np.exp(s - s.max(axis=-1, keepdims=True))
            assert (p[:, o][..., hidden].view(np.uint16) == 0).all()
            assert (np.abs(p[:, o] - exact) <= 2**-10.98 * exact + 2**-25).all(), (window, o)
            total = p[:, o].astype(np.float64).sum(axis=-1)
            assert (np.abs(recip[:, o] * total - 1) < 1e-5).all()


@pytest.mark.parametrize("slanted", [0, 1])
@pytest.mark.parametrize("window", [1, 31, 32, 33, 90, 150])
def test_blocks_in_front_of_the_window_change_no_bit(device: Any, window: int, slanted: int) -> None:
    """What makes any chunking of a prompt give the same bits: columns are left out 32 at a time."""
    for visible in (window + 1, window + 63, 270):
        fields = {"window": window, "use_slopes": slanted}
        whole, recip = softmax(device, VALUES, visible=visible, width=visible + TOKENS - 1, **fields)
        for skipped in range(0, visible - window + 1, 32):
            shifted = np.roll(VALUES, -skipped, axis=-1)
            part, again = softmax(device, shifted, visible=visible - skipped,
                                  width=visible + TOKENS - 1 - skipped, **fields)
            assert part.tobytes() == np.ascontiguousarray(whole[..., skipped:]).tobytes()
            assert again.tobytes() == recip.tobytes()


def test_a_wide_window_and_flat_slopes_are_none(device: Any) -> None:
    plain = softmax(device, VALUES, visible=200, width=204)
    wide = softmax(device, VALUES, visible=200, width=204, window=204)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(plain, wide, strict=True))
    flat, _ = softmax(device, VALUES, visible=200, width=204, use_slopes=1)
    assert flat[0, :, 2].tobytes() == plain[0][0, :, 2].tobytes()  # the slope of this head is zero
