"""What the metadata and tensors of a GGUF file are in a Hugging Face checkpoint: fields of config.json, names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlavm.frontend.gguf_file import GgufFile
from dlavm.frontend.gguf_metadata import Metadata
from dlavm.frontend.gguf_source import GgufSource, Place
from dlavm.frontend.gguf_tokenizer import token_id
from dlavm.support.errors import DlavmError

Config = dict[str, Any]
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
SANDWICH = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
GEMMA_27B = {"gemma2": 46, "gemma3": 62}  # layers of the sizes that scale scores by hidden_size / heads


@dataclass(frozen=True)
class Architecture:
    """A value of general.architecture: the model_type it is called in config.json, the fields that it alone has, names
    of its tensors that differ. `pairs`: rows of q and k lie in the order of a rotary embedding of neighbours.
    `one_more`: norm weights are stored with one added."""

    model_type: str
    more: Callable[[_Reader], Config] = lambda reader: {}
    layer: Mapping[str, str] = field(default_factory=dict)
    pairs: bool = False
    one_more: bool = False


class _Reader:
    """Metadata and tensors of a file."""

    def __init__(self, meta: Metadata, files: list[GgufFile]) -> None:
        self.meta, self.files = meta, files
        self.tensors = {name: tensor for file in files for name, tensor in file.tensors.items()}

    def vector(self, name: str) -> list[float] | None:
        """The numbers of a vector of the file, None where there is none."""
        if name not in self.tensors:
            return None
        values = GgufSource(self.files, {name: Place(name, self.tensors[name].shape)}).get(name)
        return values.astype(np.float64).reshape(-1).tolist()

    def head_dim(self) -> int:
        heads, hidden = self.meta.count("attention.head_count"), self.meta.count("embedding_length")
        dim = self.meta.count("attention.key_length", max(hidden // heads, 1))
        if self.meta.count("attention.value_length", dim) != dim:
            raise self.meta.error("attention.value_length", f"{dim}, as long as a key")
        return dim

    def partial(self) -> float:
        """The rotated share of a head."""
        dim = self.head_dim()
        rotated = self.meta.count("rope.dimension_count", dim)
        if rotated > dim:
            raise self.meta.error("rope.dimension_count", f"at most {dim}")
        return rotated / dim


def config_of(meta: Metadata, files: list[GgufFile]) -> Config:
    """The fields of config.json. Raises DlavmError naming the key that is missing, odd or not supported."""
    architecture = _architecture(meta)
    reader = _Reader(meta, files)
    if EMBEDDING not in reader.tensors:
        raise DlavmError(f"{meta.path}: expected a tensor {EMBEDDING}, got none")
    if meta.count("block_count") > len(reader.tensors):
        raise meta.error("block_count", f"at most {len(reader.tensors)}, as many as there are tensors")
    if meta.count("expert_count", 0, least=0):
        raise meta.error("expert_count", "none or 0: mixtures of experts are read from safetensors")
    heads = meta.count("attention.head_count")
    eos = [token_id(meta, key) for key in ("eos_token_id", "eot_token_id", "eom_token_id")]
    return {
        "model_type": architecture.model_type,
        "vocab_size": reader.tensors[EMBEDDING].shape[0],
        "hidden_size": meta.count("embedding_length"),
        "intermediate_size": meta.count("feed_forward_length"),
        "num_hidden_layers": meta.count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": meta.count("attention.head_count_kv", heads),
        "head_dim": reader.head_dim(),
        "max_position_embeddings": meta.count("context_length"),
        "rms_norm_eps": meta.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": meta.real("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(reader),
        "tie_word_embeddings": HEAD not in reader.tensors,
        "bos_token_id": token_id(meta, "bos_token_id"),
        "eos_token_id": list(dict.fromkeys(number for number in eos if number is not None)),
        **architecture.more(reader),
    }


def _architecture(meta: Metadata) -> Architecture:
    if meta.architecture not in ARCHITECTURES:
        raise meta.error(".general.architecture", f"one of {tuple(ARCHITECTURES)!r}")
    return ARCHITECTURES[meta.architecture]


def _rope_scaling(reader: _Reader) -> Config | None:
    meta, factors = reader.meta, reader.vector(ROPE_FACTORS[0])
    if factors is not None:  # of Llama 3: what each frequency is divided by
        return {"rope_type": "longrope", "short_factor": factors, "long_factor": factors, "attention_factor": 1.0}
    kind = meta.text("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise meta.error("rope.scaling.type", "one of none, linear, yarn")
    scaling: Config = {"rope_type": kind, "factor": meta.real("rope.scaling.factor")}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = meta.count("rope.scaling.original_context_length")
    return scaling


def _whole_rotary(reader: _Reader) -> None:
    if reader.partial() != 1.0:
        raise reader.meta.error("rope.dimension_count", f"{reader.head_dim()}, a whole head")


def _llama(reader: _Reader) -> Config:
    _whole_rotary(reader)
    return {
        "attention_bias": "blk.0.attn_q.bias" in reader.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in reader.tensors,
    }


def _qwen(reader: _Reader) -> Config:
    _whole_rotary(reader)
    return {"use_sliding_window": False, "attention_bias": reader.meta.architecture == "qwen2"}


def _gemma(reader: _Reader) -> Config:
    _whole_rotary(reader)
    return {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}


def _gemma2(reader: _Reader) -> Config:
    meta = reader.meta
    layers = meta.count("block_count")
    return {
        **_gemma(reader),
        **_score_scale(reader),
        "attn_logit_softcapping": meta.real("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": meta.real("final_logit_softcapping", 30.0),
        "sliding_window": meta.count("attention.sliding_window", 4096),
        "layer_types": [_attention(layer % 2 == 0) for layer in range(layers)],
    }


def _gemma3(reader: _Reader) -> Config:
    meta = reader.meta
    layers = meta.count("block_count")
    return {
        **_gemma(reader),
        **_score_scale(reader),
        "attn_logit_softcapping": None,
        "final_logit_softcapping": meta.real("final_logit_softcapping", 0.0) or None,
        "sliding_window": meta.count("attention.sliding_window", 512),
        "layer_types": [_attention((layer + 1) % 6 != 0) for layer in range(layers)],
        "rope_local_base_freq": meta.real("rope.freq_base_swa", 10000.0),
    }


def _attention(sliding: bool) -> str:
    return "sliding_attention" if sliding else "full_attention"


def _score_scale(reader: _Reader) -> Config:
    """The file does not say it; llama.cpp goes by the number of layers."""
    meta = reader.meta
    if meta.count("block_count") != GEMMA_27B[meta.architecture]:
        return {"query_pre_attn_scalar": reader.head_dim()}
    return {"query_pre_attn_scalar": meta.count("embedding_length") // meta.count("attention.head_count")}


def _phi3(reader: _Reader) -> Config:
    meta = reader.meta
    long, short = (reader.vector(name) for name in ROPE_FACTORS[1:])
    window = meta.count("attention.sliding_window", 0, least=0)
    context = meta.count("context_length")
    fields: Config = {
        "partial_rotary_factor": reader.partial(),
        "original_max_position_embeddings": meta.count("rope.scaling.original_context_length", context),
        "sliding_window": window if 0 < window < context else None,
    }
    if long is not None and short is not None:
        fields["rope_scaling"] = {"rope_type": "longrope", "long_factor": long, "short_factor": short}
        if meta.has("rope.scaling.attn_factor"):
            fields["rope_scaling"]["attention_factor"] = meta.real("rope.scaling.attn_factor")
    return fields


_FUSED = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
ARCHITECTURES = {
    "llama": Architecture("llama", _llama, pairs=True),
    "qwen2": Architecture("qwen2", _qwen),
    "qwen3": Architecture("qwen3", _qwen, QK_NORMS),
    "gemma": Architecture("gemma", _gemma, one_more=True),
    "gemma2": Architecture("gemma2", _gemma2, SANDWICH, one_more=True),
    "gemma3": Architecture("gemma3_text", _gemma3, {**SANDWICH, **QK_NORMS}, one_more=True),
    "phi3": Architecture("phi3", _phi3, _FUSED),
}


def places_of(meta: Metadata, files: list[GgufFile]) -> dict[str, Place]:
    """Where the tensors of the checkpoint are. Those that no name is known for keep theirs."""
    architecture = _architecture(meta)
    heads = {"attn_q": meta.count("attention.head_count")}
    heads["attn_k"] = meta.count("attention.head_count_kv", heads["attn_q"])
    places = {}
    for name, tensor in ((name, tensor) for file in files for name, tensor in file.tensors.items()):
        if name in ROPE_FACTORS or name.endswith(".attn_rot_embd.weight"):
            continue
        ours, part = _renamed(name, {**LAYER, **architecture.layer})
        paired = heads.get(part, 0) if architecture.pairs else 0
        if paired and tensor.shape[0] % (2 * paired):
            expectation = f"a multiple of {2 * paired} rows, pairs of {paired} heads"
            raise DlavmError(f"{meta.path}: {name} expected {expectation}, got {tensor.shape[0]}")
        offset = 1.0 if architecture.one_more and part.endswith("norm") else 0.0
        places[ours] = Place(name, tensor.shape, heads=paired, offset=offset)
    return places


def _renamed(name: str, layer: Mapping[str, str]) -> tuple[str, str]:
    """The checkpoint's name of a tensor, and what part of the model llama.cpp calls it."""
    stem, _, kind = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{kind}", stem
    if (found := re.fullmatch(r"blk\.(0|[1-9][0-9]*)\.(\w+)", stem)) and found[2] in layer:
        return f"model.layers.{found[1]}.{layer[found[2]]}.{kind}", found[2]
    return name, ""
