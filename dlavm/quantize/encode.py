"""How quantised matrices stand in a checkpoint: compressed-tensors where it has the format, else a form of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import Format, Grid
from dlavm.quantize.shards import Entry

OWN = "dlavm"  # quant_method of config.json
WORD = 32
Load = Callable[[], Grid]


def is_packable(format: Format, k: int) -> bool:
    """Whether `pack-quantized` of compressed-tensors expresses it: integers, whole groups, scales that are floats."""
    return format.element.float_type is None and format.scale == "f16" and k % format.group == 0


def packed_entries(name: str, format: Format, shape: tuple[int, int], load: Load) -> list[Entry]:
    """The tensors of a matrix in `pack-quantized`: codes (integer plus half of the range) in int32 words along k, the
    first in the lowest bits; zero points the same along n; float scales; the shape."""
    n, k = shape
    base, bits = name.removesuffix(".weight"), format.element.bits
    groups, per = format.groups(k), WORD // bits
    entries = [
        Entry(f"{base}.weight_packed", "I32", (n, -(-k // per)), lambda: [pack_words(load().codes, bits)]),
        Entry(f"{base}.weight_scale", "F16", (n, groups), lambda: [load().scale]),
        Entry(f"{base}.weight_shape", "I64", (2,), lambda: [np.array((n, k), np.int64)]),
    ]
    if format.zero:
        shape = (-(-n // per), groups)
        entries.append(Entry(f"{base}.weight_zero_point", "I32", shape, lambda: [_packed_zero(load(), bits)]))
    return entries


def _packed_zero(grid: Grid, bits: int) -> NDArray[np.int32]:
    assert grid.zero is not None
    return np.ascontiguousarray(pack_words(grid.zero.T, bits).T)


def pack_words(codes: NDArray[np.uint8], bits: int) -> NDArray[np.int32]:
    """[rows, m] -> int32 [rows, ceil(m * bits / 32)]."""
    rows, m = codes.shape
    per = WORD // bits
    padded = np.zeros((rows, -(-m // per) * per), np.uint8)
    padded[:, :m] = codes
    octets = padded if bits == 8 else padded[:, 0::2] | padded[:, 1::2] << 4
    return np.ascontiguousarray(octets).view("<i4")


def own_entries(name: str, format: Format, shape: tuple[int, int], load: Load) -> list[Entry]:
    """The tensors of a matrix in our form: codes, of 4 bits two in a byte, the first one in the low half; scales; zero
    points."""
    n, k = shape
    groups, four = format.groups(k), format.element.bits == 4
    width, scale = (-(-k // 2) if four else k), "U8" if format.scale == "e8m0" else "F16"
    entries = [
        Entry(f"{name}_codes", "U8", (n, width), lambda: [pack_nibbles(load().codes) if four else load().codes]),
        Entry(f"{name}_scale", scale, (n, groups), lambda: [load().scale]),
    ]
    if format.zero:
        entries.append(Entry(f"{name}_zero", "U8", (n, groups), lambda: [_zero(load())]))
    return entries


def _zero(grid: Grid) -> NDArray[np.uint8]:
    assert grid.zero is not None
    return grid.zero


def pack_nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[rows, m] of 4 bits -> [rows, ceil(m / 2)]."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // 2) * 2), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded[:, 0::2] | padded[:, 1::2] << 4


def compressed_config(formats: Mapping[str, Format], kept: Sequence[str]) -> dict[str, Any]:
    """quantization_config for the format of each matrix, and linear layers that keep their floats."""
    names = sorted({format.name for format in formats.values()})
    groups = {}
    for number, format in enumerate(names):
        matrices = [name for name, f in formats.items() if f.name == format]
        targets = ["Linear"] if len(names) == 1 else [name.removesuffix(".weight") for name in matrices]
        groups[f"group_{number}"] = {"targets": targets, "weights": _scheme(formats[matrices[0]]),
                                     "input_activations": None, "output_activations": None}  # fmt: skip
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [name.removesuffix(".weight") for name in kept],
        "kv_cache_scheme": None,
    }


def _scheme(format: Format) -> dict[str, Any]:
    return {"num_bits": format.element.bits, "type": "int", "symmetric": not format.zero, "strategy": "group",
            "group_size": format.group, "dynamic": False, "actorder": None}  # fmt: skip


def own_config(formats: Mapping[str, Format], shapes: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """quantization_config of our form."""
    matrices = {name: {"format": format.name, "shape": list(shapes[name])} for name, format in formats.items()}
    return {"quant_method": OWN, "version": 1, "matrices": matrices}
