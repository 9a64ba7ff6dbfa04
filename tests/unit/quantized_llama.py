"""A small random Llama whose linears are quantised, and the same model in floats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.quantized_tensors import Array, Made, write

HIDDEN, INNER, HEADS, KV_HEADS, VOCAB, LAYERS = 64, 96, 4, 2, 48, 2
CONFIG: dict[str, Any] = {
    "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
}  # fmt: skip
LINEARS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN // HEADS * KV_HEADS, HIDDEN),
    "self_attn.v_proj": (HIDDEN // HEADS * KV_HEADS, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN), "mlp.gate_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER),
}  # fmt: skip
# Linears that read the same, and so are given the same order of columns.
TOGETHER = dict(zip(LINEARS, (0, 0, 0, 1, 2, 2, 3), strict=True))
Maker = Callable[[int, int, int], Made]  # of rows, columns and a seed


def others() -> dict[str, Array]:
    """What is not quantised."""
    rng = np.random.default_rng(0)
    norms = [f"model.layers.{i}.{n}" for i in range(LAYERS) for n in ("input_layernorm", "post_attention_layernorm")]
    shapes = dict.fromkeys([f"{name}.weight" for name in [*norms, "model.norm"]], (HIDDEN,))
    found = {name: (1 + rng.standard_normal(shape) / 8).astype(np.float16) for name, shape in shapes.items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        found[name] = (rng.standard_normal((VOCAB, HIDDEN)) / 8).astype(np.float16)
    return found


def pair(folder: Path, make: Maker, quantization: dict[str, Any], **config: Any) -> tuple[Path, Path]:
    """The quantised checkpoint, and that of its numbers in float32."""
    quantised, floats = others(), others()
    for layer in range(LAYERS):
        for name, (n, k) in LINEARS.items():
            made = make(n, k, 10 * layer + TOGETHER[name])
            module = f"model.layers.{layer}.{name}"
            quantised |= {f"{module}.{end}": tensor for end, tensor in made.tensors.items()}
            floats[f"{module}.weight"] = made.values.astype(np.float32)
    return (
        write(folder / "quantised", quantised, quantization, **{**CONFIG, **config}),
        write(folder / "floats", floats, None, **{**CONFIG, **config}),
    )
