"""MXFP4 as gpt-oss stores it: the matrices of all experts in one tensor of blocks, and one of scales."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.frontend.families.fields import Fields
from dlavm.frontend.quantized.layer import Layer
from dlavm.frontend.quantized.scaled import EXPONENTS
from dlavm.frontend.quantized.tensors import Tensors
from dlavm.frontend.quantized.unpack import nibbles

BLOCK_BYTES, BLOCK = 16, 32
MAX_EXPERTS = 4096


def layers(tensors: Tensors, fields: Fields) -> list[Layer]:
    """A matrix for each expert of a tensor `..._blocks`: of experts.gate_up_proj_blocks experts.0.gate_up_proj.weight
    and so on. Raises DlavmError naming the tensor."""
    return [layer for name in tensors.ending("_blocks") for layer in _experts(tensors, name)]


def _experts(tensors: Tensors, name: str) -> list[Layer]:
    blocks, scales = f"{name}_blocks", f"{name}_scales"
    experts, n, groups, octets = tensors.shape(blocks, ("U8",), 4)
    if experts > MAX_EXPERTS:
        raise tensors.error(blocks, f"at most {MAX_EXPERTS} experts", experts)
    if octets != BLOCK_BYTES:
        raise tensors.error(blocks, f"blocks of {BLOCK_BYTES} bytes", octets)
    tensors.expect(scales, EXPONENTS, (experts, n, groups))
    place, part = name.rpartition(".")[::2]
    file, shape = str(tensors.source.path_of(blocks)), (n, groups * BLOCK)
    return [
        Layer(
            f"{place}.{expert}.{part}.weight", file, shape, "e2m1", BLOCK,
            codes=partial(_codes, tensors, blocks, expert), scales=partial(_read, tensors, scales, expert),
        )
        for expert in range(experts)
    ]  # fmt: skip


def _codes(tensors: Tensors, blocks: str, expert: int, rows: slice) -> NDArray[np.uint8]:
    octets = _read(tensors, blocks, expert, rows)
    return nibbles(octets.reshape(len(octets), -1))


def _read(tensors: Tensors, name: str, expert: int, rows: slice) -> NDArray[Any]:
    return np.ascontiguousarray(tensors.read(name, slice(expert, expert + 1), rows)[0])
