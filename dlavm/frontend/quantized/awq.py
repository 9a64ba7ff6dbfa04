"""AWQ checkpoints in the order of its GEMM kernels: integers packed along N, [K, N / 8] words a layer."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from dlavm.frontend.families.fields import Fields
from dlavm.frontend.quantized.gptq import INT, group_size
from dlavm.frontend.quantized.layer import Layer
from dlavm.frontend.quantized.tensors import ALL, Tensors
from dlavm.frontend.quantized.unpack import transposed, unpack, words_of

BITS, PER = 4, 8
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # where in a word, in nibbles from the lowest, column j of its eight is


def layers(tensors: Tensors, fields: Fields) -> list[Layer]:
    """The layers that have a `qweight`. Raises DlavmError naming field or tensor."""
    bits = "w_bit" if fields.has("w_bit") else "bits"
    if fields.count(bits) != BITS:
        raise fields.error(bits, "4")
    version = fields.text("version", "gemm")
    if version.lower() != "gemm":
        raise fields.error("version", "'gemm'")
    group = group_size(fields, "q_group_size" if fields.has("q_group_size") else "group_size")
    return [_layer(tensors, prefix, group) for prefix in tensors.ending(".qweight")]


def _layer(tensors: Tensors, prefix: str, group: int | None) -> Layer:
    k, packed = tensors.shape(f"{prefix}.qweight", INT, 2)
    n = packed * PER
    size = min(group or k, k)
    groups = -(-k // size)
    tensors.floats(f"{prefix}.scales", (groups, n))
    tensors.expect(f"{prefix}.qzeros", INT, (groups, packed))
    return Layer(
        f"{prefix}.weight", str(tensors.source.path_of(f"{prefix}.qweight")), (n, k), "int4", size,
        codes=partial(_unpacked, tensors, f"{prefix}.qweight"),
        scales=lambda rows: transposed(tensors.read(f"{prefix}.scales", ALL, rows)),
        zeros=partial(_unpacked, tensors, f"{prefix}.qzeros"),
    )  # fmt: skip


def _unpacked(tensors: Tensors, name: str, rows: slice) -> NDArray[np.uint8]:
    """uint8 [rows, m], from words [m, N / 8]."""
    columns, within = words_of(rows, BITS)
    stored = unpack(tensors.read(name, ALL, columns), BITS)
    ordered = stored.reshape(len(stored), -1, PER)[..., PLACES].reshape(stored.shape)
    return transposed(ordered[:, within])
