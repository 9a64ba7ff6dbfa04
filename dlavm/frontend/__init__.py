"""Front ends: what a user names as MODEL becomes a graph builder and a source of weights."""

from __future__ import annotations

from pathlib import Path

from dlavm.frontend import hf, python_model
from dlavm.frontend.model import Model, WeightSource, check_weights
from dlavm.support.errors import DlavmError

__all__ = ["Model", "WeightSource", "check_weights", "load_model"]


def load_model(path: Path | str, weights: Path | str | None = None) -> Model:
    """The model that `path` names: a Python model file or a Hugging Face checkpoint directory.

    `weights` names a directory of safetensors to use instead of the model's own.
    Raises DlavmError for anything else, and as the front ends do.
    """
    path, directory = Path(path), Path(weights) if weights is not None else None
    if directory is not None and not directory.is_dir():
        raise DlavmError(f"weights: expected a directory, got {str(directory)!r}")
    if path.is_dir():
        return hf.load(path, directory)
    if path.suffix == ".py" and path.is_file():
        return python_model.load(path, directory)
    if not path.exists():
        raise DlavmError(f"model: expected a file or directory, got {str(path)!r}, which does not exist")
    raise DlavmError(f"model: expected a .py file or a Hugging Face checkpoint directory, got {str(path)!r}")
