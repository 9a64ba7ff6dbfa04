"""A Llama checkpoint of any shape with random weights, in shards with an index, as people download them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

LAYERS_A_SHARD = 6


@dataclass(frozen=True)
class Shape:
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    layers: int
    vocab: int = 32000
    ctx: int = 4096


SHAPES = {"7b": Shape(4096, 11008, 32, 32, 32), "1.1b": Shape(2048, 5632, 32, 4, 22)}
"""Of Llama-2-7B and TinyLlama-1.1B."""


def layer_tensors(shape: Shape, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a decoder layer, as a Llama checkpoint has them."""
    path, hidden = f"model.layers.{layer}", shape.hidden
    kv = hidden // shape.heads * shape.kv_heads
    for name, rows in (("q_proj", hidden), ("k_proj", kv), ("v_proj", kv), ("o_proj", hidden)):
        yield f"{path}.self_attn.{name}.weight", (rows, hidden)
    yield f"{path}.mlp.gate_proj.weight", (shape.inner, hidden)
    yield f"{path}.mlp.up_proj.weight", (shape.inner, hidden)
    yield f"{path}.mlp.down_proj.weight", (hidden, shape.inner)
    yield f"{path}.input_layernorm.weight", (hidden,)
    yield f"{path}.post_attention_layernorm.weight", (hidden,)


def write_checkpoint(folder: Path, shape: Shape) -> int:
    """A sharded fp16 checkpoint with an index and no tokenizer; bytes of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    matrix = (shape.vocab, shape.hidden)
    outer = [("model.embed_tokens.weight", matrix), ("model.norm.weight", (shape.hidden,)), ("lm_head.weight", matrix)]
    layers = range(shape.layers)
    shards = [layers[first : first + LAYERS_A_SHARD] for first in layers[::LAYERS_A_SHARD]]
    groups = [outer] + [[tensor for layer in shard for tensor in layer_tensors(shape, layer)] for shard in shards]
    weight_map, total = {}, 0
    for number, group in enumerate(groups):
        file = f"model-{number + 1:05d}-of-{len(groups):05d}.safetensors"
        tensors = {name: drawn(number, index, size) for index, (name, size) in enumerate(group)}
        save_file(tensors, folder / file)
        weight_map |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    config = {"model_type": "llama", "vocab_size": shape.vocab, "hidden_size": shape.hidden,
              "intermediate_size": shape.inner, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
              "num_key_value_heads": shape.kv_heads, "max_position_embeddings": shape.ctx, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return total


def drawn(shard: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers as large as trained weights; norms are ones."""
    if len(shape) == 1:
        return np.ones(shape, np.float16)
    generator = np.random.default_rng([shard, index])
    values = np.empty(shape, np.float16)
    for start in range(0, shape[0], 1024):
        part = values[start : start + 1024]
        part[...] = generator.standard_normal(part.shape, dtype=np.float32) * np.float32(0.02)
    return values
