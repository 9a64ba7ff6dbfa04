"""The checkpoint directory that a run writes: config.json, shards, tokenizer."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from dlavm.formats import Format, Grid
from dlavm.frontend import Model, WeightSource
from dlavm.graph import Graph
from dlavm.graph.derived import Derived, assembled, derived
from dlavm.quantize.encode import compressed_config, is_packable, own_config, own_entries, packed_entries
from dlavm.quantize.hessian import F32
from dlavm.quantize.shards import Entry, write_shards
from dlavm.quantize.solve import slabs
from dlavm.support.errors import DlavmError

TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template*",
             "generation_config.json")  # fmt: skip
FLOATS = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}
FORMATS_FILE = "formats.json"


@dataclass(frozen=True)
class Content:
    """What replaces the weights of the source: the format of each matrix by the name it is written under, `grid` to
    load it, and by checkpoint tensor the vectors that its rows (of a vector: its entries) are divided by. `mapping` is
    what formats.json says, None for no such file."""

    formats: Mapping[str, Format]
    grid: Callable[[str], Grid]
    divisors: Mapping[str, F32]
    mapping: Mapping[str, str] | None = None


def write_checkpoint(folder: Path, model: Model, graph: Graph, content: Content) -> int:
    """Fills a directory. Returns the bytes of all tensors."""
    writer = _Writer(model.needed_weights(), graph, content)
    total = write_shards(folder, writer.entries())
    _write_json(folder / "config.json", {**_fields(model, graph, content), "quantization_config": writer.config()})
    if content.mapping is not None:
        _write_json(folder / FORMATS_FILE, content.mapping)
    _copy_tokenizer(model.tokenizer, folder)
    return total


def stored(values: NDArray[np.floating], dtype: str, name: str = "") -> NDArray[Any]:
    """In a float type of the checkpoint. Raises DlavmError where that overflows."""
    with np.errstate(over="ignore"):
        found = values.astype(FLOATS[dtype])
    if not np.isfinite(found).all():
        raise DlavmError(f"tensor {name}: values that do not fit {dtype}")
    return found


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _fields(model: Model, graph: Graph, content: Content) -> dict[str, Any]:
    """Those of the source's config.json. A tied head that is quantised is tied no more, nor do the fields of a part
    say so, such as `text_config` of a model that reads images too."""
    tied = [p for p in graph.params if p.source not in ("", p.name) and p.name in content.formats]
    fields = dict(model.fields or {})
    if not tied or not fields:
        return fields
    for name, part in fields.items():
        if isinstance(part, Mapping) and "tie_word_embeddings" in part:
            fields[name] = {**part, "tie_word_embeddings": False}
    return {**fields, "tie_word_embeddings": False}


def _copy_tokenizer(tokenizer: Path | Mapping[str, str] | None, folder: Path) -> None:
    if isinstance(tokenizer, Mapping):
        for name, text in tokenizer.items():
            (folder / name).write_text(text, encoding="utf-8")
    elif tokenizer is not None:
        for path in sorted(path for glob in TOKENIZER for path in tokenizer.glob(glob) if path.is_file()):
            shutil.copyfile(path, folder / path.name)


class _Writer:
    def __init__(self, source: WeightSource, graph: Graph, content: Content) -> None:
        self.source, self.content = source, content
        self.bases: dict[str, list[tuple[Derived, str]]] = {}  # the parts of a tensor, and the names they go by
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.linears: dict[str, None] = {}
        for param in graph.params:
            for tensor in param.tensors:
                alone = param.source not in ("", param.name) and param.name in content.formats  # a tied head
                name = param.name if alone else tensor.name
                self.shapes[name] = tensor.shape
                made = derived(name)
                parts = self.bases.setdefault(made.base, [])
                if (made, name) not in parts:
                    parts.append((made, name))
        for node in graph.nodes:
            if node.op == "linear":
                self.linears |= {derived(tensor.name).base: None for tensor in node["w"].tensors}
        self.quantised = {base: self._format(base) for base in self.bases}
        formats = {base: format for base, format in self.quantised.items() if format is not None}
        self.packs = all(
            is_packable(format, self._shape(base)[1]) and not self._is_transposed(base)
            for base, format in formats.items()
        )

    def config(self) -> dict[str, Any]:
        """quantization_config."""
        formats = {self._name(base): format for base, format in self.quantised.items() if format is not None}
        if self.packs:
            return compressed_config(formats, [b for b in self.linears if self.quantised.get(b) is None])
        shapes = {self._name(base): self._shape(base) for base, format in self.quantised.items() if format is not None}
        return own_config(formats, {name: (n, k) for name, (n, k) in shapes.items()})

    def entries(self) -> list[Entry]:
        return [entry for base in sorted(self.bases) for entry in self._entries(base)]

    def _entries(self, base: str) -> list[Entry]:
        format = self.quantised[base]
        if format is None:
            dtype = self.source.dtype(self.bases[base][0][1] if self._is_new(base) else base)
            shape = self._shape(base)
            shape = shape[::-1] if self._is_transposed(base) else shape
            return [Entry(base, dtype, shape, partial(self._floats, base, dtype))]
        n, k = self._shape(base)
        write = packed_entries if self.packs else own_entries
        return write(self._name(base), format, (n, k), partial(self._grid, base))

    def _name(self, base: str) -> str:
        return f"{base}|T" if self._is_transposed(base) else base

    def _is_transposed(self, base: str) -> bool:
        return self.bases[base][0][0].transposed

    def _is_new(self, base: str) -> bool:
        """Whether the source has the parts alone, as random weights do."""
        return base not in self.source.names()

    def _shape(self, base: str) -> tuple[int, ...]:
        """Of the parts together."""
        names = [name for _, name in self.bases[base]]
        return (sum(self.shapes[name][0] for name in names), *self.shapes[names[0]][1:])

    def _format(self, base: str) -> Format | None:
        """Raises DlavmError for a tensor of which a part would stay as it is."""
        found = {name: self.content.formats.get(name) for _, name in self.bases[base]}
        if len(set(found.values())) > 1:
            raise DlavmError(f"--exclude: tensor {base}: expected all parts {list(found)!r} or none, got some")
        return next(iter(found.values()))

    def _floats(self, base: str, dtype: str) -> Iterable[NDArray[Any]]:
        names = [name for _, name in self.bases[base]]
        if self._is_new(base) or any(name in self.content.divisors for name in names):
            parts = {name: _divided(self.source.get(name), self.content.divisors.get(name)) for name in names}
            yield stored(assembled(parts)[base], dtype, base)
            return
        shape = self.source.shape(base)
        for start, stop in slabs(shape[0], math.prod(shape[1:])):
            values = self.source.get(base, slice(start, stop))
            yield values if dtype == "I32" else stored(values, dtype, base)

    def _grid(self, base: str) -> Grid:
        grids = {replace(made, transposed=False).name: self.content.grid(name) for made, name in self.bases[base]}
        first = next(iter(grids.values()))
        if len(grids) == 1:
            return first
        zeros = {name: grid.zero for name, grid in grids.items() if grid.zero is not None}
        return replace(first, codes=_whole({name: grid.codes for name, grid in grids.items()}),
                       scale=_whole({name: grid.scale for name, grid in grids.items()}),
                       zero=_whole(zeros) if zeros else None)  # fmt: skip


def _whole(parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    return next(iter(assembled(parts).values()))


def _divided(values: NDArray[Any], by: F32 | None) -> NDArray[np.float32]:
    wide = values.astype(np.float32)
    return wide if by is None else wide / by.reshape(-1, *[1] * (wide.ndim - 1))


def fold_grid(grid: Grid, by: F32) -> Grid:
    """The grid with its rows divided. Powers of two are exact; else scales are rounded to fp16.

    Raises DlavmError for other divisors of shared exponents, and where scales leave their type.
    """
    if grid.format.scale == "e8m0":
        exponent = np.rint(np.log2(by)).astype(np.int32)
        scale = grid.scale.astype(np.int32) - exponent[:, None]
        if not np.array_equal(np.exp2(exponent).astype(np.float32), by) or scale.min() < 0 or scale.max() > 254:
            raise DlavmError("scales of shared exponents: expected divisors that are powers of two within their range")
        return replace(grid, scale=scale.astype(np.uint8))
    return replace(grid, scale=stored(grid.scale.astype(np.float32) / by[:, None], "F16", "scales"))


