"""ChatGLM2, by the fields of its config.json: one fused projection to queries, keys and values, another to gate and up;
the first half of each head is rotated in adjacent pairs. No weights are bundled.

    dlavm build models/chatglm.py --target v3 --weights path/to/checkpoint
    dlavm build models/chatglm.py:chatglm_tiny --target v3 --weights random
"""

from __future__ import annotations

from dlavm.frontend.families import Shape, shape
from dlavm.graph import Graph

CHATGLM2_6B = shape(
    "chatglm",
    padded_vocab_size=65024,
    hidden_size=4096,
    ffn_hidden_size=13696,
    num_layers=28,
    num_attention_heads=32,
    multi_query_attention=True,
    multi_query_group_num=2,
    kv_channels=128,
    seq_length=32768,
    layernorm_epsilon=1e-5,
)

SHAPES = {
    "chatglm2_6b": CHATGLM2_6B,
    # No published model: two layers of sizes that are no multiples of anything, for tests and first steps.
    "chatglm_tiny": CHATGLM2_6B.changed(
        padded_vocab_size=335,
        hidden_size=152,
        ffn_hidden_size=232,
        num_layers=2,
        num_attention_heads=4,
        multi_query_group_num=2,
        kv_channels=40,
        seq_length=128,
    ),
}


def build(ctx: int, chunk: int, shape: Shape) -> Graph:
    """`token` ids in, logits of the last `head_rows` out."""
    return shape.graph("chatglm", ctx, chunk)
