"""Tensors of quantised layers as the tools of each method store them, written from the published layouts, word by word;
and what they mean, from the formulas of the kernels that read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

Array = NDArray[Any]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the column that is nibble i of a word
FP8, E8M0 = "F8_E4M3", "F8_E8M0"
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


@dataclass
class Made:
    """The tensors of a layer by the end of their names, their values in the order of the checkpoint, [n, k]; `order`
    is the one in which columns make up groups."""

    tensors: dict[str, Array]
    values: Array
    order: Array | None = None

    @property
    def given(self) -> Array:
        """The values as a source gives them."""
        return self.values if self.order is None else self.values[:, self.order]


def words(columns: Array, bits: int) -> Array:
    """[.., m] small integers, the first of a word in its lowest bits; a last word may be short."""
    per = 32 // bits
    out = np.zeros((*columns.shape[:-1], -(-columns.shape[-1] // per)), np.uint32)
    for i in range(columns.shape[-1]):
        out[..., i // per] |= columns[..., i].astype(np.uint32) << np.uint32(i % per * bits)
    return out.view(np.int32)


def drawn(seed: int, n: int, k: int, groups: int, bits: int = 4) -> tuple[Array, Array, Array]:
    """Codes [n, k], scales [n, groups] in fp16 and zero points [n, groups]."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << bits, (n, k)).astype(np.uint8)
    scales = (rng.uniform(0.5, 1.5, (n, groups)) * 0.5**bits * 0.3).astype(np.float16)
    return codes, scales, rng.integers(0, 1 << bits, (n, groups)).astype(np.uint8)


def gptq(n: int, k: int, group: int = 32, bits: int = 4, sym: bool = False, v2: bool = False, act: bool = False,
         seed: int = 1) -> Made:  # fmt: skip
    size = k if group == -1 else group
    groups = -(-k // size)
    codes, scales, zeros = drawn(seed, n, k, groups, bits)
    zeros = np.full_like(zeros, 1 << (bits - 1)) if sym else zeros
    g_idx = np.arange(k) // size
    if act:
        g_idx = np.random.default_rng(seed + 1).permutation(g_idx)
    stored = zeros if v2 else (zeros.astype(np.int32) - 1 & (1 << bits) - 1)
    values = (codes.astype(np.float32) - zeros[:, g_idx]) * scales.astype(np.float32)[:, g_idx]
    tensors = {
        "qweight": words(codes, bits).T, "qzeros": words(stored.T, bits), "scales": scales.T,
        "g_idx": g_idx.astype(np.int32),
    }  # fmt: skip
    return Made(tensors, values, np.argsort(g_idx, kind="stable") if act else None)


def awq(n: int, k: int, group: int = 32, seed: int = 2) -> Made:
    size = k if group == -1 else group
    groups = -(-k // size)
    codes, scales, zeros = drawn(seed, n, k, groups)
    owner = np.arange(k) // size
    values = (codes.astype(np.float32) - zeros[:, owner]) * scales.astype(np.float32)[:, owner]

    def packed(columns: Array) -> Array:  # [m, n]
        shuffled = np.empty_like(columns)
        for word in range(n // 8):
            for i, column in enumerate(AWQ_ORDER):
                shuffled[:, 8 * word + i] = columns[:, 8 * word + column]
        return words(shuffled, 4)

    return Made({"qweight": packed(codes.T), "qzeros": packed(zeros.T), "scales": scales.T}, values)


def pack_quantized(n: int, k: int, group: int = 32, bits: int = 4, sym: bool = True, act: bool = False,
                   seed: int = 3, dtype: Any = np.float16) -> Made:  # fmt: skip
    """compressed-tensors; `group` -1 for a scale a row."""
    size = k if group == -1 else group
    groups = -(-k // size)
    codes, half, zeros = drawn(seed, n, k, groups, bits)
    scales = half.astype(dtype)
    owner = np.arange(k) // size
    if act:
        owner = np.random.default_rng(seed + 1).permutation(owner)
    middle = np.float32(1 << (bits - 1))
    shift = middle if sym else zeros[:, owner].astype(np.float32)
    values = (codes.astype(np.float32) - shift) * scales.astype(np.float32)[:, owner]
    tensors = {"weight_packed": words(codes, bits), "weight_scale": scales, "weight_shape": np.array([n, k], np.int64)}
    if not sym:
        tensors["weight_zero_point"] = words(zeros.T, bits).T
    if act:
        tensors["weight_g_idx"] = owner.astype(np.int32)
    return Made(tensors, values, np.argsort(owner, kind="stable") if act else None)


def int_quantized(n: int, k: int, shape: tuple[int, ...], group: int, sym: bool = True, seed: int = 4) -> Made:
    """INT8 as it is, with scales of `shape`."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-128, 128, (n, k)).astype(np.int8)
    scales = rng.uniform(0.001, 0.002, shape).astype(np.float16)
    zeros = rng.integers(-20, 20, shape).astype(np.int8)
    spread = [_spread(x, n, k, 1, group).astype(np.float32) for x in (scales, zeros)]
    values = (weight.astype(np.float32) - (0 if sym else spread[1])) * spread[0]
    tensors = {"weight": weight, "weight_scale": scales}
    return Made(tensors if sym else {**tensors, "weight_zero_point": zeros}, values)


def fp8(n: int, k: int, shape: tuple[int, ...], block: tuple[int, int], name: str, dtype: Any, seed: int = 5,
        exact: bool = True) -> Made:  # fmt: skip
    """E4M3 with scales of `shape`; `exact`: ones that fp16 holds."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((n, k)).astype(ml_dtypes.float8_e4m3fn)
    scales = rng.uniform(0.01, 0.02, shape)
    scales = (scales.astype(np.float16) if exact else scales).astype(dtype)
    values = weight.astype(np.float32) * _spread(scales, n, k, *block).astype(np.float32)
    return Made({"weight": weight, name: scales}, values)


def mxfp4_packed(n: int, k: int, seed: int = 6) -> Made:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, (n, k)).astype(np.uint8)
    exponents = rng.integers(115, 125, (n, k // 32)).astype(np.uint8)
    values = E2M1[codes] * np.repeat(np.float32(2) ** (exponents.astype(np.float32) - 127), 32, axis=1)
    return Made({"weight_packed": codes[:, ::2] | codes[:, 1::2] << 4, "weight_scale": exponents}, values)


def _spread(per: Array, n: int, k: int, height: int, width: int) -> Array:
    """Scales of any shape that is allowed, to [n, k]."""
    if per.size == 1:
        return np.broadcast_to(per.reshape(1, 1), (n, k))
    if per.shape in ((n,), (n, 1)):
        return np.broadcast_to(per.reshape(n, 1), (n, k))
    return np.repeat(np.repeat(per, height, axis=0), width, axis=1)[:n, :k]


def write(folder: Path, tensors: dict[str, Array], quantization: dict[str, Any] | None, **config: Any) -> Path:
    """A checkpoint directory; fp8 arrays, for which the library has no numpy type, are renamed in its header."""
    folder.mkdir(exist_ok=True, parents=True)
    fp8 = {name for name, values in tensors.items() if values.dtype == ml_dtypes.float8_e4m3fn}
    plain = {n: np.ascontiguousarray(v.view(np.uint8) if n in fp8 else v) for n, v in tensors.items()}
    raw = save(plain)
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for name in fp8:
        header[name]["dtype"] = FP8
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    fields = config | ({"quantization_config": quantization} if quantization else {})
    (folder / "config.json").write_text(json.dumps(fields))
    return folder
