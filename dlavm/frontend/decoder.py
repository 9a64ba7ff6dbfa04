"""The graph of decoder language models: one for all families, from a configuration of what they differ in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dlavm.frontend.rotary import Rotary
from dlavm.graph import Builder, Graph, Value
from dlavm.graph.activations import softcap
from dlavm.graph.derived import Derived, Rows
from dlavm.graph.ir import JsonValue


@dataclass(frozen=True)
class Names:
    """What a checkpoint calls the parts of a decoder, without `.weight` and `.bias`.

    `roles` has those of the whole model behind `root` (embed, positions, final_norm), and those of a layer behind
    `root` and `layer`, where `{}` stands for its number: attn_norm, q, k, v or qkv in one, o, q_norm, k_norm,
    attn_post_norm, mlp_norm, gate, up or gate_up in one, down, mlp_post_norm, router, expert_gate, expert_up and
    expert_down with a `{}` for the expert. What a family has not, a norm say, is left out. `head` stands alone.
    """

    root: str
    layer: str
    head: str
    roles: Mapping[str, str]

    def __contains__(self, role: str) -> bool:
        return role in self.roles

    def of(self, role: str, layer: int | None = None) -> str:
        """The full name; of an expert's with `{}` in place of its number."""
        place = "" if layer is None else self.layer.replace("{}", str(layer))
        return f"{self.root}{place}{self.roles[role]}"


@dataclass(frozen=True)
class Norm:
    """`op` is rms_norm or layer_norm; `beta`: it adds a vector; `plus_one`: what is stored is its factor less 1."""

    eps: float
    op: str = "rms_norm"
    beta: bool = False
    plus_one: bool = False


@dataclass(frozen=True)
class Attention:
    """The attention of one layer.

    `window`: positions that are seen, 0 for all; `softcap` and `alibi` as the op has them, 0 for none. `qk_norm` is of
    each head of queries and keys, with `whole_norm` of all heads as one row. `bias` is of the projections to
    queries, keys and values, `output_bias` of the one behind them.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rotary: Rotary | None = None
    window: int = 0
    softcap: float = 0.0
    alibi: float = 0.0
    alibi_scale: float = 1.0
    qk_norm: Norm | None = None
    whole_norm: bool = False
    bias: bool = False
    output_bias: bool = False


@dataclass(frozen=True)
class Mlp:
    """down(act(up(x))), where `gated` down(act(gate(x)) * up(x)). With `experts`, `top_k` such MLPs of each token's
    own choice, weighted by their probabilities, which are made to sum up to 1 with `renormalize`."""

    size: int
    act: str
    gated: bool = True
    bias: bool = False
    experts: int = 0
    top_k: int = 0
    renormalize: bool = True


@dataclass(frozen=True)
class Fused:
    """How the rows of one projection to queries, keys and values lie: in `blocks` equal blocks, each with its share of
    the three in this order."""

    blocks: int = 1
    order: str = "qkv"


@dataclass(frozen=True)
class Layer:
    attention: Attention
    mlp: Mlp


@dataclass(frozen=True)
class Decoder:
    """A decoder language model.

    `parallel`: attention and MLP read the same row, and both are added to it. `transposed`: matrices of the layers are
    stored (in, out). `positions`: rows of a table of learned positions, 0 for none. `max_positions`: the longest
    context. `tied`: the head is the embedding table. Scales multiply the rows of the embedding, what is added to the
    residual stream, and the logits.
    """

    names: Names
    vocab_size: int
    hidden_size: int
    max_positions: int
    layers: tuple[Layer, ...]
    norm: Norm
    tied: bool = False
    head_bias: bool = False
    parallel: bool = False
    qkv: Fused = field(default_factory=Fused)
    transposed: bool = False
    positions: int = 0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float = 0.0


def decoder_graph(config: Decoder, name: str, ctx: int, chunk: int, meta: dict[str, JsonValue]) -> Graph:
    """The decoder: outputs `logits` (head_rows, vocab) and `next` (head_rows,), the greedy token.

    Raises DlavmError when sizes do not fit each other, naming the place in the model.
    """
    return _Decoder(config, Builder(name, ctx=ctx, chunk=chunk, meta=meta)).build()


class _Decoder:
    def __init__(self, config: Decoder, b: Builder) -> None:
        self.c, self.b, self.names = config, b, config.names
        self.rotary: dict[Rotary, Value] = {}

    def build(self) -> Graph:
        c, b = self.c, self.b
        ids = b.input("ids", (b.token,), "i32")
        table = b.param(f"{self.names.of('embed')}.weight", (c.vocab_size, c.hidden_size))
        for layer in c.layers:
            self.table(layer.attention.rotary)
        x = self.scaled(b.embedding(ids, table), c.embedding_scale, "embedding_scale")  # (token, hidden)
        if c.positions:
            positions = b.param(f"{self.names.of('positions')}.weight", (c.positions, c.hidden_size))
            x = b.add_positions(x, positions)
        for index, layer in enumerate(c.layers):
            with b.scope(f"layer {index}"):
                x = (self.parallel if c.parallel else self.sequential)(x, layer, index)
        x = b.last_rows(x, count=b.head_rows)  # (head_rows, hidden)
        x = self.norm(x, "final_norm", None)
        logits = self.logits(x, table)  # (head_rows, vocab)
        return b.finish(logits=logits, next=b.argmax(logits, name="next"))

    def table(self, rotary: Rotary | None) -> None:
        """Makes the table of rotary embeddings, once for all layers that share it."""
        if rotary is None or rotary in self.rotary:
            return
        if rotary.scaling is None:
            self.rotary[rotary] = self.b.rotary(rotary.dim, rotary.theta)
        else:
            frequencies, scale = rotary.scaling.apply(rotary, self.b.ctx)
            self.rotary[rotary] = self.b.scaled_rotary(frequencies, scale)

    def logits(self, x: Value, table: Value) -> Value:
        c, b, name = self.c, self.b, f"{self.names.head}.weight"
        head = b.param(name, (c.vocab_size, c.hidden_size), source=table.name if c.tied else "")
        bias = b.param(f"{self.names.head}.bias", (c.vocab_size,)) if c.head_bias else None
        capped = c.logit_softcap > 0
        name = "logits" if c.logit_scale == 1.0 and not capped else ""
        x = b.linear(x, head, bias, name=name) if bias else b.linear(x, head, name=name)
        x = self.scaled(x, c.logit_scale, "" if capped else "logits")
        return b.act(x, fn=softcap(c.logit_softcap), name="logits") if capped else x

    def sequential(self, x: Value, layer: Layer, index: int) -> Value:
        h = self.attention(self.norm(x, "attn_norm", index), layer.attention, index)
        x = self.b.add(x, self.branch(h, "attn_post_norm", index), name="attn_residual")
        h = self.mlp(self.norm(x, "mlp_norm", index), layer.mlp, index)
        return self.b.add(x, self.branch(h, "mlp_post_norm", index), name="mlp_residual")

    def parallel(self, x: Value, layer: Layer, index: int) -> Value:
        h = self.norm(x, "attn_norm", index)
        m = self.norm(x, "mlp_norm", index) if "mlp_norm" in self.names else h
        x = self.b.add(x, self.branch(self.attention(h, layer.attention, index), "", index), name="attn_residual")
        return self.b.add(x, self.branch(self.mlp(m, layer.mlp, index), "", index), name="mlp_residual")

    def branch(self, x: Value, role: str, index: int) -> Value:
        """What is added to the residual stream."""
        return self.scaled(self.norm(x, role, index), self.c.residual_scale, "residual_scale")

    def scaled(self, x: Value, scale: float, name: str) -> Value:
        return x if scale == 1.0 else self.b.scale(x, value=scale, name=name)

    def norm(self, x: Value, role: str, index: int | None, kind: Norm | None = None) -> Value:
        """Over the last axis; x itself where the family has no norm of that role."""
        if role not in self.names:
            return x
        kind, b, name = kind or self.c.norm, self.b, self.names.of(role, index)
        width = x.type.shape[-1]
        gamma = b.param(f"{name}.weight", (width,), source=Derived(f"{name}.weight", plus_one=kind.plus_one).name)
        operands = [gamma, b.param(f"{name}.bias", (width,))] if kind.beta else [gamma]
        return b.op(kind.op, x, *operands, eps=kind.eps, name=name.rsplit(".", 1)[-1])

    def linear(
        self, x: Value, role: str, index: int, rows: int, bias: bool, part: str = "", of: Rows | None = None
    ) -> Value:
        """`part`: what the rows are called where the role's tensor has others too, `of`: which of it they are."""
        base, b = self.names.of(role, index), self.b
        name = f"{base}.{part}" if part else base
        source = Derived(f"{base}.weight", self.c.transposed, of).name
        w = b.param(f"{name}.weight", (rows, x.type.shape[-1]), source=source)
        if not bias:
            return b.linear(x, w)
        return b.linear(x, w, b.param(f"{name}.bias", (rows,), source=Derived(f"{base}.bias", rows=of).name))

    def projections(self, x: Value, a: Attention, index: int) -> list[Value]:
        """Queries, keys and values, (token, heads * head_dim) each."""
        sizes = {"q": a.heads * a.head_dim, "k": a.kv_heads * a.head_dim, "v": a.kv_heads * a.head_dim}
        if "qkv" not in self.names:
            return [self.linear(x, role, index, rows, a.bias) for role, rows in sizes.items()]
        blocks, starts, period = self.c.qkv.blocks, {}, 0
        for role in self.c.qkv.order:
            starts[role] = period
            period += sizes[role] // blocks
        parts = {role: Rows(starts[role], starts[role] + sizes[role] // blocks, period) for role in sizes}
        return [self.linear(x, "qkv", index, sizes[role], a.bias, role, parts[role]) for role in sizes]

    def attention(self, x: Value, a: Attention, index: int) -> Value:
        b, t, d = self.b, self.b.token, a.head_dim
        q, k, v = self.projections(x, a, index)
        if a.whole_norm:
            q, k = self.norm(q, "q_norm", index, a.qk_norm), self.norm(k, "k_norm", index, a.qk_norm)
        q = b.reshape(q, shape=(t, a.heads, d), name="q_heads")
        k = b.reshape(k, shape=(t, a.kv_heads, d), name="k_heads")
        if a.qk_norm and not a.whole_norm:
            q, k = self.norm(q, "q_norm", index, a.qk_norm), self.norm(k, "k_norm", index, a.qk_norm)
        if a.rotary:
            turn = {"rotary_dim": a.rotary.dim, "interleaved": a.rotary.interleaved}
            q = b.rope(q, self.rotary[a.rotary], **turn, name="q_rope")
            k = b.rope(k, self.rotary[a.rotary], **turn, name="k_rope")
        v = b.reshape(v, shape=(t, a.kv_heads, d), name="v_heads")
        k_cache = b.kv_append(b.kv(f"layers.{index}.k", (a.kv_heads, b.ctx, d)), k, name="k_append")
        v_cache = b.kv_append(b.kv(f"layers.{index}.v", (a.kv_heads, b.ctx, d)), v, name="v_append")
        seen = a.window if a.window < b.ctx else 0
        y = b.attention(q, k_cache, v_cache, scale=a.scale, window=seen, softcap=a.softcap, alibi=a.alibi,
                        alibi_scale=a.alibi_scale)  # (token, heads, d)  # fmt: skip
        y = b.reshape(y, shape=(t, a.heads * d), name="heads")
        return self.linear(y, "o", index, self.c.hidden_size, a.output_bias)

    def mlp(self, x: Value, m: Mlp, index: int) -> Value:
        if m.experts:
            return self.experts(x, m, index)
        up = self.up(x, "up", Rows(m.size, 2 * m.size, 2 * m.size), m, index)
        if m.gated:
            gate = self.up(x, "gate", Rows(0, m.size, 2 * m.size), m, index)
            h = self.b.mul(self.b.act(gate, fn=m.act), up, name="gated")  # (token, size)
        else:
            h = self.b.act(up, fn=m.act)
        return self.linear(h, "down", index, self.c.hidden_size, m.bias)

    def up(self, x: Value, role: str, rows: Rows, m: Mlp, index: int) -> Value:
        if "gate_up" in self.names:
            return self.linear(x, "gate_up", index, m.size, m.bias, role, rows)
        return self.linear(x, role, index, m.size, m.bias)

    def experts(self, x: Value, m: Mlp, index: int) -> Value:
        logits = self.linear(x, "router", index, m.experts, False)  # (token, experts)
        d = self.c.hidden_size
        shapes = {"gate": (m.size, d), "up": (m.size, d), "down": (d, m.size)}
        stacks = {role: self.stack(f"expert_{role}", index, m.experts, shape) for role, shape in shapes.items()}
        return self.b.moe(x, logits, **stacks, top_k=m.top_k, act=m.act, renormalize=m.renormalize)

    def stack(self, role: str, index: int, experts: int, shape: tuple[int, int]) -> Value:
        """One param of the matrices of all experts, (experts, rows, columns)."""
        name = f"{self.names.of(role, index)}.weight"
        parts = [name.replace("{}", str(expert)) for expert in range(experts)]
        return self.b.stacked_param(name.replace(".{}", ""), (experts, *shape), parts)
