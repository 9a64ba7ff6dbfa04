"""The families of decoders that a config.json can describe, by its model_type: a row each."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlavm.frontend.decoder import Decoder, decoder_graph
from dlavm.frontend.families import falcon, gemma, glm, gpt, llama, phi
from dlavm.frontend.families.family import Family
from dlavm.frontend.families.fields import Fields
from dlavm.graph import Graph
from dlavm.graph.ir import JsonValue

_GEMMA3_PARTS = ("*vision_tower.*", "*multi_modal_projector.*")
FAMILIES: dict[str, Family] = {
    "llama": Family("Llama 1, 2, 3, CodeLlama", llama.llama),
    "mistral": Family("Mistral", llama.mistral),
    "mixtral": Family("Mixtral", llama.mixtral),
    "qwen2": Family("Qwen2, Qwen2.5", llama.qwen2),
    "qwen3": Family("Qwen3", llama.qwen3),
    "qwen3_moe": Family("Qwen3-MoE", llama.qwen3_moe),
    "phi": Family("Phi-1, Phi-1.5, Phi-2", phi.phi),
    "phi3": Family("Phi-3, Phi-3.5, Phi-4", phi.phi3),
    "gemma": Family("Gemma", gemma.gemma),
    "gemma2": Family("Gemma 2", gemma.gemma2),
    "gemma3_text": Family("Gemma 3 (text)", gemma.gemma3),
    "gemma3": Family(
        "Gemma 3 (text of the multimodal)",
        gemma.gemma3,
        hidden=_GEMMA3_PARTS,
        roots=("model.language_model.", "language_model.model."),
        nested="text_config",
    ),
    "gpt2": Family("GPT-2", gpt.gpt2, gpt.MASKS, depth="n_layer"),
    "gpt_bigcode": Family("GPT-BigCode (SantaCoder, StarCoder)", gpt.gpt_bigcode, gpt.MASKS, depth="n_layer"),
    "gptj": Family("GPT-J", gpt.gptj, gpt.MASKS, depth="n_layer"),
    "codegen": Family("CodeGen", gpt.codegen, gpt.MASKS, depth="n_layer"),
    "starcoder2": Family("Starcoder2", gpt.starcoder2),
    "falcon": Family("Falcon", falcon.falcon),
    "mpt": Family("MPT", falcon.mpt, depth="n_layers"),
    "granite": Family("Granite", llama.granite),
    "olmo2": Family("OLMo 2", llama.olmo2),
    "chatglm": Family("ChatGLM2, ChatGLM3, GLM-4-9B", glm.chatglm, depth="num_layers"),
    "glm": Family("GLM-4-9B (of transformers)", glm.glm),
    "glm4": Family("GLM-4-0414", glm.glm4),
}
# Families that people bring and that are not there, with the one that is most like them.
RELATIVES = {
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "baichuan": "llama",
    "bloom": "falcon",
    "cohere": "llama",
    "deepseek_v2": "mixtral",
    "deepseek_v3": "mixtral",
    "gpt_neo": "gpt2",
    "gpt_neox": "gptj",
    "gpt_oss": "mixtral",
    "granitemoe": "granite",
    "internlm2": "llama",
    "llama4": "llama",
    "mllama": "llama",
    "olmo": "llama",
    "olmo3": "olmo2",
    "opt": "gpt2",
    "phi-msft": "phi",
    "phimoe": "phi3",
    "qwen": "qwen2",
    "qwen2_moe": "qwen3_moe",
    "smollm3": "llama",
    "stablelm": "phi",
}


def family_of(f: Fields) -> str:
    """The model_type of a config. Raises DlavmError, naming the nearest family, for one that is not there."""
    name = f.raw.get("model_type")
    if isinstance(name, str) and name in FAMILIES:
        return name
    near = RELATIVES.get(str(name)) or next(iter(difflib.get_close_matches(str(name), FAMILIES, 1, cutoff=0.7)), "")
    hint = f" ({near} is the nearest to it: {FAMILIES[near].title})" if near else ""
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
        about: dict[str, JsonValue] = {"family": self.family, "config": {"model_type": self.family, **self.fields}}
        return decoder_graph(self.decoder, name, ctx, chunk, {**about, **(meta or {})})


def shape(family: str, **fields: Any) -> Shape:
    """The shape of a model; `fields` are those of its config.json."""
    return Shape(family, fields, f"{family} shape")
