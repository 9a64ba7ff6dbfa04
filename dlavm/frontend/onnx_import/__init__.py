"""ONNX files of decoders as models."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dlavm.formats import Grid
from dlavm.frontend.jsonfile import read_json
from dlavm.frontend.model import ALL, Model, model_name
from dlavm.frontend.onnx_import.decoder import Decoder
from dlavm.frontend.onnx_import.ir import OnnxGraph
from dlavm.frontend.onnx_import.load import read_graph
from dlavm.frontend.safetensors_source import SafetensorsSource
from dlavm.graph import Graph
from dlavm.graph.ir import JsonValue
from dlavm.support.errors import DlavmError

CONFIGS = ("config.json", "generation_config.json", "genai_config.json")


def load(path: Path, weights: Path | None = None, bare: bool = False) -> Model:
    """The decoder in an .onnx file; `weights` names a directory of safetensors to take tensors from instead, by the
    names that the graph gives them. A `bare` model has none. tokenizer.json beside the file is taken, and what
    config.json, generation_config.json or genai_config.json there say of special tokens and context.

    Raises DlavmError naming the file for one that is not sound; its graph raises Problems, naming every node that is
    not recognised.
    """
    imported = Imported(read_graph(path))
    config = read_config(path.parent)
    name = model_name(path.stem if path.stem != "model" else path.resolve().parent.name)

    def build(ctx: int, chunk: int) -> Graph:
        return imported.decoder.build(name, ctx, chunk, {"family": "onnx"})

    source = None if bare else SafetensorsSource(weights) if weights else imported
    tokenizer = path.parent if (path.parent / "tokenizer.json").is_file() else None
    return Model(name, build, source, tokenizer, config)


class Imported:
    """A graph that is recognised when it is first needed, so that a check can list what is not; a `WeightSource`."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.place = graph.place
        self._graph = graph

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self._graph)

    def names(self) -> list[str]:
        return self.decoder.source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.decoder.source.shape(name)

    def dtype(self, name: str) -> str:
        return self.decoder.source.dtype(name)

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        return self.decoder.source.get(name, rows)

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        return self.decoder.source.grid(name, rows)

    def note(self, name: str) -> str:
        return self.decoder.source.note(name)

    def nearest(self, name: str) -> str:
        return self.decoder.source.nearest(name)


def read_config(folder: Path) -> dict[str, JsonValue]:
    """bos_token_id, eos_token_ids and max_position_embeddings, as far as the files of the folder say."""
    raw: dict[str, Any] = {}
    for name in CONFIGS:
        if (folder / name).is_file():
            found = read_json(folder / name)
            found = found.get("model", {}) if name == "genai_config.json" else found
            raw |= {k: v for k, v in found.items() if v is not None} if isinstance(found, dict) else {}
    eos = raw.get("eos_token_id", [])
    ids = eos if isinstance(eos, list) else [eos]
    if not all(isinstance(value, int) for value in ids):
        raise DlavmError(f"{folder}: eos_token_id expected integers, got {eos!r}")
    bos, limit = raw.get("bos_token_id"), raw.get("max_position_embeddings", raw.get("context_length"))
    config: dict[str, JsonValue] = {"bos_token_id": bos if isinstance(bos, int) else None, "eos_token_ids": list(ids)}
    if isinstance(limit, int) and limit > 0:
        config["max_position_embeddings"] = limit
    return config
