"""The element types of GGUF tensors: blocks of bytes that stand for 1, 32 or 256 elements.

The layouts are those of ggml (ggml-common.h, ggml-quants.c). Functions take blocks [n, bytes] and give [n, elements].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[Any]  # uint8; what mypy makes of bitwise operations with literals is wider
Floats = NDArray[np.float32]
Grid = tuple[Bytes, NDArray[np.float16]]  # codes [n, elements] and the scale [n] of each block


@dataclass(frozen=True)
class BlockType:
    """An element type. `format` is that of `dlavm.formats` which holds it exactly, with `grid` to take it apart; of a
    quantised type that none holds, `note` says why, and `nearest` is the one that loses least without taking much more
    room. Of float types all of these are empty, and dtype is the element's."""

    name: str
    elements: int
    bytes: int
    values: Callable[[Bytes], Floats]
    dtype: str = "F32"
    format: str = ""
    grid: Callable[[Bytes], Grid] | None = None
    note: str = ""
    nearest: str = ""


def _half(blocks: Bytes, at: int) -> Floats:
    """The fp16 at byte `at` of each block, as a column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """The low nibbles of all bytes, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(packed: Bytes) -> Bytes:
    """32 bits, the lowest first, as 0 or 16."""
    return np.unpackbits(packed, axis=1, bitorder="little") << 4


def _f32(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view("<f4").astype(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return _half(blocks, 0)


def _bf16(blocks: Bytes) -> Floats:
    return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q4_0_grid(blocks: Bytes) -> Grid:
    return _nibbles(blocks[:, 2:]), _half(blocks, 0)[:, 0].astype(np.float16)


def _q8_0_grid(blocks: Bytes) -> Grid:
    return blocks[:, 2:] ^ 128, _half(blocks, 0)[:, 0].astype(np.float16)  # two's complement plus 128


def _q4_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _q5_0(blocks: Bytes) -> Floats:
    integers = (_nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])).astype(np.float32) - 16
    return _half(blocks, 0) * integers


def _q5_1(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * (_nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])) + _half(blocks, 2)


def _q8_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8)


def _six_bits(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Scales and minima [n, 8] of the sub-blocks of Q4_K and Q5_K, six bits each: bytes 0..3 and 4..7 have the first
    four of both and, on top, two bits of the others, whose nibbles are in bytes 8..11."""
    low, high, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, rest & 15 | low >> 2 & 48], axis=1)
    minima = np.concatenate([high & 63, rest >> 4 | high >> 2 & 48], axis=1)
    return scales, minima


def _affine(blocks: Bytes, integers: Bytes) -> Floats:
    """Integers [n, 8, 32] times their scale, less their minimum, both in bytes 0..15 of a block."""
    scales, minima = _six_bits(blocks[:, 4:16])
    scale, minimum = _half(blocks, 0) * scales, _half(blocks, 2) * minima
    return (scale[..., None] * integers - minimum[..., None]).reshape(len(blocks), -1)


def _halves(packed: Bytes, size: int) -> Bytes:
    """Runs of `size` bytes, the low nibbles of each before its high ones: [n, 2 * runs, size]."""
    runs = packed.reshape(len(packed), -1, 1, size) >> np.array([[0], [4]], np.uint8) & 15
    return runs.reshape(len(packed), -1, size)


def _q4_k(blocks: Bytes) -> Floats:
    return _affine(blocks, _halves(blocks[:, 16:], 32))


def _q5_k(blocks: Bytes) -> Floats:
    fifth = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # bit i belongs to sub-block i
    return _affine(blocks, _halves(blocks[:, 48:], 32) | fifth << 4)


def _q6_k(blocks: Bytes) -> Floats:
    """128 bytes of low nibbles, 64 of two high bits, 16 signed scales of 16 elements each, the fp16 scale of all."""
    low = _halves(blocks[:, :128], 64).reshape(len(blocks), -1, 32)
    pairs = blocks[:, 128:192].reshape(len(blocks), 2, 1, 32) >> np.array([[0], [2], [4], [6]], np.uint8) & 3
    integers = (low | pairs.reshape(low.shape) << 4).astype(np.float32) - 32
    scale = _half(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return (scale[..., None] * integers.reshape(len(blocks), 16, 16)).reshape(len(blocks), -1)


_MINIMUM = "its groups of 32 have a minimum, which is no multiple of the scale"
_SUB_BLOCKS = "scale and minimum of its groups of 32 are products of an fp16 and a 6-bit number"

BLOCK_TYPES = {
    0: BlockType("F32", 1, 4, _f32),
    1: BlockType("F16", 1, 2, _f16, dtype="F16"),
    30: BlockType("BF16", 1, 2, _bf16, dtype="BF16"),
    2: BlockType("Q4_0", 32, 18, _q4_0, format="int4g32", grid=_q4_0_grid),
    8: BlockType("Q8_0", 32, 34, _q8_0, format="int8g32", grid=_q8_0_grid),
    3: BlockType("Q4_1", 32, 20, _q4_1, note=f"Q4_1: {_MINIMUM}", nearest="int4g32z"),
    6: BlockType("Q5_0", 32, 22, _q5_0, note="Q5_0: its integers have 5 bits", nearest="int8g32"),
    7: BlockType("Q5_1", 32, 24, _q5_1, note=f"Q5_1: its integers have 5 bits, and {_MINIMUM}",
                 nearest="int8g32z"),
    12: BlockType("Q4_K", 256, 144, _q4_k, note=f"Q4_K: {_SUB_BLOCKS}", nearest="int4g32z"),
    13: BlockType("Q5_K", 256, 176, _q5_k, note=f"Q5_K: its integers have 5 bits; {_SUB_BLOCKS}",
                  nearest="int8g32z"),
    14: BlockType("Q6_K", 256, 210, _q6_k,
                  note="Q6_K: the scales of its groups of 16 are products of an fp16 and an 8-bit number",
                  nearest="int8g32"),
}  # fmt: skip
OTHER_TYPES = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
