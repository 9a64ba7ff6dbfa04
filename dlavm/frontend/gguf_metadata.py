"""The metadata of a GGUF file in their types, with errors that name file and key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.support.errors import DlavmError

SHOWN = 80  # characters of a value in an error message


class Metadata:
    """Absent keys take the default, where there is one. `architecture` stands in front of most keys: `count("x")` reads
    "llama.x", and a key with a leading dot is taken as it is: `.tokenizer.ggml.model`."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self.values = path, values
        self.architecture = ""
        self.architecture = self.text(".general.architecture")

    def key(self, name: str) -> str:
        return name.removeprefix(".") if name.startswith(".") else f"{self.architecture}.{name}"

    def has(self, name: str) -> bool:
        return self.key(name) in self.values

    def error(self, name: str, expectation: str) -> DlavmError:
        shown = repr(self.values.get(self.key(name)))
        return DlavmError(f"{self.path}: {self.key(name)} expected {expectation}, got {shown[:SHOWN]}")

    def count(self, name: str, default: int | None = None, least: int = 1) -> int:
        value = self.values.get(self.key(name), default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 31:
            raise self.error(name, f"an integer of at least {least}")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        value = self.values.get(self.key(name), default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.error(name, "a finite number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(self.key(name), default)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self.values.get(self.key(name), default)
        if not isinstance(value, str):
            raise self.error(name, "a text")
        return value

    def texts(self, name: str) -> list[str]:
        value = self.values.get(self.key(name))
        if not isinstance(value, list):
            raise self.error(name, "an array of texts")
        return value

    def numbers(self, name: str, count: int, kind: str) -> NDArray[Any]:
        """`kind`: the kinds of numpy that will do, iu or f."""
        value = self.values.get(self.key(name))
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kind or value.size != count:
            raise self.error(name, f"an array of {count} {'integers' if 'i' in kind else 'floats'}")
        if not np.isfinite(value).all():
            raise self.error(name, "finite numbers")
        return value
