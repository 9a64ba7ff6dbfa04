"""ChatGLM2, written by hand: one fused projection to queries, keys and values, another to gate and up; the first half
of each head is rotated in adjacent pairs. No weights are bundled.

    dlavm build models/chatglm.py --target v3 --weights path/to/checkpoint
    dlavm build models/chatglm.py:chatglm_tiny --target v3 --weights random
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from dlavm.graph import Builder, Graph, Value


@dataclass(frozen=True)
class Shape:
    """Sizes under the names of the checkpoint's config.json. `multi_query_group_num` heads have keys and values;
    `kv_channels` is the width of a head."""

    padded_vocab_size: int
    hidden_size: int
    ffn_hidden_size: int
    num_layers: int
    num_attention_heads: int
    multi_query_group_num: int
    kv_channels: int
    seq_length: int
    layernorm_epsilon: float = 1e-5

    @property
    def max_position_embeddings(self) -> int:
        return self.seq_length


SHAPES = {
    "chatglm2_6b": Shape(
        padded_vocab_size=65024,
        hidden_size=4096,
        ffn_hidden_size=13696,
        num_layers=28,
        num_attention_heads=32,
        multi_query_group_num=2,
        kv_channels=128,
        seq_length=32768,
    ),
    # No published model: two layers of sizes that are no multiples of anything, for tests and first steps.
    "chatglm_tiny": Shape(
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
    b = Builder("chatglm", ctx=ctx, chunk=chunk, meta={"family": "chatglm", **asdict(shape)})
    ids = b.input("ids", (b.token,), "i32")
    table = b.param("transformer.embedding.word_embeddings.weight", (shape.padded_vocab_size, shape.hidden_size))
    rotary = b.rotary(shape.kv_channels // 2)  # (ctx, head / 2)
    x = b.embedding(ids, table)  # (token, hidden)
    for layer in range(shape.num_layers):
        with b.scope(f"layer {layer}"):
            x = attention(b, shape, x, rotary, layer)
            x = mlp(b, shape, x, layer)
    return head(b, shape, x)


def attention(b: Builder, shape: Shape, x: Value, rotary: Value, layer: int) -> Value:
    """x + dense(attention(x)); the rows of the fused weight are [query heads | key heads | value heads]."""
    path = f"transformer.encoder.layers.{layer}"
    heads, groups, d = shape.num_attention_heads, shape.multi_query_group_num, shape.kv_channels
    h = norm(b, shape, x, f"{path}.input_layernorm")
    qkv = linear(b, h, f"{path}.self_attention.query_key_value", (heads + 2 * groups) * d, bias=True)
    q = split_heads(b, qkv, 0, heads, d, "q")  # (token, heads, d)
    k = split_heads(b, qkv, heads, groups, d, "k")  # (token, groups, d)
    v = split_heads(b, qkv, heads + groups, groups, d, "v")
    q = b.rope(q, rotary, rotary_dim=d // 2, interleaved=True, name="q_rope")
    k = b.rope(k, rotary, rotary_dim=d // 2, interleaved=True, name="k_rope")
    k_cache = b.kv_append(b.kv(f"layers.{layer}.k", (groups, b.ctx, d)), k)
    v_cache = b.kv_append(b.kv(f"layers.{layer}.v", (groups, b.ctx, d)), v)
    a = b.attention(q, k_cache, v_cache, scale=d**-0.5)  # (token, heads, d)
    a = b.reshape(a, shape=(b.token, heads * d), name="heads")
    return b.add(x, linear(b, a, f"{path}.self_attention.dense", shape.hidden_size))


def mlp(b: Builder, shape: Shape, x: Value, layer: int) -> Value:
    """x + dense_4h_to_h(silu(gate) * up), where dense_h_to_4h gives [gate | up]."""
    path, ffn = f"transformer.encoder.layers.{layer}", shape.ffn_hidden_size
    h = norm(b, shape, x, f"{path}.post_attention_layernorm")
    fused = linear(b, h, f"{path}.mlp.dense_h_to_4h", 2 * ffn)
    gate = b.act(b.slice(fused, start=0, size=ffn, name="gate"), fn="silu")  # (token, ffn)
    up = b.slice(fused, start=ffn, size=ffn, name="up")
    return b.add(x, linear(b, b.mul(gate, up), f"{path}.mlp.dense_4h_to_h", shape.hidden_size))


def head(b: Builder, shape: Shape, x: Value) -> Graph:
    """Logits and greedy token of the last rows."""
    x = b.last_rows(x, count=b.head_rows)  # (head_rows, hidden)
    x = norm(b, shape, x, "transformer.encoder.final_layernorm")
    logits = linear(b, x, "transformer.output_layer", shape.padded_vocab_size)  # (head_rows, vocab)
    return b.finish(logits=logits, next=b.argmax(logits, name="next"))


def split_heads(b: Builder, fused: Value, first: int, count: int, d: int, name: str) -> Value:
    """`count` heads of a fused projection, from head `first` on: (token, count, d)."""
    part = b.slice(fused, start=first * d, size=count * d, name=name)
    return b.reshape(part, shape=(b.token, count, d), name=f"{name}_heads")


def norm(b: Builder, shape: Shape, x: Value, name: str) -> Value:
    gamma = b.param(f"{name}.weight", (shape.hidden_size,))
    return b.rms_norm(x, gamma, eps=shape.layernorm_epsilon, name=name.rsplit(".")[-1])


def linear(b: Builder, x: Value, name: str, rows: int, bias: bool = False) -> Value:
    w = b.param(f"{name}.weight", (rows, x.type.shape[-1]))  # (rows, K)
    return b.linear(x, w, b.param(f"{name}.bias", (rows,))) if bias else b.linear(x, w)  # (token, rows)
