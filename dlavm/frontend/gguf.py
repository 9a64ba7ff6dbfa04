"""GGUF files of decoder language models: metadata, tensors and tokenizer of one become a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dlavm.frontend.gguf_config import config_of, places_of
from dlavm.frontend.gguf_metadata import Metadata
from dlavm.frontend.gguf_source import GgufSource, open_files
from dlavm.frontend.gguf_tokenizer import tokenizer_files
from dlavm.frontend.hf import model_of
from dlavm.frontend.model import Model, model_name
from dlavm.frontend.quantized import open_checkpoint
from dlavm.support.errors import DlavmError


def load(path: Path, weights: Path | None = None, bare: bool = False) -> Model:
    """The model in a GGUF file, or in several of which `path` is the first; `weights` names a directory to take the
    tensors from instead. A `bare` model has none. A tokenizer that cannot be used is left out, and a note says why.

    Raises DlavmError naming file and field for a file that is not sound, and for another architecture.
    """
    files = open_files(path)
    meta = Metadata(path, files[0].metadata)
    config = config_of(meta, files)
    source = None if bare else open_checkpoint(weights) if weights else GgufSource(files, places_of(meta, files))
    tokenizer, notes = _tokenizer(meta)
    return model_of(path, config, model_name(path.stem), source, tokenizer, notes)


def _tokenizer(meta: Metadata) -> tuple[Mapping[str, str] | None, tuple[str, ...]]:
    try:
        return tokenizer_files(meta), ()
    except DlavmError as error:
        return None, (f"without a tokenizer, so that it takes and gives ids only: {error}",)
