"""The graph of the Llama family and of those that differ from it in biases alone, from the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from dlavm.graph import Builder, Graph, Value
from dlavm.graph.ir import JsonValue


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a model; the names are those of a Hugging Face config.json where it has one.

    `attention_bias` is of the projections to queries, keys and values, `attention_output_bias` of the one behind them.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    hidden_act: str
    tie_word_embeddings: bool
    attention_bias: bool
    attention_output_bias: bool
    mlp_bias: bool


def llama_graph(config: LlamaConfig, name: str, ctx: int, chunk: int, meta: dict[str, JsonValue]) -> Graph:
    """The decoder: outputs `logits` (head_rows, vocab) and `next` (head_rows,), the greedy token.

    Raises DlavmError when sizes do not fit each other, naming the place in the model.
    """
    b = Builder(name, ctx=ctx, chunk=chunk, meta=meta)
    return _Llama(config, b).build()


class _Llama:
    def __init__(self, config: LlamaConfig, b: Builder) -> None:
        self.c, self.b = config, b

    def build(self) -> Graph:
        c, b = self.c, self.b
        ids = b.input("ids", (b.token,), "i32")
        table = b.param("model.embed_tokens.weight", (c.vocab_size, c.hidden_size))
        self.rotary = b.rotary(c.head_dim, c.rope_theta)
        x = b.embedding(ids, table)  # (token, hidden)
        for layer in range(c.num_hidden_layers):
            with b.scope(f"layer {layer}"):
                x = self.attention(x, layer)
                x = self.mlp(x, layer)
        x = b.last_rows(x, count=b.head_rows)  # (head_rows, hidden)
        x = self.norm(x, "model.norm")
        source = table.name if c.tie_word_embeddings else ""
        head = b.param("lm_head.weight", (c.vocab_size, c.hidden_size), source=source)
        logits = b.linear(x, head, name="logits")  # (head_rows, vocab)
        return b.finish(logits=logits, next=b.argmax(logits, name="next"))

    def norm(self, x: Value, name: str) -> Value:
        gamma = self.b.param(f"{name}.weight", (self.c.hidden_size,))
        return self.b.rms_norm(x, gamma, eps=self.c.rms_norm_eps, name=name.rsplit(".", 1)[-1])

    def linear(self, x: Value, name: str, rows: int, bias: bool) -> Value:
        w = self.b.param(f"{name}.weight", (rows, x.type.shape[-1]))
        if not bias:
            return self.b.linear(x, w)
        return self.b.linear(x, w, self.b.param(f"{name}.bias", (rows,)))

    def attention(self, x: Value, layer: int) -> Value:
        c, b, t, d = self.c, self.b, self.b.token, self.c.head_dim
        path, heads, kv_heads = (
            f"model.layers.{layer}.self_attn",
            c.num_attention_heads,
            c.num_key_value_heads,
        )
        h = self.norm(x, f"model.layers.{layer}.input_layernorm")
        q = self.linear(h, f"{path}.q_proj", heads * d, c.attention_bias)
        k = self.linear(h, f"{path}.k_proj", kv_heads * d, c.attention_bias)
        v = self.linear(h, f"{path}.v_proj", kv_heads * d, c.attention_bias)
        q, k = (
            b.reshape(q, shape=(t, heads, d), name="q_heads"),
            b.reshape(k, shape=(t, kv_heads, d), name="k_heads"),
        )
        q = b.rope(q, self.rotary, rotary_dim=d, name="q_rope")
        k = b.rope(k, self.rotary, rotary_dim=d, name="k_rope")
        v = b.reshape(v, shape=(t, kv_heads, d), name="v_heads")
        k_cache = b.kv_append(b.kv(f"layers.{layer}.k", (kv_heads, b.ctx, d)), k, name="k_append")
        v_cache = b.kv_append(b.kv(f"layers.{layer}.v", (kv_heads, b.ctx, d)), v, name="v_append")
        a = b.attention(q, k_cache, v_cache, scale=d**-0.5)  # (token, heads, d)
        a = b.reshape(a, shape=(t, heads * d), name="heads")
        return b.add(x, self.linear(a, f"{path}.o_proj", c.hidden_size, c.attention_output_bias), name="attn_residual")

    def mlp(self, x: Value, layer: int) -> Value:
        c, b, path = self.c, self.b, f"model.layers.{layer}.mlp"
        h = self.norm(x, f"model.layers.{layer}.post_attention_layernorm")
        up = self.linear(h, f"{path}.up_proj", c.intermediate_size, c.mlp_bias)
        gate = self.linear(h, f"{path}.gate_proj", c.intermediate_size, c.mlp_bias)
        h = b.mul(b.act(gate, fn=c.hidden_act), up, name="gated")  # (token, intermediate)
        return b.add(x, self.linear(h, f"{path}.down_proj", c.hidden_size, c.mlp_bias), name="mlp_residual")
