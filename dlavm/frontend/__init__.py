"""Front ends: what a user names as MODEL becomes a graph builder and a source of weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from dlavm.frontend import gguf, hf, python_model
from dlavm.frontend.model import WEIGHTS_HINT, Model, WeightSource, check_weights, weight_problems
from dlavm.frontend.random_weights import RandomSource
from dlavm.support.errors import DlavmError

__all__ = ["WEIGHTS_HINT", "Model", "RandomSource", "WeightSource", "check_weights", "load_model", "split_shape",
           "weight_problems"]  # fmt: skip


def load_model(path: Path | str, weights: Path | str | None = None) -> Model:
    """The model that `path` names: a Python model file, FILE.py:SHAPE, a Hugging Face checkpoint
    directory, a GGUF file or an ONNX file.

    `weights` names a directory of safetensors to use instead of the model's own; `none` is for shapes without
    weights, `random` or `random:SEED` for random ones.
    Raises DlavmError for anything else, and as the front ends do.
    """
    if weights is None or isinstance(weights, Path):
        return _read(path, weights)
    if weights == "none":
        return replace(_read(path, bare=True), shapes_only=True)
    if found := re.fullmatch(r"random(?::([0-9]+))?", weights):
        model = _read(path, bare=True)
        return replace(model, weights=RandomSource(model.build(1, 1), int(found[1] or 0)))
    return _read(path, Path(weights))


def split_shape(path: Path | str) -> tuple[Path, str | None]:
    """`FILE.py:SHAPE` in two; the shape is None where `path` has none."""
    file, colon, shape = str(path).rpartition(":")
    return (Path(file), shape) if colon and file.endswith(".py") else (Path(path), None)


def _read(named: Path | str, weights: Path | None = None, bare: bool = False) -> Model:
    """The model with the weights of a directory, its own or, when `bare`, none."""
    path, shape = split_shape(named)
    if weights is not None and not weights.is_dir():
        raise DlavmError(f"weights: expected a directory, random, random:SEED or none, got {str(weights)!r}")
    if path.is_dir():
        return hf.load(path, weights, bare)
    if path.suffix == ".py" and path.is_file():
        return python_model.load(path, weights, shape, bare)
    if path.suffix == ".gguf" and path.is_file():
        return gguf.load(path, weights, bare)
    if path.suffix == ".onnx" and path.is_file():
        from dlavm.frontend import onnx_import  # with the package onnx, which nothing else needs

        return onnx_import.load(path, weights, bare)
    if not path.exists():
        raise DlavmError(f"model: expected a file or directory, got {str(path)!r}, which does not exist")
    kinds = "a .py, .gguf or .onnx file or a Hugging Face checkpoint directory"
    raise DlavmError(f"model: expected {kinds}, got {str(path)!r}")
