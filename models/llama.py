"""Shapes of the Llama family, by the fields of their config.json; dlavm/frontend/decoder.py writes out the graph that
all families share. No weights are bundled.

    dlavm build models/llama.py:llama3_8b --target v3 --weights path/to/checkpoint
    dlavm build models/llama.py:llama2_7b --target v3 --weights none
    dlavm build models/llama.py:llama_tiny --target v3 --weights random
"""

from __future__ import annotations

from dlavm.frontend.families import Shape, shape
from dlavm.graph import Graph

LLAMA2_7B = shape(
    "llama",
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
    max_position_embeddings=4096,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    hidden_act="silu",
    tie_word_embeddings=False,
)
LLAMA2_13B = LLAMA2_7B.changed(
    hidden_size=5120,
    intermediate_size=13824,
    num_hidden_layers=40,
    num_attention_heads=40,
    num_key_value_heads=40,
)
LLAMA2_70B = LLAMA2_7B.changed(
    hidden_size=8192,
    intermediate_size=28672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
)
LLAMA3_8B = LLAMA2_7B.changed(
    vocab_size=128256,
    intermediate_size=14336,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    rope_theta=500000.0,
)
LLAMA3_70B = LLAMA2_70B.changed(vocab_size=128256, max_position_embeddings=8192, rope_theta=500000.0)
TINYLLAMA_1B = LLAMA2_7B.changed(
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=22,
    num_key_value_heads=4,
    head_dim=64,
    max_position_embeddings=2048,
)
# No published model: two layers of sizes that are no multiples of anything, for tests and first steps.
LLAMA_TINY = LLAMA2_7B.changed(
    vocab_size=331,
    hidden_size=200,
    intermediate_size=296,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=72,
    max_position_embeddings=128,
)

SHAPES = {
    "llama2_7b": LLAMA2_7B,
    "llama2_13b": LLAMA2_13B,
    "llama2_70b": LLAMA2_70B,
    "llama3_8b": LLAMA3_8B,
    "llama3_70b": LLAMA3_70B,
    "tinyllama_1b": TINYLLAMA_1B,
    "llama_tiny": LLAMA_TINY,
}


def build(ctx: int, chunk: int, shape: Shape) -> Graph:
    """`token` ids in, logits of the last `head_rows` out."""
    return shape.graph("llama", ctx, chunk)
