"""The inverse of packing: the numbers in an artifact's weight files, as float32 arrays by name."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import Image, TensorInfo
from dlavm.pack.weights import dequantize_int4
from dlavm.support.errors import DlavmError
from dlavm.target.layout import BLOCK, UNIT_BEATS, PackedWeights, row_bytes
from dlavm.target.spec import Memory

GROUP_BLOCKS = 4  # blocks that share a scale beat
PAIRS, KK = 4, 4  # of a unit: byte order (pair, row, kk), the low nibble is the first half of a pair


def unpack_int4(
    packed: NDArray[np.uint8], n: int, k: int, memory: Memory
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Packed weights [channels, bytes of a channel] -> integers [n, k], scales [n, ceil(k/128)]: undoes `pack_int4`."""
    layout = PackedWeights(memory, n, k)
    port, rows = memory.port_bytes, memory.port_bytes // 2
    raw = packed.reshape(memory.channels, layout.tiles, layout.tile_beats * port)
    shape = (layout.tiles, memory.channels, rows)
    q = np.empty((*shape, layout.blocks, BLOCK), dtype=np.int8)
    scale = np.empty((*shape, layout.groups), dtype=np.float16)
    at = 0
    for g in range(layout.groups):
        beat = np.ascontiguousarray(raw[:, :, at : at + port]).view(np.float16)
        scale[..., g] = beat.transpose(1, 0, 2)
        at += port
        first, count = g * GROUP_BLOCKS, min(GROUP_BLOCKS, layout.blocks - g * GROUP_BLOCKS)
        end = at + count * UNIT_BEATS * port
        units = raw[:, :, at:end].reshape(memory.channels, layout.tiles, count, PAIRS, rows, KK)
        ordered = units.transpose(1, 0, 4, 2, 3, 5)  # [tile, channel, row, block, pair, kk]
        nibbles = np.stack([ordered & 15, ordered >> 4], axis=-2)  # [.., pair, half, kk]
        q[..., first : first + count, :] = nibbles.reshape(*shape, count, BLOCK).view(np.int8) - 8
        at = end
    return q.reshape(-1, layout.blocks * BLOCK)[:n, :k], scale.reshape(-1, layout.groups)[:n]


def unstripe(channels: NDArray[np.uint8], memory: Memory, count: int) -> NDArray[np.uint8]:
    """[channels, bytes of a channel] -> the first `count` linear bytes: the inverse of `stripe`."""
    beats = channels.reshape(memory.channels, -1, memory.port_bytes).transpose(1, 0, 2)
    return np.ascontiguousarray(beats).reshape(-1)[:count]


def unpack_rows(data: NDArray[np.uint8], rows: int, n: int) -> NDArray[np.float16]:
    """Linear bytes -> fp16 [rows, n]: the inverse of `pack_rows`."""
    padded = data[: rows * row_bytes(n)].reshape(rows, row_bytes(n))
    return np.ascontiguousarray(padded[:, : 2 * n]).view(np.float16)


def weight_tensors(artifact: Artifact) -> list[TensorInfo]:
    """The tensors that lie in the weight images."""
    return [t for t in artifact.manifest.tensors if t.role == "weights"]


def read_weight(artifact: Artifact, tensor: TensorInfo) -> NDArray[np.float32]:
    """The numbers that the engines multiply with, in the tensor's shape. Raises DlavmError if no image has them."""
    memory = artifact.target.space("weights")
    packed = channel_bytes(artifact, tensor, memory)
    if tensor.dtype == "int4g128":
        n, k = tensor.shape
        return dequantize_int4(*unpack_int4(packed, n, k, memory))
    if tensor.dtype == "i32":
        return unstripe(packed, memory, tensor.bytes).view("<u4").astype(np.float32)
    if tensor.dtype != "f16":
        raise DlavmError(f"tensor {tensor.name}: dtype: expected int4g128, f16 or i32, got {tensor.dtype!r}")
    rows, n = (1, *tensor.shape)[-2:]
    linear = unstripe(packed, memory, rows * row_bytes(n))
    return unpack_rows(linear, rows, n).astype(np.float32).reshape(tensor.shape)


def read_weights(artifact: Artifact, names: Container[str] | None = None) -> dict[str, NDArray[np.float32]]:
    """All weights at once, or those of `names`, the tables of the host too: 4 bytes a parameter of memory."""
    wanted = [t for t in weight_tensors(artifact) if names is None or t.name in names]
    return {t.name: read_weight(artifact, t) for t in wanted} | _host_tables(artifact, names)


def _host_tables(artifact: Artifact, names: Container[str] | None) -> dict[str, NDArray[np.float32]]:
    found = {}
    for entry in artifact.manifest.entries.values():
        for label, table in entry.tables.items():
            if names is None or table.name in names:
                raw = np.memmap(artifact.file(table.file), "<f2", "r").reshape(table.rows, entry.inputs[label].columns)
                found[table.name] = raw.astype(np.float32)
    return found


def channel_bytes(artifact: Artifact, tensor: TensorInfo, memory: Memory) -> NDArray[np.uint8]:
    """The tensor's bytes of each channel, [channels, bytes]."""
    length = -(-tensor.bytes // memory.beat_row) * memory.port_bytes
    return np.stack([_image_bytes(artifact, tensor, memory, channel, length) for channel in range(memory.channels)])


def _image_bytes(
    artifact: Artifact, tensor: TensorInfo, memory: Memory, channel: int, length: int
) -> NDArray[np.uint8]:
    for image in artifact.manifest.images:
        start = _channel_offset(tensor.address - image.address, memory)
        if image.channel == channel and start >= 0 and start + length <= image.bytes:
            return _mapped(artifact, image)[start : start + length]
    raise DlavmError(
        f"artifact {str(artifact.path)!r}: tensor {tensor.name}: expected its {length} bytes of channel "
        f"{channel} in a weight image, got none that holds them"
    )


def _channel_offset(linear: int, memory: Memory) -> int:
    return linear // memory.beat_row * memory.port_bytes


def _mapped(artifact: Artifact, image: Image) -> NDArray[np.uint8]:
    return np.memmap(artifact.file(image.file), dtype=np.uint8, mode="r")
