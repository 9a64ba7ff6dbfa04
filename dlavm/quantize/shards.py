"""Writing safetensors files tensor by tensor, so that never more than a part of one is in memory.

The form (https://huggingface.co/docs/safetensors): eight bytes with the length of a JSON header, little-endian; the
header, with type, shape and place of each tensor; their bytes, one behind the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.support.errors import DlavmError

SHARD_BYTES = 2 << 30
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1}
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class Entry:
    """A tensor that `load` gives when it is written, part after part."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], Iterable[NDArray[Any]]]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def write_shards(folder: Path, entries: Sequence[Entry], limit: int = SHARD_BYTES) -> int:
    """Writes model.safetensors or, beyond `limit` bytes, several files and their index. Returns the bytes of all
    tensors."""
    shards: list[list[Entry]] = [[]]
    for entry in entries:
        if shards[-1] and sum(e.bytes for e in shards[-1]) + entry.bytes > limit:
            shards.append([])
        shards[-1].append(entry)
    total = sum(entry.bytes for entry in entries)
    if len(shards) == 1:
        _write(folder / SINGLE, shards[0])
        return total
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write(folder / name, shard)
        weight_map |= {entry.name: name for entry in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return total


def _write(path: Path, entries: Sequence[Entry]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in sorted(entries, key=lambda e: (-ITEM_BYTES[e.dtype], e.name)):  # so that each is aligned to its type
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [at, at + entry.bytes]}
        at += entry.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    by_name = {entry.name: entry for entry in entries}
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in list(header)[1:]:
            begin = file.tell()
            for part in by_name[name].load():
                file.write(np.ascontiguousarray(part).tobytes())
            if file.tell() - begin != by_name[name].bytes:
                raise DlavmError(f"{path}: {name} expected {by_name[name].bytes} bytes, got {file.tell() - begin}")
