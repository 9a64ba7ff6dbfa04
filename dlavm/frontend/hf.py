"""Hugging Face checkpoint directories: config.json and *.safetensors of the Llama family."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlavm.frontend.jsonfile import read_json
from dlavm.frontend.llama import LlamaConfig, llama_graph
from dlavm.frontend.model import Model, WeightSource
from dlavm.frontend.safetensors_source import SafetensorsSource
from dlavm.graph import Graph
from dlavm.graph.ir import JsonValue
from dlavm.support.errors import DlavmError

FAMILIES = ("llama",)
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}


def load(directory: Path, weights: Path | None = None, bare: bool = False) -> Model:
    """The model in a checkpoint directory; `weights` names another directory to take the tensors from. A `bare` model
    has none, and needs no files of them.

    Raises DlavmError for another family, for a config field that is missing, odd or not supported, for files that
    cannot be read.
    """
    path = directory / "config.json"
    raw = _with_generation(directory, read_json(path))
    source = None if bare else SafetensorsSource(weights or directory)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", directory.resolve().name) or "model"
    return model_of(path, raw, name, source, tokenizer_directory(directory))


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
    config = parse_config(path, raw)
    if source is not None:
        _check_depth(config, source, path)
    meta = model_meta(path, raw, config)

    def build(ctx: int, chunk: int) -> Graph:
        return llama_graph(config, name, ctx, chunk, meta)

    return Model(name, build, source, tokenizer, meta, notes=notes)


def _check_depth(config: LlamaConfig, source: WeightSource, path: Path) -> None:
    """Refuse a depth that the tensors do not have before a graph of that depth is built."""
    layers = {name.split(".")[2] for name in source.names() if name.startswith("model.layers.")}
    if config.num_hidden_layers > len(layers):
        raise DlavmError(
            f"{path}: num_hidden_layers expected at most {len(layers)}, the layers that the tensors of "
            f"{source.place} name, got {config.num_hidden_layers}"
        )


def tokenizer_directory(directory: Path) -> Path | None:
    """The directory, if it holds a tokenizer.json."""
    return directory if (directory / "tokenizer.json").is_file() else None


def model_meta(path: Path, raw: dict[str, Any], config: LlamaConfig) -> dict[str, JsonValue]:
    """What stands in the graph's meta: family, sizes, special tokens."""
    sizes: dict[str, JsonValue] = dict(dataclasses.asdict(config))
    return {"family": "llama", **sizes, **token_ids(path, raw)}


def special_tokens(directory: Path) -> dict[str, JsonValue]:
    """bos_token_id (or null) and the list eos_token_ids, of generation_config.json where it says, else config.json."""
    return token_ids(directory / "config.json", _with_generation(directory, read_json(directory / "config.json")))


def _with_generation(directory: Path, config: dict[str, Any]) -> dict[str, Any]:
    """config.json with what generation_config.json says otherwise of special tokens."""
    path = directory / "generation_config.json"
    if not path.is_file():
        return config
    generation = read_json(path)
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


def parse_config(path: Path, raw: dict[str, Any]) -> LlamaConfig:
    """The sizes in the fields of a config.json, which errors call `path`. Raises DlavmError naming the field."""
    _refuse_others(path, raw)
    fields = _Fields(path, raw)
    heads, hidden = fields.count("num_attention_heads"), fields.count("hidden_size")
    head_dim = fields.count("head_dim", hidden // heads)
    activation = fields.text("hidden_act", "silu")
    if activation not in ACTIVATIONS:
        raise fields.error("hidden_act", f"one of {list(ACTIVATIONS)!r}")
    return LlamaConfig(
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        num_hidden_layers=fields.count("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=fields.count("num_key_value_heads", heads),
        head_dim=head_dim,
        max_position_embeddings=fields.count("max_position_embeddings", 2048),
        rms_norm_eps=fields.real("rms_norm_eps", 1e-6),
        rope_theta=_rope_theta(fields),
        hidden_act=ACTIVATIONS[activation],
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        attention_bias=fields.flag("attention_bias", False),
        attention_output_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
    )


def _refuse_others(path: Path, raw: dict[str, Any]) -> None:
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise DlavmError(f"{path}: model_type expected one of {FAMILIES!r}, got {family!r}")
    if raw.get("quantization_config") is not None:
        method = raw["quantization_config"]
        method = method.get("quant_method", method) if isinstance(method, dict) else method
        raise DlavmError(f"{path}: quantization_config expected none (float weights), got {method!r}")


def _rope_theta(fields: _Fields) -> float:
    """The base of plain rotary embeddings; both spellings, rope_scaling and rope_parameters. Others are refused."""
    theta = fields.real("rope_theta", 10000.0)
    for name in ("rope_scaling", "rope_parameters"):
        rope = fields.raw.get(name)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise fields.error(name, "an object or null")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise DlavmError(f"{fields.path}: {name} expected the type 'default', got {kind!r}")
        theta = _Fields(fields.path, rope, f"{name}.").real("rope_theta", theta)
    if theta <= 0:
        raise DlavmError(f"{fields.path}: rope_theta expected more than 0, got {theta!r}")
    if fields.real("partial_rotary_factor", 1.0) != 1.0:
        raise fields.error("partial_rotary_factor", "1.0")
    return theta


class _Fields:
    """Fields of a JSON object in their types; absent and null ones take the default, where there is one."""

    def __init__(self, path: Path, raw: dict[str, Any], prefix: str = "") -> None:
        self.path, self.raw, self.prefix = path, raw, prefix

    def error(self, name: str, expectation: str) -> DlavmError:
        return DlavmError(f"{self.path}: {self.prefix}{name} expected {expectation}, got {self.raw.get(name)!r}")

    def count(self, name: str, default: int | None = None) -> int:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(name, "a positive integer")
        return value

    def real(self, name: str, default: float) -> float:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(name, "a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def text(self, name: str, default: str) -> str:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, str):
            raise self.error(name, "a string")
        return value
