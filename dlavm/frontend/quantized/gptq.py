"""GPTQ checkpoints (AutoGPTQ, GPTQModel): integers packed along K, [K * bits / 32, N] words a layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.frontend.families.fields import Fields
from dlavm.frontend.quantized.layer import Layer
from dlavm.frontend.quantized.tensors import ALL, Tensors, order_of
from dlavm.frontend.quantized.unpack import WORD, transposed, unpack, words_of

INT = ("I32",)


def layers(tensors: Tensors, fields: Fields) -> list[Layer]:
    """The layers that have a `qweight`. Raises DlavmError naming field or tensor."""
    bits = fields.count("bits")
    if bits not in (4, 8):
        raise fields.error("bits", "4 or 8")
    fields.only("checkpoint_format", "gptq", "gptq_v2")
    fields.only("is_marlin_format", False)
    fields.only("pack_dtype", "int32")
    overrides = fields.raw.get("dynamic") or {}
    if not isinstance(overrides, dict) or not all(str(key).startswith("-") for key in overrides):
        raise fields.error("dynamic", "none but layers left out")
    group = group_size(fields, "group_size")
    # The first version of the format stores zero points less one; what that makes negative wraps.
    less = 0 if fields.text("checkpoint_format", "gptq") == "gptq_v2" else 1
    return [_layer(tensors, prefix, bits, group, less) for prefix in tensors.ending(".qweight")]


def group_size(fields: Fields, name: str) -> int | None:
    """Weights that share a scale; None, -1 in the file, where those of a row do."""
    return None if fields.raw.get(name) == -1 else fields.count(name)


def _layer(tensors: Tensors, prefix: str, bits: int, group: int | None, less: int) -> Layer:
    per = WORD // bits
    packed, n = tensors.shape(f"{prefix}.qweight", INT, 2)
    k = packed * per
    size = min(group or k, k)
    groups = -(-k // size)
    tensors.floats(f"{prefix}.scales", (groups, n))
    tensors.expect(f"{prefix}.qzeros", INT, (groups, -(-n // per)))
    order = None
    if tensors.has(f"{prefix}.g_idx"):
        tensors.expect(f"{prefix}.g_idx", INT, (k,))
        order = order_of(tensors, f"{prefix}.g_idx", size, groups)
    read = partial(_read, tensors, prefix)
    return Layer(
        f"{prefix}.weight", str(tensors.source.path_of(f"{prefix}.qweight")), (n, k), f"int{bits}", size,
        codes=lambda rows: unpack(read("qweight", rows), bits),
        scales=lambda rows: read("scales", rows),
        zeros=partial(zero_points, tensors, f"{prefix}.qzeros", bits, less),
        order=order,
    )  # fmt: skip


def _read(tensors: Tensors, prefix: str, name: str, columns: slice) -> NDArray[Any]:
    """Columns of a tensor, rows of the layer, one below the other."""
    return transposed(tensors.read(f"{prefix}.{name}", ALL, columns))


def zero_points(tensors: Tensors, name: str, bits: int, less: int, rows: slice) -> NDArray[np.uint8]:
    """uint8 [rows, groups], from words [groups, N * bits / 32] with the zero points less `less`."""
    columns, within = words_of(rows, bits)
    stored = unpack(tensors.read(name, ALL, columns), bits)[:, within]
    return transposed(stored + np.uint8(less) & np.uint8((1 << bits) - 1))
