"""GGUF files for tests: honest ones by the package gguf, and bytes that say what one likes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

F32 = 0
UINT32, FLOAT32, STRING, ARRAY = 4, 6, 8, 9
SIZES: dict[str, Any] = {
    "embedding_length": 64, "feed_forward_length": 96, "block_count": 2, "attention.head_count": 4,
    "attention.head_count_kv": 2, "context_length": 64, "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip


def write(path: Path, architecture: str, fields: Mapping[str, Any], tensors: Mapping[str, Any]) -> Path:
    """`fields` with the architecture in front but for those that begin with a dot; a tensor is an array, in float32 as
    it is, or one with the type that it is to be quantised to."""
    writer = gguf.GGUFWriter(str(path), architecture)
    for key, value in fields.items():
        name = key[1:] if key.startswith(".") else f"{architecture}.{key}"
        kind = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}[type(value)]
        getattr(writer, f"add_{kind}")(name, value)
    for name, stored in tensors.items():
        values, kind = stored if isinstance(stored, tuple) else (stored, gguf.GGMLQuantizationType.F32)
        raw = values if values.dtype == np.uint8 else gguf.quants.quantize(values, kind)
        writer.add_tensor(name, np.ascontiguousarray(raw), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    """A metadata entry; `value` as it is stored."""
    return text(key) + struct.pack("<I", kind) + value


def info(name: str, shape: tuple[int, ...] = (4,), kind: int = F32, offset: int = 0, axes: int | None = None) -> bytes:
    """A tensor's entry; the shape innermost axis first, as files have it."""
    extents = struct.pack(f"<{len(shape)}Q", *shape)
    count = len(shape) if axes is None else axes
    return text(name) + struct.pack("<I", count) + extents + struct.pack("<IQ", kind, offset)


def raw_file(
    entries: list[bytes], infos: list[bytes], data: bytes = bytes(64), alignment: int = 32, **head: Any
) -> bytes:
    """A whole file. `head`: magic, version, tensor_count and entry_count in place of those that it has."""
    numbers = (head.get("version", 3), head.get("tensor_count", len(infos)), head.get("entry_count", len(entries)))
    header = head.get("magic", b"GGUF") + struct.pack("<IQQ", *numbers) + b"".join(entries) + b"".join(infos)
    return header + bytes(-len(header) % alignment) + data


def random_blocks(kind: gguf.GGMLQuantizationType, blocks: int, seed: int = 0) -> NDArray[np.uint8]:
    """[blocks, bytes] of any bits; fp16 numbers in them are made finite and not large."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    raw = np.random.default_rng(seed).integers(0, 256, (blocks, size), dtype=np.uint8)
    for place in HALVES.get(kind.name, ()):
        raw[:, place + 1] = raw[:, place + 1] & 0x83 | 0x20  # of either sign, 2^-7 up to 2^-3
    return raw


HALVES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2),
          "Q6_K": (208,)}  # fmt: skip
