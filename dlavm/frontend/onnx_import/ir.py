"""An ONNX graph as it was read: nodes in execution order, and where the bytes of its tensors are."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class OnnxNode:
    """One node. `where` names it in messages; an absent operand or result is an empty string; `captured` are the values
    that its subgraphs take from around it."""

    op: str
    domain: str
    version: int
    where: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    captured: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Every value that must be there before it."""
        return tuple(name for name in (*self.inputs, *self.captured) if name)

    @property
    def kind(self) -> str:
        """Domain and name of the operator, as messages show it."""
        return f"{self.domain}.{self.op}" if self.domain else self.op


@dataclass(frozen=True)
class OnnxInput:
    """An input or output of the graph: element type, and extents: a number, or the name of a variable one."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class Tensor:
    """An initialiser. `array` is a view of the mapped file; 4-bit types hold two numbers a byte and are unpacked when
    `values` is called."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    array: Array
    bits: int = 8  # of an element, where that is less than a byte

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def values(self) -> Array:
        """The elements in their own type; a view where they are whole bytes."""
        if self.bits >= 8:
            return self.array
        per = 8 // self.bits
        codes = (self.array[:, None] >> (np.arange(per, dtype=np.uint8) * self.bits)) & ((1 << self.bits) - 1)
        flat = codes.reshape(-1)[: self.size].reshape(self.shape)
        if self.dtype.name.startswith("uint"):
            return flat.astype(self.dtype)
        if self.dtype.name.startswith("int"):
            return (flat.astype(np.int8) - ((flat >> (self.bits - 1)) << self.bits).astype(np.int8)).astype(self.dtype)
        return flat.astype(np.uint8).view(self.dtype)


@dataclass(frozen=True)
class OnnxGraph:
    """A graph; `nodes` are sorted so that operands come first. `files` are those that its tensors are views of."""

    place: str
    nodes: tuple[OnnxNode, ...]
    inputs: tuple[OnnxInput, ...]
    outputs: tuple[OnnxInput, ...]
    tensors: Mapping[str, Tensor]
    opsets: Mapping[str, int]
    files: tuple[mmap.mmap, ...] = ()

    def release(self) -> None:
        """Gives back the pages that were read, which count as resident memory; read again when they are needed."""
        for file in self.files:
            file.madvise(mmap.MADV_DONTNEED)
