"""Hugging Face checkpoint directories: config.json and *.safetensors of the families in dlavm/frontend/families."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dlavm.frontend.decoder import Decoder, decoder_graph
from dlavm.frontend.derived_source import DerivedSource
from dlavm.frontend.families import FAMILIES, Shape, family_of
from dlavm.frontend.families.family import Family
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.hf_tokenizer import tokenizer_of
from dlavm.frontend.jsonfile import read_json
from dlavm.frontend.model import Model, WeightSource, model_name
from dlavm.frontend.quantized import open_checkpoint, permutations_of
from dlavm.graph import Graph
from dlavm.graph.ir import JsonValue
from dlavm.support.errors import DlavmError

COMPARED = 1 << 25  # bytes of a head and of an embedding that are compared at a time
_UNTIED = (
    "tie_word_embeddings says that the head is the embedding, but {}.weight of {} is another matrix: it is the head, "
    "as in transformers"
)
NOT_KEPT = ("_name_or_path", "dtype", "torch_dtype", "transformers_version", "quantization_config")


def load(directory: Path, weights: Path | None = None, bare: bool = False) -> Model:
    """The model in a checkpoint directory; `weights` names another directory to take the tensors from. A `bare` model
    has none, and needs no files of them.

    Raises DlavmError for another family, for a config field that is missing, odd or not supported, for files that
    cannot be read.
    """
    path = directory / "config.json"
    raw = _with_generation(directory, read_json(path))
    source = None if bare else open_checkpoint(weights or directory)
    name = model_name(directory.resolve().name)
    return model_of(path, raw, name, source, *tokenizer_of(directory, str(raw.get("model_type"))))


def model_of(
    path: Path,
    raw: dict[str, Any],
    name: str,
    source: WeightSource | None,
    tokenizer: Path | Mapping[str, str] | None,
    notes: tuple[str, ...] = (),
) -> Model:
    """The model of the fields of a config.json, which errors call `path`.

    Raises DlavmError naming the field that is missing, odd or not supported.
    """
    shape = shape_of(path, raw)
    decoder, family, derived = shape.decoder, FAMILIES[shape.family], None
    if source is not None:
        derived = DerivedSource(source, family.hidden)
        decoder = rooted(decoder, family, derived)
        _check_depth(decoder, derived, f"{path}: {family.depth}")
        if decoder.tied and _own_head(decoder, derived):
            decoder, notes = replace(decoder, tied=False), (*notes, _UNTIED.format(decoder.names.head, derived.place))
    meta: dict[str, JsonValue] = {
        "family": shape.family,
        "max_position_embeddings": decoder.max_positions,
        **token_ids(path, raw),
        "config": {name: value for name, value in raw.items() if name not in NOT_KEPT},
    }

    def build(ctx: int, chunk: int) -> Graph:
        return decoder_graph(decoder, name, ctx, chunk, meta)

    orders = permutations_of(source)
    return Model(name, build, derived, tokenizer, meta, notes=notes, permutations=orders, fields=raw)


def shape_of(path: Path, raw: dict[str, Any]) -> Shape:
    """What the fields of a config.json describe. Raises DlavmError naming the file and the field."""
    family = family_of(Fields(str(path), raw))
    nested = FAMILIES[family].nested
    inner = Fields(str(path), raw).within(nested) if nested else None
    return Shape(family, {**raw, **inner.raw} if inner else raw, str(path))


def rooted(decoder: Decoder, family: Family, source: WeightSource) -> Decoder:
    """The decoder with its names as the checkpoint begins them: a base model's, say, lack the first part."""
    present = set(source.names())
    for root in (decoder.names.root, *family.roots):
        names = replace(decoder.names, root=root)
        if f"{names.of('embed')}.weight" in present:
            return replace(decoder, names=names)
    return decoder


def _own_head(decoder: Decoder, source: WeightSource) -> bool:
    """Whether the checkpoint has a head that is not its embedding. Reads both where there is one; what cannot be read
    is not the same, so that whoever needs it says why."""
    head, table = f"{decoder.names.head}.weight", f"{decoder.names.of('embed')}.weight"
    shape = (decoder.vocab_size, decoder.hidden_size)
    if not {head, table} <= set(source.names()) or not source.shape(head) == source.shape(table) == shape:
        return False
    rows, step = decoder.vocab_size, max(1, COMPARED // (4 * decoder.hidden_size))
    parts = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    try:
        return any(not np.array_equal(source.get(head, part), source.get(table, part)) for part in parts)
    except DlavmError:
        return True


def _check_depth(decoder: Decoder, source: WeightSource, field: str) -> None:
    """Refuse a depth that the tensors do not have before a graph of that depth is built."""
    front, back = f"{decoder.names.root}{decoder.names.layer}".split("{}")
    pattern = re.compile(re.escape(front) + r"(\d+)" + re.escape(back))
    layers = {found[1] for found in map(pattern.match, source.names()) if found}
    if len(decoder.layers) > len(layers):
        raise DlavmError(
            f"{field} expected at most {len(layers)}, the layers that the tensors of "
            f"{source.place} name, got {len(decoder.layers)}"
        )


def special_tokens(directory: Path) -> dict[str, JsonValue]:
    """bos_token_id (or null) and the list eos_token_ids, of generation_config.json where it says, else config.json."""
    return token_ids(directory / "config.json", _with_generation(directory, read_json(directory / "config.json")))


def _with_generation(directory: Path, config: dict[str, Any]) -> dict[str, Any]:
    """config.json with what generation_config.json says otherwise of special tokens."""
    path = directory / "generation_config.json"
    if not path.is_file():
        return config
    generation = read_json(path)
    token_ids(path, generation)
    names = ("bos_token_id", "eos_token_id")
    return {**config, **{name: generation[name] for name in names if generation.get(name) is not None}}


def token_ids(path: Path, config: dict[str, Any]) -> dict[str, JsonValue]:
    """The special tokens in the fields of a config.json, which errors call `path`."""
    eos = config.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    for value in ids:
        if not isinstance(value, int):
            raise DlavmError(f"{path}: eos_token_id expected integers, got {eos!r}")
    bos = config.get("bos_token_id")
    return {"bos_token_id": bos if isinstance(bos, int) else None, "eos_token_ids": list(ids)}
