"""Shapes of Qwen2, by the fields of their config.json; the small ones tie the head to the embedding. No weights are
bundled.

    dlavm build models/qwen2.py:qwen2_0_5b --target v3 --weights path/to/checkpoint
    dlavm build models/qwen2.py:qwen2_tiny --target v3 --weights random
"""

from __future__ import annotations

from dlavm.frontend.families import Shape, shape
from dlavm.graph import Graph

QWEN2_7B = shape(
    "qwen2",
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    head_dim=128,
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope_theta=1000000.0,
    hidden_act="silu",
    tie_word_embeddings=False,
)
QWEN2_0_5B = QWEN2_7B.changed(
    vocab_size=151936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    head_dim=64,
    tie_word_embeddings=True,
)
QWEN2_1_5B = QWEN2_0_5B.changed(
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    head_dim=128,
)
QWEN2_72B = QWEN2_7B.changed(
    hidden_size=8192,
    intermediate_size=29568,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
)
# No published model: two layers of sizes that are no multiples of anything, for tests and first steps.
QWEN2_TINY = QWEN2_0_5B.changed(
    vocab_size=333,
    hidden_size=168,
    intermediate_size=264,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    max_position_embeddings=128,
)

SHAPES = {
    "qwen2_7b": QWEN2_7B,
    "qwen2_0_5b": QWEN2_0_5B,
    "qwen2_1_5b": QWEN2_1_5B,
    "qwen2_72b": QWEN2_72B,
    "qwen2_tiny": QWEN2_TINY,
}


def build(ctx: int, chunk: int, shape: Shape) -> Graph:
    """`token` ids in, logits of the last `head_rows` out."""
    return shape.graph("qwen2", ctx, chunk)
