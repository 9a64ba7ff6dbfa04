"""Writes an artifact: constants packed and striped over the channels, program, texts, manifest."""
from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.pack.artifact import ArtifactWriter
from dlavm.pack.manifest import Image, Manifest
from dlavm.pack.weights import pack_index, pack_int4, pack_rows, quantize_int4, stripe, to_half
from dlavm.support.progress import progress
from dlavm.target.spec import Memory

TABLES_FILE = "tables.bin"


@dataclass(frozen=True)
class Constant:
    """A constant tensor at a linear address. `kind`: int4 (matrix, quantised and packed here), rows (matrix of fp16
    rows, or one row), index (a vector's own indices), raw (bytes as they are). `parts`: by name, what reads the tensors
    that it is, one below the other; each is called once, and nothing keeps the result."""

    name: str
    address: int
    kind: str
    parts: tuple[tuple[str, Callable[[], NDArray[Any]]], ...]


@dataclass(frozen=True)
class Extent:
    """A region of one memory: linear address and length in bytes."""

    address: int
    bytes: int


def images_of(memory: Memory, weights: Extent) -> tuple[Image, ...]:
    """One image a channel; every channel holds the same range of offsets."""
    share = weights.bytes // memory.channels
    return tuple(Image(f"weights/ch{c:02d}.bin", c, weights.address, share) for c in range(memory.channels))


def write_artifact(out: Path, manifest: Manifest, memory: Memory, weights: Extent, tables: Extent,
                   constants: Sequence[Constant], files: Iterable[tuple[str, bytes]],
                   texts: Callable[[Manifest], Mapping[str, str]],
                   tokenizer: Path | Mapping[str, str] | None) -> Manifest:
    """Writes the artifact, whole or not at all; the result has the hash of every file.

    `texts` makes the last files, and is told the hashes of all others.
    """
    with ArtifactWriter(out) as writer:
        _write_images(writer, manifest, memory, weights, [c for c in constants if _inside(c, weights)])
        linear = np.zeros(tables.bytes, dtype=np.uint8)
        for constant in constants:
            if _inside(constant, tables):
                data = _linear_bytes(constant)
                linear[constant.address - tables.address:][:data.size] = data
        if tables.bytes:
            writer.add_file(TABLES_FILE, linear.tobytes())
        for name, content in files:
            writer.add_file(name, content)
        if tokenizer is not None:
            writer.add_tokenizer(tokenizer)
        for name, text in texts(dataclasses.replace(manifest, files=writer.files)).items():
            writer.add_file(name, text.encode())
        return writer.finish(manifest)


def _inside(constant: Constant, extent: Extent) -> bool:
    return extent.address <= constant.address < extent.address + extent.bytes


def _write_images(writer: ArtifactWriter, manifest: Manifest, memory: Memory, weights: Extent,
                  constants: Sequence[Constant]) -> None:
    """Packs tensor by tensor into a scratch file, so that the host never holds more than one of them."""
    share = weights.bytes // memory.channels
    with tempfile.TemporaryFile() as scratch:
        channels = np.memmap(scratch, dtype=np.uint8, mode="w+", shape=(memory.channels, max(share, 1)))
        with progress("packing weights", len(constants)) as bar:
            for constant in constants:
                striped = _striped(constant, memory)
                start = (constant.address - weights.address) // memory.channels
                channels[:, start:start + striped.shape[1]] = striped
                bar.advance(1)
        for image in manifest.images:
            writer.add_file(image.file, channels[image.channel, :share].data)


def _striped(constant: Constant, memory: Memory) -> NDArray[np.uint8]:
    if constant.kind == "int4":
        parts = [quantize_int4(np.asarray(load(), dtype=np.float32), name) for name, load in constant.parts]
        return pack_int4(_joined([q for q, _ in parts]), _joined([scale for _, scale in parts]), memory)
    return stripe(_linear_bytes(constant), memory)


def _linear_bytes(constant: Constant) -> NDArray[np.uint8]:
    if constant.kind == "rows":
        rows = _joined([to_half(load(), name) for name, load in constant.parts])
        return pack_rows(np.atleast_2d(rows), constant.name)
    if constant.kind == "index":
        return _joined([pack_index(load(), name) for name, load in constant.parts])
    return _joined([load().reshape(-1).view(np.uint8) for _, load in constant.parts])


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
