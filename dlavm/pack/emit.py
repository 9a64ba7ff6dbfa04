"""Writes an artifact: constants packed and striped over the channels, program, texts, manifest."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dlavm import __version__
from dlavm.formats import Format
from dlavm.pack.artifact import ArtifactWriter, Producer
from dlavm.pack.images import Done, Images
from dlavm.pack.losses import Loss, Record
from dlavm.pack.manifest import Image, Manifest
from dlavm.pack.sources import FLOATS_AT_ONCE, Halves, Quantised, Tensor, spans
from dlavm.pack.weights import pack_grid, pack_index, pack_rows, stripe
from dlavm.support.atomic import sha256_text
from dlavm.support.kept import kept_directory
from dlavm.support.progress import Bar, progress
from dlavm.target.layout import PackedWeights, ceildiv, row_bytes
from dlavm.target.spec import Memory

TABLES_FILE = "tables.bin"
CODES_AT_ONCE = 1 << 22  # of packed weights, but at least a row tile
WHOLE: dict[str, Callable[[NDArray[Any], str], NDArray[np.uint8]]] = {
    "index": pack_index,
    "raw": lambda values, name: values.reshape(-1).view(np.uint8),
}  # kinds of small constants, packed at once


@dataclass(frozen=True)
class Constant:
    """A constant tensor at a linear address. `kind`: packed (`count` matrices of `shape` one behind the other, in
    `format`), rows (a matrix of fp16 rows, or one row), index (a vector's own indices), raw (bytes as they are).
    `parts`: the tensors that it is, one below the other; of several matrices each is one."""

    name: str
    address: int
    kind: str
    shape: tuple[int, ...]
    parts: tuple[Tensor, ...]
    format: Format | None = None
    count: int = 1


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
                   constants: Sequence[Constant], files: Iterable[tuple[str, bytes | Producer]],
                   texts: Callable[[Manifest], Mapping[str, str]],
                   tokenizer: Path | Mapping[str, str] | None, sources: str = "",
                   record: Record = lambda loss: None) -> Manifest:
    """Writes the artifact, whole or not at all; the result has the hash of every file.

    `texts` makes the last files, and is told the hashes of all others. `sources` says what the constants are read from:
    it differs where they may. Weights that an interrupted call with the same manifest and sources packed are kept.
    `record` is told what became of each tensor that came quantised.
    """
    key = sha256_text("\n".join((__version__, sources, manifest.canonical())))
    with kept_directory(out, "packing", key) as kept, ArtifactWriter(out) as writer:
        packed = _pack(kept, memory, weights, [c for c in constants if _inside(c, weights)], record)
        for image, path in zip(manifest.images, packed, strict=True):
            writer.adopt(image.file, path)
        linear = np.zeros(tables.bytes, dtype=np.uint8)
        for constant in constants:
            if _inside(constant, tables):
                for start, data in _linear_pieces(constant, 1):
                    linear[constant.address - tables.address + start:][:data.size] = data
        if tables.bytes:
            writer.add_file(TABLES_FILE, linear.tobytes())
        for name, content in files:
            writer.add_file(name, content)
        if tokenizer is not None:
            writer.add_tokenizer(tokenizer)
        for name, text in texts(dataclasses.replace(manifest, files=writer.files)).items():
            writer.add_file(name, text.encode())
        return writer.finish(manifest)


def dense_rows(table: Constant) -> Producer:
    """What writes the fp16 rows of a matrix to a file, without padding."""

    def write(file: BinaryIO) -> None:
        source = Halves(table.name, table.parts)
        for start, stop in spans(table.shape[0], table.shape[1], FLOATS_AT_ONCE):
            file.write(np.ascontiguousarray(source.rows(start, stop)).data)
        source.finish()

    return write


def _inside(constant: Constant, extent: Extent) -> bool:
    return extent.address <= constant.address < extent.address + extent.bytes


def _pack(folder: Path, memory: Memory, weights: Extent, constants: Sequence[Constant], record: Record) -> list[Path]:
    """The files of all channels, packed piece by piece, so that the host never holds more than one piece; what an
    interrupted build left in the folder is kept."""
    with Images(folder, memory.channels, weights.bytes // memory.channels) as images:
        with progress("packing weights", weights.bytes, in_bytes=True) as bar:
            for constant in constants:
                done = images.done.get(constant.name)
                bar.advance(done.size if done else 0)
                for loss in (done or _pack_one(constant, memory, weights, images, bar)).losses:
                    record(loss)
        images.flush()
    return images.paths


def _pack_one(constant: Constant, memory: Memory, weights: Extent, images: Images, bar: Bar) -> Done:
    first, written = (constant.address - weights.address) // memory.channels, 0
    losses: list[Loss] = []
    for start, channels in pieces(constant, memory, losses.append):
        images.write(first + start, channels)
        bar.advance(channels.size)
        written += channels.size
    done = Done(written, tuple(losses))
    images.finished(constant.name, done)
    return done


def pieces(
    constant: Constant, memory: Memory, record: Record = lambda loss: None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Offset in a channel, and bytes [channels, count] from there on."""
    if constant.kind == "packed":
        yield from _packed_pieces(constant, memory, record)
        return
    for start, data in _linear_pieces(constant, memory.beat_row):
        yield start // memory.channels, stripe(data, memory)


def _packed_pieces(constant: Constant, memory: Memory, record: Record) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    assert constant.format is not None
    (n, k), share = constant.shape, len(constant.parts) // constant.count
    layout = PackedWeights(memory, n, k, constant.format)
    tiles = max(1, CODES_AT_ONCE // (memory.row_tile * k))
    for matrix in range(constant.count):
        source = Quantised(constant.parts[matrix * share:(matrix + 1) * share], constant.format, record)
        for start in range(0, n, tiles * memory.row_tile):
            grid = source.rows(start, min(start + tiles * memory.row_tile, n))
            before = matrix * layout.bytes + start // memory.row_tile * layout.tile_bytes
            yield before // memory.channels, pack_grid(grid, memory)
        source.finish()


def _linear_pieces(constant: Constant, alignment: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Offset and linear bytes of rows or raw bytes, piece by piece at multiples of `alignment` bytes."""
    if constant.kind in WHOLE:
        yield 0, np.concatenate([WHOLE[constant.kind](part.get(slice(None)), part.name) for part in constant.parts])
        return
    rows, columns = constant.shape
    source, size = Halves(constant.name, constant.parts), row_bytes(columns)
    step = alignment // math.gcd(alignment, size)  # rows whose bytes are whole beat rows
    at_once = step * max(1, ceildiv(FLOATS_AT_ONCE, step * columns))
    for start in range(0, rows, at_once):
        yield start * size, pack_rows(source.rows(start, min(start + at_once, rows)))
    source.finish()
