"""Matrices of eight-bit numbers, stored as such, with scales beside them: FP8 and the INT8 of compressed-tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dlavm.frontend.families.fields import Fields
from dlavm.frontend.model import DTYPES
from dlavm.frontend.quantized.layer import Layer, Part
from dlavm.frontend.quantized.tensors import Tensors

EIGHT_BITS = {"F8_E4M3": "e4m3", "I8": "int8"}
EXPONENTS = ("U8", "F8_E8M0")
OTHERS = ("input_scale", "input_zero_point", "output_scale", "output_zero_point", "weight_global_scale",
          "input_global_scale", "activation_scale")  # fmt: skip
CACHES = ("k_scale", "v_scale", "q_scale", "prob_output_scale")  # beside the projections of an attention
INT8_MIDDLE = np.uint8(128)
Block = tuple[int, int]  # rows and columns that share a scale


def fp8_layers(tensors: Tensors, fields: Fields) -> list[Layer]:
    """The layers whose weight is in FP8, with scales by blocks, rows, or one for all."""
    block = block_size(fields, "weight_block_size")
    found = []
    for prefix in tensors.ending(".weight"):
        if tensors.source.dtype(f"{prefix}.weight") in EIGHT_BITS:
            suffix = next(
                (s for s in ("weight_scale_inv", "weight_scale") if tensors.has(f"{prefix}.{s}")), "weight_scale"
            )
            found.append(layer(tensors, prefix, suffix, block))
            ignore_others(tensors, prefix)
    return found


def ignore_others(tensors: Tensors, prefix: str) -> None:
    """What concerns activations and caches alone is not used: ours are quantised by the hardware's own rules."""
    block = prefix.rpartition(".")[0]
    tensors.ignore(*(f"{prefix}.{name}" for name in OTHERS), *(f"{block}.{name}" for name in CACHES))


def block_size(fields: Fields, name: str) -> Block | None:
    value = fields.raw.get(name)
    if value is None:
        return None
    plain = isinstance(value, list) and all(isinstance(size, int) and not isinstance(size, bool) for size in value)
    if not plain or len(value) != 2 or min(value) < 1:
        raise fields.error(name, "two positive integers")
    return value[0], value[1]


def layer(
    tensors: Tensors, prefix: str, scale: str, block: Block | None = None, groups: frozenset[int] = frozenset()
) -> Layer:
    """The layer of a `weight` of eight-bit numbers. `groups`: the group sizes that scales [n, any] may have."""
    name = f"{prefix}.weight"
    n, k = tensors.shape(name, tuple(EIGHT_BITS), 2)
    element = EIGHT_BITS[tensors.source.dtype(name)]
    group, scales = scales_of(tensors, f"{prefix}.{scale}", (n, k), block, groups)
    zeros: Part | None = None
    if tensors.has(f"{prefix}.weight_zero_point"):
        zeros = _zero_points(tensors, f"{prefix}.weight_zero_point", n, -(-k // group))
    shift = INT8_MIDDLE if element == "int8" else np.uint8(0)  # two's complement to unsigned codes

    def codes(rows: slice) -> NDArray[np.uint8]:
        return tensors.read(name, rows).view(np.uint8) ^ shift

    return Layer(name, str(tensors.source.path_of(name)), (n, k), element, group, codes, scales, zeros)


def scales_of(
    tensors: Tensors, name: str, shape: tuple[int, int], block: Block | None, groups: frozenset[int]
) -> tuple[int, Part]:
    """Weights of a row that share a scale, and what gives scales [rows, groups]; by the shape that the tensor has."""
    n, k = shape
    found = tensors.shape(name, (*DTYPES, *EXPONENTS))
    if found in ((), (1,), (1, 1)):
        return k, lambda rows: np.repeat(tensors.read(name).reshape(1, 1), rows.stop - rows.start, axis=0)
    if found in ((n,), (n, 1)):
        return k, lambda rows: tensors.read(name, rows).reshape(-1, 1)
    if block and found == (-(-n // block[0]), -(-k // block[1])):
        return block[1], _by_blocks(tensors, name, block[0])
    fitting = sorted(size for size in groups if found == (n, -(-k // size)))
    if not fitting:
        sizes = [f"[{n}, {-(-k // size)}]" for size in sorted(groups)]
        blocks = [f"[{-(-n // block[0])}, {-(-k // block[1])}]"] if block else []
        raise tensors.error(name, "the shape " + " or ".join(["[1]", f"[{n}, 1]", *sizes, *blocks]), list(found))
    return fitting[0], lambda rows: tensors.read(name, rows)


def _by_blocks(tensors: Tensors, name: str, height: int) -> Part:
    """Scales of blocks of `height` rows, row by row."""

    def scales(rows: slice) -> NDArray[np.generic]:
        first, last = rows.start // height, -(-rows.stop // height)
        spread = np.repeat(tensors.read(name, slice(first, last)), height, axis=0)
        return spread[rows.start - first * height :][: rows.stop - rows.start]

    return scales


def _zero_points(tensors: Tensors, name: str, n: int, groups: int) -> Callable[[slice], NDArray[np.uint8]]:
    found = tensors.expect(name, ("I8",), (n, groups), (n,) if groups == 1 else (n, groups), (1,), ())

    def zeros(rows: slice) -> NDArray[np.uint8]:
        if found in ((1,), ()):
            stored = np.broadcast_to(tensors.read(name).reshape(1, 1), (rows.stop - rows.start, groups))
        else:
            stored = tensors.read(name, rows).reshape(-1, groups)
        return np.ascontiguousarray(stored).view(np.uint8) ^ INT8_MIDDLE

    return zeros
