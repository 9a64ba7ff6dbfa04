"""The bytes of a unit: codes of 32 k of a row as slices of four bytes (doc/architecture.md "Layouts")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
QUAD = 4  # neighbours k that stand side by side
FIELDS = np.arange(0, 8, 2, dtype=np.uint8)[:, None]  # shifts of the two high bits of four quads in a byte
NIBBLE, FOUR, FIELD = np.uint8(15), np.uint8(4), np.uint8(3)


def to_slices(codes: Bytes, bits: int) -> Bytes:
    """Codes [.., 32] -> [.., slices, 4]; between two slices of a row in memory lie those of the other rows."""
    quads = codes.reshape(*codes.shape[:-1], 8, QUAD)
    if bits == 8:
        return quads
    pairs = _nibbles(quads & NIBBLE)
    if bits == 4:
        return pairs
    high = np.bitwise_or.reduce((_halves(quads) >> FOUR) << FIELDS, axis=-2)  # [.., half, kk]
    sliced = np.concatenate([high[..., None, :], _halves(pairs)], axis=-2)  # [.., half, slice, kk]
    return sliced.reshape(*codes.shape[:-1], 6, QUAD)


def from_slices(slices: Bytes, bits: int) -> Bytes:
    """[.., slices, 4] -> codes [.., 32]: undoes `to_slices`."""
    front = slices.shape[:-2]
    if bits == 8:
        return slices.reshape(*front, 8 * QUAD)
    if bits == 4:
        return _quads(slices).reshape(*front, 8 * QUAD)
    halves = _halves(slices)
    low = _quads(halves[..., 1:, :])  # [.., half, quad, kk]
    high = (halves[..., :1, :] >> FIELDS) & FIELD
    return (low | high << FOUR).reshape(*front, 8 * QUAD)


def _halves(x: Bytes) -> Bytes:
    """The two halves of the second last axis as an axis of its own."""
    return x.reshape(*x.shape[:-2], 2, x.shape[-2] // 2, x.shape[-1])


def _nibbles(quads: Bytes) -> Bytes:
    """[.., quads, kk] of four bits -> [.., quads / 2, kk]: the first of two quads in the low nibble."""
    return quads[..., 0::2, :] | quads[..., 1::2, :] << FOUR


def _quads(pairs: Bytes) -> Bytes:
    """Undoes `_nibbles`."""
    return np.stack([pairs & NIBBLE, pairs >> FOUR], axis=-2).reshape(*pairs.shape[:-2], -1, QUAD)
