"""A Hugging Face checkpoint with the numbers that an artifact holds, so that transformers can check a build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from dlavm.frontend.permutations import columns_of, restored
from dlavm.graph import Graph, Node
from dlavm.graph.derived import assembled
from dlavm.graph.parts import split
from dlavm.pack.artifact import TOKENIZER, Artifact
from dlavm.pack.unpack import read_weights
from dlavm.support.atomic import atomic_directory
from dlavm.support.errors import DlavmError
from dlavm.verbs.floats import artifact_graph

GATE = "mlp.gate_proj.weight"
FLOATS = {"dtype": "float32", "torch_dtype": "float32"}
HF_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}


def write_checkpoint(artifact: Artifact, out: Path) -> None:
    """Writes config.json, model.safetensors (float32) and the tokenizer's files, whole or not at all.

    Raises DlavmError for a model that no config.json describes, unless it is a plain Llama, and for an `out` that holds
    something else.
    """
    graph = artifact_graph(artifact)
    tensors = assembled(_tensors(artifact, graph))
    known = graph.meta.get("config")
    config = {**known, **FLOATS} if isinstance(known, dict) else _config(artifact, graph, tensors)
    config["tie_word_embeddings"] = _head(graph)["w"].name not in tensors
    with atomic_directory(out) as folder:
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        for name in artifact.manifest.files:
            if name.startswith(f"{TOKENIZER}/"):
                (folder / Path(name).name).write_bytes(artifact.file(name).read_bytes())


def _tensors(artifact: Artifact, graph: Graph) -> dict[str, NDArray[np.float32]]:
    """Numbers by checkpoint name. A tied head is written apart, since the embedding is fp16 and the head quantised."""
    weights, columns = read_weights(artifact), columns_of(graph)
    weights |= {name: restored(weights[name], weights[index]) for name, index in columns.items()}
    head = _head(graph)["w"].name
    tensors: dict[str, NDArray[np.float32]] = {}
    for param in (param for param in graph.params if param.type.dtype != "i32"):
        tensors |= {head: weights[head]} if param.name == head else split(param, weights[param.name])
    return tensors


def _head(graph: Graph) -> Node:
    """The last linear: behind it logits are only scaled or capped."""
    node = graph.producers[graph.outputs["logits"].name]
    while node.op != "linear":
        node = graph.producers[node.inputs[0].name]
    return node


def _config(artifact: Artifact, graph: Graph, tensors: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """The configuration of a model written by hand: a LlamaConfig read off its graph. Raises DlavmError where it is no
    plain Llama."""
    model = artifact.manifest.model
    nodes = {op: [n for n in graph.nodes if n.op == op] for op in ("rms_norm", "rope", "linear", "act")}
    plain = model.family == "llama" and nodes["rms_norm"] and nodes["rope"] and graph.constants[0].kind == "rotary"
    if not plain:
        raise DlavmError(f"--format hf: expected a model of the llama family, got {model.family!r}")
    activations = {str(n.attrs["act"]) for n in nodes["linear"]} | {str(n.attrs["fn"]) for n in nodes["act"]}
    activation = next(iter(activations - {"none"}), "silu")
    gates = [tensor for name, tensor in tensors.items() if name.endswith(GATE)]
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", **FLOATS,
        "vocab_size": model.vocab_size, "hidden_size": model.hidden_size, "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads, "num_key_value_heads": model.kv_heads, "head_dim": model.head_dim,
        "intermediate_size": gates[0].shape[0], "hidden_act": HF_ACTIVATIONS.get(activation, activation),
        "rms_norm_eps": nodes["rms_norm"][0].attrs["eps"], "rope_theta": dict(graph.constants[0].args)["theta"],
        "max_position_embeddings": model.extra.get("max_position_embeddings", model.ctx),
        "attention_bias": any(name.endswith("q_proj.bias") for name in tensors),
        "mlp_bias": any(name.endswith("up_proj.bias") for name in tensors),
        "bos_token_id": model.bos_token_id,
        "eos_token_id": list(model.eos_token_ids) or None,
    }  # fmt: skip
