"""Checkpoints of compressed-tensors (LLM Compressor, vLLM): integers in words, eight-bit integers and floats, MXFP4."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlavm.frontend.families.fields import Fields
from dlavm.frontend.quantized.gptq import INT
from dlavm.frontend.quantized.layer import Layer, Part
from dlavm.frontend.quantized.scaled import EIGHT_BITS, EXPONENTS, Block, block_size, ignore_others, layer, scales_of
from dlavm.frontend.quantized.tensors import Tensors, order_of
from dlavm.frontend.quantized.unpack import WORD, nibbles, transposed, unpack, words_of
from dlavm.support.errors import DlavmError

FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mxfp4-pack-quantized",
           "mxfp8-quantized", "mixed-precision", "dense")  # fmt: skip
MX_GROUP = 32


def layers(tensors: Tensors, fields: Fields) -> list[Layer]:
    """The layers that have packed weights or weights of eight bits. Raises DlavmError naming field or tensor."""
    fields.only("format", *FORMATS)
    sparsity = fields.within("sparsity_config")
    if sparsity is not None:
        sparsity.only("format", "dense")
    sizes, block = _sizes(fields)
    found = []
    for prefix in tensors.ending(".weight_packed"):
        words = tensors.source.dtype(f"{prefix}.weight_packed") in INT
        found.append(_packed(tensors, prefix, sizes) if words else _mxfp4(tensors, prefix))
    for prefix in tensors.ending(".weight"):
        if tensors.source.dtype(f"{prefix}.weight") in EIGHT_BITS:
            found.append(layer(tensors, prefix, "weight_scale", block, sizes))
    for one in found:
        ignore_others(tensors, one.name.removesuffix(".weight"))
    return found


def _sizes(fields: Fields) -> tuple[frozenset[int], Block | None]:
    """Group sizes of all groups of layers, and the block size of one of them."""
    groups = fields.within("config_groups")
    sizes, block = set(), None
    for name in groups.raw if groups else ():
        scheme = groups.within(name) if groups else None
        weights = scheme.within("weights") if scheme else None
        if scheme is None or weights is None:
            continue
        scheme.only("format", *FORMATS)
        if weights.raw.get("group_size") not in (None, -1):
            sizes.add(weights.count("group_size"))
        block = block_size(weights, "block_structure") or block
    return frozenset(sizes), block


def _packed(tensors: Tensors, prefix: str, sizes: frozenset[int]) -> Layer:
    """Integers [n, k] in words [n, ceil(k * bits / 32)], zero points in words [ceil(n * bits / 32), groups]."""
    name = f"{prefix}.weight_packed"
    rows_packed, words = tensors.shape(name, INT, 2)
    n, k = _shape(tensors, f"{prefix}.weight_shape")
    bits = next((bits for bits in (4, 8) if n == rows_packed and words == -(-k * bits // WORD)), None)
    if bits is None:
        shapes = " or ".join(f"[{n}, {-(-k * bits // WORD)}]" for bits in (4, 8))
        raise tensors.error(name, f"the shape {shapes}, of {n} times {k} integers of 4 or 8 bits", [rows_packed, words])
    group, scales = scales_of(tensors, f"{prefix}.weight_scale", (n, k), None, sizes)
    groups = -(-k // group)
    zeros: Part | None = None
    if tensors.has(f"{prefix}.weight_zero_point"):
        zeros = _packed_zeros(tensors, f"{prefix}.weight_zero_point", bits, n, groups)
    order = None
    if tensors.has(f"{prefix}.weight_g_idx"):
        tensors.expect(f"{prefix}.weight_g_idx", INT, (k,))
        if not (tensors.read(f"{prefix}.weight_g_idx") == -1).all():  # as it is before it is set
            order = order_of(tensors, f"{prefix}.weight_g_idx", group, groups)

    def codes(rows: slice) -> NDArray[np.uint8]:
        return unpack(tensors.read(name, rows), bits)[:, :k]

    place = str(tensors.source.path_of(name))
    return Layer(f"{prefix}.weight", place, (n, k), f"int{bits}", group, codes, scales, zeros, order)


def _shape(tensors: Tensors, name: str) -> tuple[int, int]:
    tensors.expect(name, ("I64", "I32"), (2,))
    n, k = tensors.read(name).tolist()
    if min(n, k) < 1:
        raise tensors.error(name, "two positive extents", [n, k])
    return n, k


def _packed_zeros(tensors: Tensors, name: str, bits: int, n: int, groups: int) -> Part:
    tensors.expect(name, INT, (-(-n * bits // WORD), groups))

    def zeros(rows: slice) -> NDArray[np.uint8]:
        words, within = words_of(rows, bits)
        return transposed(unpack(transposed(tensors.read(name, words)), bits)[:, within])

    return zeros


def _mxfp4(tensors: Tensors, prefix: str) -> Layer:
    """FP4 numbers, two a byte, with a power of two for each 32 of them."""
    name, scale = f"{prefix}.weight_packed", f"{prefix}.weight_scale"
    n, octets = tensors.shape(name, ("U8",), 2)
    k = 2 * octets
    if tensors.has(f"{prefix}.weight_global_scale"):
        raise DlavmError(f"{tensors.source.path_of(name)}: {prefix} expected MXFP4 or integers, got 'NVFP4'")
    tensors.expect(scale, EXPONENTS, (n, -(-k // MX_GROUP)))
    return Layer(
        f"{prefix}.weight", str(tensors.source.path_of(name)), (n, k), "e2m1", MX_GROUP,
        codes=lambda rows: nibbles(tensors.read(name, rows)),
        scales=lambda rows: tensors.read(scale, rows),
    )  # fmt: skip
