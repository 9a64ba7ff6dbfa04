"""Small integers in the 32-bit words of a checkpoint, and parts of its tensors by the rows of a linear layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD = 32


def unpack(words: NDArray[np.int32], bits: int) -> NDArray[np.uint8]:
    """int32 [.., m] -> uint8 [.., m * 32 / bits] for 4 and 8 bits; the lowest bits of a word come first."""
    octets = np.ascontiguousarray(words).view("<u1")
    return octets if bits == 8 else nibbles(octets)


def nibbles(octets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [.., m] -> [.., 2 m]: of each byte the low half, then the high one."""
    both = np.stack([octets & np.uint8(15), octets >> np.uint8(4)], axis=-1)
    return both.reshape(*octets.shape[:-1], 2 * octets.shape[-1])


def words_of(rows: slice, bits: int) -> tuple[slice, slice]:
    """The words that hold some rows where rows are packed, and where these are among what comes out of them."""
    per = WORD // bits
    first, last = rows.start // per, -(-rows.stop // per)
    return slice(first, last), slice(rows.start - first * per, rows.stop - first * per)


def transposed(part: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(part.T)
