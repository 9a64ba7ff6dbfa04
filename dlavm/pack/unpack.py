"""The inverse of packing: the numbers in an artifact's weight files, as float32 arrays by name."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK, FORMATS, Format, Grid
from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import Image, TensorInfo
from dlavm.pack.units import QUAD, from_slices
from dlavm.support.errors import DlavmError
from dlavm.target.layout import ROW_BYTES, PackedWeights, row_bytes
from dlavm.target.spec import Memory


def unpack_grid(packed: NDArray[np.uint8], n: int, k: int, format: Format, memory: Memory) -> Grid:
    """Packed weights [channels, bytes of a channel] -> their grid: undoes `pack_grid`."""
    layout = PackedWeights(memory, n, k, format)
    raw = packed.reshape(memory.channels, layout.tiles, layout.tile_beats, memory.port_bytes)
    beats = layout.block_beats[:, None] + np.arange(layout.unit_beats)
    units = raw[:, :, beats].reshape(memory.channels, layout.tiles, layout.blocks, -1, memory.port_bytes // 2, QUAD)
    slices = units.transpose(1, 0, 4, 2, 3, 5)  # [tile, channel, row, block, slice, 4]
    codes = from_slices(slices, format.element.bits).reshape(-1, layout.blocks * BLOCK)[:n, :k]
    scale = _per_row(raw[:, :, layout.scale_beats]).view(np.float16 if format.scale == "f16" else np.uint8)
    zero = _per_row(raw[:, :, layout.zero_beats])[:n, : layout.groups] if format.zero else None
    return Grid(format, codes, scale[:n, : layout.groups], zero)


def _per_row(beats: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Beats of metadata [channels, tiles, beats, port bytes] -> [rows, bytes of a row]."""
    channels, tiles, count, port = beats.shape
    rows = beats.reshape(channels, tiles, count, port // ROW_BYTES, ROW_BYTES).transpose(1, 0, 3, 2, 4)
    return np.ascontiguousarray(rows).reshape(-1, count * ROW_BYTES)


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
    if tensor.dtype in FORMATS:
        *count, n, k = tensor.shape
        matrices = np.split(packed, count[0] if count else 1, axis=1)
        values = [unpack_grid(one, n, k, FORMATS[tensor.dtype], memory).values() for one in matrices]
        return np.stack(values).reshape(tensor.shape)
    if tensor.dtype == "i32":
        return unstripe(packed, memory, tensor.bytes).view("<u4").astype(np.float32)
    if tensor.dtype != "f16":
        expected = ", ".join(("f16", "i32", *FORMATS))
        raise DlavmError(f"tensor {tensor.name}: dtype: expected one of {expected}, got {tensor.dtype!r}")
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
