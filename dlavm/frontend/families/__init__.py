"""The families of decoders that a config.json can describe, by its model_type: a row each."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlavm.frontend.decoder import Decoder, decoder_graph
from dlavm.frontend.families import glm, llama
from dlavm.frontend.families.family import Family
from dlavm.frontend.families.fields import Fields
from dlavm.graph import Graph
from dlavm.graph.ir import JsonValue

FAMILIES: dict[str, Family] = {
    "llama": Family("Llama 1, 2, 3, CodeLlama", llama.llama),
    "mistral": Family("Mistral", llama.mistral),
    "mixtral": Family("Mixtral", llama.mixtral),
    "qwen2": Family("Qwen2, Qwen2.5", llama.qwen2),
    "qwen3": Family("Qwen3", llama.qwen3),
    "qwen3_moe": Family("Qwen3-MoE", llama.qwen3_moe),
    "granite": Family("Granite", llama.granite),
    "olmo2": Family("OLMo 2", llama.olmo2),
    "chatglm": Family("ChatGLM2, ChatGLM3, GLM-4-9B", glm.chatglm, depth="num_layers"),
    "glm": Family("GLM-4-9B", glm.glm),
    "glm4": Family("GLM-4-0414", glm.glm4),
}


def family_of(f: Fields) -> str:
    """The model_type of a config. Raises DlavmError, naming the nearest family, for one that is not there."""
    name = f.raw.get("model_type")
    if isinstance(name, str) and name in FAMILIES:
        return name
    near = difflib.get_close_matches(str(name), FAMILIES, 1, 0.5)
    hint = f" (the nearest is {near[0]})" if near else ""
    raise f.error("model_type", f"one of {list(FAMILIES)!r}{hint}")


@dataclass(frozen=True)
class Shape:
    """A model of a family, by the fields that its config.json has or would have."""

    family: str
    fields: Mapping[str, Any]
    place: str = "shape"

    @cached_property
    def decoder(self) -> Decoder:
        """Raises DlavmError for fields that are missing, odd or not supported."""
        return FAMILIES[self.family].read(Fields(self.place, self.fields))

    @property
    def max_position_embeddings(self) -> int:
        """The longest context."""
        return self.decoder.max_positions

    def changed(self, **fields: Any) -> Shape:
        return Shape(self.family, {**self.fields, **fields}, self.place)

    def graph(self, name: str, ctx: int, chunk: int, meta: Mapping[str, JsonValue] | None = None) -> Graph:
        """Raises DlavmError where sizes do not fit each other, naming the place in the model."""
        return decoder_graph(self.decoder, name, ctx, chunk, {"family": self.family, **(meta or {})})


def shape(family: str, **fields: Any) -> Shape:
    """The shape of a model; `fields` are those of its config.json."""
    return Shape(family, fields, f"{family} shape")
