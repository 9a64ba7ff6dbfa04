"""Checkpoints that `dlavm quantize` writes in a form of its own: formats that no other form of a checkpoint has.

quantization_config: `quant_method` dlavm, `version` 1, `matrices` with the format and the shape [n, k] of each. Matrix
NAME is the tensors NAME_codes (uint8 [n, k]; of 4 bits two in a byte, the first in the low half), NAME_scale (float16,
or the bytes of E8M0, [n, groups]) and, of formats with zero points, NAME_zero (uint8 [n, groups]).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import FORMATS
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.quantized.layer import Layer, Part
from dlavm.frontend.quantized.tensors import Tensors
from dlavm.frontend.quantized.unpack import nibbles

VERSION = 1


def layers(tensors: Tensors, fields: Fields) -> list[Layer]:
    """Raises DlavmError naming field or tensor."""
    if fields.count("version") != VERSION:
        raise fields.error("version", str(VERSION))
    matrices = fields.within("matrices")
    if matrices is None:
        raise fields.error("matrices", "the matrices by name")
    return [_layer(tensors, matrices, name) for name in matrices.raw]


def _layer(tensors: Tensors, matrices: Fields, name: str) -> Layer:
    fields = matrices.within(name)
    format = FORMATS.get(fields.text("format", "")) if fields else None
    shape = _extents(fields.raw.get("shape")) if fields else ()
    if format is None or len(shape) != 2:
        raise matrices.error(name, f"a format, one of {sorted(FORMATS)!r}, and the shape of a matrix")
    n, k = shape
    four = format.element.bits == 4
    tensors.expect(f"{name}_codes", ("U8",), (n, -(-k // 2) if four else k))
    tensors.expect(f"{name}_scale", ("U8" if format.scale == "e8m0" else "F16",), (n, format.groups(k)))
    zeros: Part | None = None
    if format.zero:
        tensors.expect(f"{name}_zero", ("U8",), (n, format.groups(k)))

        def zeros(rows: slice) -> NDArray[np.uint8]:
            return _limited(tensors, f"{name}_zero", rows, format.element.bits)

    def codes(rows: slice) -> NDArray[np.uint8]:
        if four:
            return nibbles(tensors.read(f"{name}_codes", rows))[:, :k]
        return _limited(tensors, f"{name}_codes", rows, format.element.bits)

    return Layer(name, str(tensors.source.path_of(f"{name}_codes")), (n, k), format.element.name, format.group, codes,
                 lambda rows: tensors.read(f"{name}_scale", rows), zeros)  # fmt: skip


def _extents(shape: object) -> tuple[int, ...]:
    """Positive integers; none of anything else."""
    good = isinstance(shape, list) and all(type(extent) is int and extent > 0 for extent in shape)
    return tuple(shape) if good and isinstance(shape, list) else ()


def _limited(tensors: Tensors, name: str, rows: slice, bits: int) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = tensors.read(name, rows)
    if found.size and int(found.max()) >> bits:
        raise tensors.error(name, f"codes of {bits} bits", int(found.max()))
    return found
