"""The bundled story model (models/stories), written by hand. Copy this file to describe a model of your own.

`dlavm build models/stories.py --target v3` compiles it. The names of the params are the checkpoint's tensor names.
"""

from __future__ import annotations

from dlavm.graph import Builder, Graph, Value

WEIGHTS = "stories"  # the directory of model.safetensors and tokenizer.json, beside this file

VOCAB, DIM, FFN = 4096, 256, 768
LAYERS, HEADS, KV_HEADS, HEAD_DIM = 8, 8, 4, 32
MAX_CTX = 1024
EPS = 1e-5


def build(ctx: int, chunk: int) -> Graph:
    """Llama architecture, head tied to the embedding: `token` ids in, logits of the last `head_rows` out."""
    b = Builder("stories", ctx=ctx, chunk=chunk, meta={"family": "llama", "max_position_embeddings": MAX_CTX})
    ids = b.input("ids", (b.token,), "i32")
    table = b.param("model.embed_tokens.weight", (VOCAB, DIM))
    rotary = b.rotary(HEAD_DIM, theta=10000.0)  # (ctx, head_dim)
    x = b.embedding(ids, table)  # (token, dim)
    for layer in range(LAYERS):
        with b.scope(f"layer {layer}"):
            x = attention(b, x, rotary, layer)
            x = mlp(b, x, layer)
    return head(b, x, table)


def attention(b: Builder, x: Value, rotary: Value, layer: int) -> Value:
    """x + o_proj(attention(x)), 8 query heads over 4 kv heads."""
    path = f"model.layers.{layer}"
    h = norm(b, x, f"{path}.input_layernorm")  # (token, dim)
    q = linear(b, h, f"{path}.self_attn.q_proj", HEADS * HEAD_DIM)  # (token, heads * head_dim)
    k = linear(b, h, f"{path}.self_attn.k_proj", KV_HEADS * HEAD_DIM)  # (token, kv_heads * head_dim)
    v = linear(b, h, f"{path}.self_attn.v_proj", KV_HEADS * HEAD_DIM)
    q = b.reshape(q, shape=(b.token, HEADS, HEAD_DIM), name="q_heads")
    k = b.reshape(k, shape=(b.token, KV_HEADS, HEAD_DIM), name="k_heads")
    v = b.reshape(v, shape=(b.token, KV_HEADS, HEAD_DIM), name="v_heads")
    q = b.rope(q, rotary, rotary_dim=HEAD_DIM, name="q_rope")
    k = b.rope(k, rotary, rotary_dim=HEAD_DIM, name="k_rope")
    k_cache = b.kv_append(b.kv(f"layers.{layer}.k", (KV_HEADS, b.ctx, HEAD_DIM)), k)
    v_cache = b.kv_append(b.kv(f"layers.{layer}.v", (KV_HEADS, b.ctx, HEAD_DIM)), v)
    a = b.attention(q, k_cache, v_cache, scale=HEAD_DIM**-0.5)  # (token, heads, head_dim)
    a = b.reshape(a, shape=(b.token, HEADS * HEAD_DIM), name="heads")
    return b.add(x, linear(b, a, f"{path}.self_attn.o_proj", DIM))


def mlp(b: Builder, x: Value, layer: int) -> Value:
    """x + down_proj(silu(gate_proj(x)) * up_proj(x))."""
    path = f"model.layers.{layer}"
    h = norm(b, x, f"{path}.post_attention_layernorm")
    up = linear(b, h, f"{path}.mlp.up_proj", FFN)  # (token, ffn)
    gate = b.act(linear(b, h, f"{path}.mlp.gate_proj", FFN), fn="silu")
    return b.add(x, linear(b, b.mul(gate, up), f"{path}.mlp.down_proj", DIM))


def head(b: Builder, x: Value, table: Value) -> Graph:
    """Logits and greedy token of the last rows. The head is the embedding table again: same tensor, own param."""
    x = b.last_rows(x, count=b.head_rows)  # (head_rows, dim)
    x = norm(b, x, "model.norm")
    w = b.param("lm_head.weight", (VOCAB, DIM), source=table.name)
    logits = b.linear(x, w, name="logits")  # (head_rows, vocab)
    return b.finish(logits=logits, next=b.argmax(logits, name="next"))


def norm(b: Builder, x: Value, name: str) -> Value:
    return b.rms_norm(x, b.param(f"{name}.weight", (DIM,)), eps=EPS, name=name.rsplit(".")[-1])


def linear(b: Builder, x: Value, name: str, rows: int) -> Value:
    return b.linear(x, b.param(f"{name}.weight", (rows, x.type.shape[-1])))  # (.., rows)
