"""Random graphs that every target can compile: small tensors; every op but those that the embedding stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlavm.graph import Builder, Graph, Value
from dlavm.passes import Dce, MaterialiseViews, QuantizeWeights

VOCAB, CTX, CHUNK = 11, 12, 6
HEAD, KV_HEADS = 16, 2
DIMS = (32, 48, 160)  # multiples of the cached row; of more and of less than a group of 128 weights
FUNCTIONS = ("silu", "tanh", "relu")


@st.composite
def lowerable_graphs(
    draw: st.DrawFn, scopes: int = 3, nodes: int = 5, formats: Sequence[str] = ("int4g128",)
) -> Graph:
    """Values of (token, dim) that read each other, in up to `scopes` scopes of up to `nodes` steps each; the last
    rows of one go through a head. Behind the passes that lowering needs, without code that nobody needs; weights in
    one of `formats`."""
    b = Builder("random", ctx=CTX, chunk=CHUNK)
    made = _Maker(draw, b)
    for layer in range(draw(st.integers(1, scopes))):
        with b.scope(f"layer {layer}"):
            for _ in range(draw(st.integers(1, nodes))):
                made.step()
    logits = b.linear(b.last_rows(made.values[-1], count=b.head_rows), made.weight(24, made.values[-1]))
    outputs = {"logits": logits, "next": b.argmax(logits)}
    if draw(st.booleans()):
        outputs["early"] = b.copy(draw(st.sampled_from(made.values)))
    graph = b.finish(**outputs)
    for pass_ in (Dce(), QuantizeWeights(draw(st.sampled_from(formats))), MaterialiseViews()):
        graph = pass_(graph)
    return graph


def random_params(graph: Graph, seed: int = 1) -> Mapping[str, NDArray[np.float16]]:
    """Tensors by the names of the checkpoint, small enough that products stay in range."""
    rng = np.random.default_rng(seed)
    return {p.source: (rng.standard_normal([int(e) for e in p.type.shape]) / 4).astype(np.float16)
            for p in graph.params}  # fmt: skip


class _Maker:
    """Appends one op after another to `values`."""

    def __init__(self, draw: st.DrawFn, b: Builder) -> None:
        self.draw, self.b = draw, b
        self.params: dict[tuple[str, tuple[int, ...]], Value] = {}
        self.rotary = b.rotary(HEAD)
        self.caches = [b.kv(name, (KV_HEADS, CTX, HEAD)) for name in ("k", "v")]
        table = self.param("embed", VOCAB, self.pick(*DIMS))
        self.values = [b.embedding(b.input("ids", (b.token,), "i32"), table)]

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def param(self, name: str, *shape: int) -> Value:
        if (name, shape) not in self.params:
            self.params[name, shape] = self.b.param(".".join(map(str, (name, *shape))), shape)
        return self.params[name, shape]

    def weight(self, n: int, x: Value) -> Value:
        return self.param(self.pick("w", "u"), n, dim(x))

    def step(self) -> None:
        x = self.draw(st.sampled_from(self.values[-4:]))
        like = [value for value in self.values if value.type == x.type]
        steps: list[Callable[[Value, Value], Value | None]] = [
            self.linear, self.linear, self.linear_aux, self.linear_aux, self.norm, self.norm, self.vector, self.vector,
            self.binary, self.binary, self.rope, self.part, self.append, self.attend, self.attend,
        ]  # fmt: skip
        made = self.pick(*steps)(x, self.draw(st.sampled_from(like)))
        self.values += [made] if made is not None else []

    def linear(self, x: Value, _: Value) -> Value:
        n = self.pick(*DIMS)
        bias = self.pick(None, self.param("bias", n))
        return self.b.linear(x, self.weight(n, x), **({"bias": bias} if bias else {}), act=self.pick("none", "silu"),
                             scale=self.pick(1.0, 0.5))  # fmt: skip

    def linear_aux(self, aux: Value, _: Value) -> Value:
        x = self.draw(st.sampled_from(self.values))
        return self.b.linear(x, self.weight(dim(aux), x), aux=aux, aux_mode=self.pick("add", "mul"),
                             act=self.pick("none", "tanh"))  # fmt: skip

    def norm(self, x: Value, _: Value) -> Value:
        gamma = self.param("gamma", dim(x))
        if self.pick(True, False):
            return self.b.rms_norm(x, gamma, eps=1e-5)
        beta = self.pick({}, {"beta": self.param("beta", dim(x))})
        return self.b.layer_norm(x, gamma, **beta, eps=1e-5)

    def vector(self, x: Value, _: Value) -> Value:
        return self.pick(lambda: self.b.act(x, fn=self.pick(*FUNCTIONS)), lambda: self.b.scale(x, value=0.5),
                         lambda: self.b.copy(x))()  # fmt: skip

    def binary(self, x: Value, y: Value) -> Value:
        second = self.pick(y, y, self.param("row", dim(x)))
        positions = self.param("positions", CTX, dim(x))
        return self.pick(lambda: self.b.add(x, second), lambda: self.b.mul(x, second),
                         lambda: self.b.add_positions(x, positions))()  # fmt: skip

    def rope(self, x: Value, _: Value) -> Value:
        return self.rows(self.b.rope(self.heads(x), self.rotary, rotary_dim=HEAD, interleaved=self.pick(True, False)))

    def part(self, x: Value, _: Value) -> Value | None:
        """Some elements of the rows: the same bytes."""
        return self.b.slice(x, start=8 * self.pick(0, 1, 2), size=32) if dim(x) > 32 + 16 else None

    def append(self, x: Value, _: Value) -> None:
        """The first elements of the rows go into one of the caches."""
        cache = self.pick(0, 1)
        new = x if dim(x) == KV_HEADS * HEAD else self.b.slice(x, start=0, size=KV_HEADS * HEAD)
        self.caches[cache] = self.b.kv_append(self.caches[cache], self.heads(new))

    def attend(self, x: Value, y: Value) -> Value | None:
        if self.pick(True, True, False):
            self.append(y, y)
        if dim(x) // HEAD % KV_HEADS:
            return None
        mask = {"window": self.pick(0, 0, 5), "alibi": self.pick(0.0, 0.0, 8.0), "softcap": self.pick(0.0, 30.0)}
        return self.rows(self.b.attention(self.heads(x), *self.caches, scale=0.25, **mask))

    def heads(self, x: Value) -> Value:
        return self.b.reshape(x, shape=(self.b.token, dim(x) // HEAD, HEAD))

    def rows(self, x: Value) -> Value:
        return self.b.reshape(x, shape=(self.b.token, int(x.type.shape[1]) * HEAD))


def dim(x: Value) -> int:
    return int(x.type.shape[-1])
