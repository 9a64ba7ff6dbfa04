"""A small model with float weights, and the verb that quantises it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from dlavm.cli import main

VOCAB, DIM, INNER, HEADS, KV_HEADS, HEAD_DIM = 96, 64, 160, 4, 2, 16
CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB, "hidden_size": DIM,
    "intermediate_size": INNER, "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
WORDS = ["<bos>", "<eos>", *(f"w{i}" for i in range(2, VOCAB))]


def tensors(seed: int = 0) -> dict[str, Any]:
    """Weights whose activations have channels of very different size, as those of trained models do."""
    rng = np.random.default_rng(seed)
    found = {"model.embed_tokens.weight": rng.standard_normal((VOCAB, DIM)), "model.norm.weight": np.ones(DIM)}
    for layer in range(2):
        path = f"model.layers.{layer}"
        shapes = {
            "self_attn.q_proj": (HEADS * HEAD_DIM, DIM), "self_attn.k_proj": (KV_HEADS * HEAD_DIM, DIM),
            "self_attn.v_proj": (KV_HEADS * HEAD_DIM, DIM), "self_attn.o_proj": (DIM, HEADS * HEAD_DIM),
            "mlp.gate_proj": (INNER, DIM), "mlp.up_proj": (INNER, DIM), "mlp.down_proj": (DIM, INNER),
        }  # fmt: skip
        for name, shape in shapes.items():
            found[f"{path}.{name}.weight"] = rng.standard_normal(shape) / np.sqrt(shape[1])
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{path}.{name}.weight"] = np.exp(1.5 * rng.standard_normal(DIM))
    return {name: values.astype(np.float16) for name, values in found.items()}


def checkpoint(folder: Path, weights: dict[str, Any] | None = None, tokenizer: bool = True, **config: Any) -> Path:
    """A Llama checkpoint with a tokenizer of whole words."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(tensors() if weights is None else weights, folder / "model.safetensors")
    if tokenizer:
        words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<eos>"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        words.save(str(folder / "tokenizer.json"))
    return folder


def text(folder: Path, count: int = 400) -> Path:
    path = folder / "text.txt"
    rng = np.random.default_rng(1)
    path.write_text(" ".join(f"w{i}" for i in rng.integers(2, VOCAB, count)))
    return path


def quantize(model: Path | str, out: Path, *options: object) -> int:
    return main(["quantize", str(model), "-o", str(out), *map(str, options)])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
