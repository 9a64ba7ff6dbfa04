"""The graph of a decoder from its steps: one maker a kind of step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlavm.frontend.onnx_import.far import Far
from dlavm.frontend.onnx_import.flow import MISFITS, NotRecognised, Rows, reason
from dlavm.frontend.onnx_import.params import Param, Params
from dlavm.frontend.onnx_import.plan import Step
from dlavm.graph import Builder, Graph, Value
from dlavm.support.errors import DlavmError

THROUGH = ("act", "affine", "mul", "add", "norm", "same", "slice")  # behind the head, for its rows alone
ALIBI = 8.0

Maker = Callable[["Emitter", Step, list[Value]], Value]
Key = tuple[Any, bool]


class Emitter:
    """Emits steps with a Builder. `problems` are those that do not hold for the context."""

    def __init__(self, b: Builder, steps: dict[Any, Step], params: Params, far: Far) -> None:
        self.b, self.steps, self.params, self.far = b, steps, params, far
        self.problems: list[tuple[str, str, str]] = []
        self._made: dict[Key, Value | None] = {}  # None: what is behind a problem
        self._params: dict[str, Value] = {}
        self._caches: dict[Any, Value] = {}
        self._tables: dict[Any, Value] = {}
        self._sums = self._attentions = 0
        total = sum(s.op == "attention" for s in steps.values())
        sums = sum(s.op == "add" for s in steps.values())
        self._sums_per_layer = sums // total if total and sums % total == 0 else 0
        self._layers = total

    def graph(self, logits: Rows) -> Graph | None:
        """From the ids to logits (head_rows, vocabulary) and the greedy token; None where there are problems."""
        self.ids = self.b.input("ids", (self.b.token,), "i32")
        value = self.emit(logits)
        if value is None:
            return None
        return self.b.finish(logits=value, next=self.b.argmax(value, name="next"))

    def emit(self, logits: Rows) -> Value | None:
        """Operands before results, without recursion."""
        pending: list[Key] = [(logits.key, True)]
        while pending:
            key = pending[-1]
            if key in self._made:
                pending.pop()
                continue
            missing = [need for need in self._needs(key) if need not in self._made]
            if missing:
                pending += reversed(missing)
                continue
            pending.pop()
            self._made[key] = self._make(key)
        return self._made[logits.key, True]

    def _needs(self, key: Key) -> list[Key]:
        step, head = self.steps[key[0]], key[1]
        if not head or self._through(step):
            return [(o.key, head) for o in step.operands]
        return [(o.key, False) for o in step.operands] if step.op in ("linear", "last") else [(key[0], False)]

    def _through(self, step: Step) -> bool:
        """Whether a step behind the head takes the head's rows alone: all do where the file gives the last one only."""
        return step.op in THROUGH or (step.rows.count == 1 and step.op != "last")

    def _make(self, key: Key) -> Value | None:
        step, head = self.steps[key[0]], key[1]
        operands = [x for need in self._needs(key) if (x := self._made[need]) is not None]
        if len(operands) < len(self._needs(key)):
            return None
        if head and not self._through(step):
            operands = [self.b.last_rows(x, count=self.b.head_rows) for x in operands]
            if step.op != "linear":
                return operands[0]
        layer = self._layer()
        try:
            if layer is None:
                return MAKERS[step.op](self, step, operands)
            with self.b.scope(f"layer {layer}"):
                return MAKERS[step.op](self, step, operands)
        except (NotRecognised, DlavmError, *MISFITS) as error:
            self.problems.append((step.where, step.op, reason(error)))
            return None
        finally:
            self._sums += step.op == "add"
            self._attentions += step.op == "attention"

    def _layer(self) -> int | None:
        """The layer that a step is of: layers have equal numbers of residual sums. None behind the last."""
        layer = self._sums // self._sums_per_layer if self._sums_per_layer else self._attentions
        return layer if layer < self._layers and self._made else None

    def param(self, param: Param) -> Value:
        if param.name not in self._params:
            self._params[param.name] = self.b.param(param.name, param.shape)
        return self._params[param.name]

    def of(self, step: Step, role: str) -> Value | None:
        """A param of a step, None where it has none of that role."""
        found = self.params.of(step, role)
        return None if found is None else self.param(found)

    def needed(self, step: Step, role: str) -> Value:
        found = self.of(step, role)
        if found is None:
            raise NotRecognised(f"expected a tensor {role}")
        return found

    def table(self, step: Step) -> Value:
        """The rotary table of a rotation; equal ones are one."""
        rotation = step.attrs["rotation"]
        if step.attrs["mark"] is None:
            raise NotRecognised("expected a rotation of queries or keys")
        angles = self.far.angles(rotation, step.attrs["mark"])
        key = angles.frequencies.tobytes(), angles.scale
        if key not in self._tables:
            if angles.theta is not None and angles.scale == 1.0:
                self._tables[key] = self.b.rotary(2 * rotation.pairs, angles.theta)
            else:
                self._tables[key] = self.b.scaled_rotary(angles.frequencies, angles.scale)
        return self._tables[key]

    def cache(self, name: str, rows: Rows, value: Value, heads: int, size: int) -> Value:
        """The cache with the rows of a value behind it; the value of several attentions has one."""
        key = name.rsplit(".", 1)[1], rows.key
        if key not in self._caches:
            b, count = self.b, value.type.shape[0]
            split = b.reshape(value, shape=(count, heads, size), name=f"{key[0]}_heads")
            cache = b.kv(name, (heads, b.ctx, size))
            self._caches[key] = b.kv_append(cache, split, name=f"{key[0]}_append")
        return self._caches[key]

    @property
    def attentions(self) -> int:
        return self._attentions


def _embedding(e: Emitter, step: Step, operands: list[Value]) -> Value:
    return e.b.embedding(e.ids, e.needed(step, "table"))


def _linear(e: Emitter, step: Step, operands: list[Value]) -> Value:
    bias = e.of(step, "bias")
    return e.b.linear(operands[0], e.needed(step, "w"), bias=bias, scale=step.attrs["scale"])


def _norm(e: Emitter, step: Step, operands: list[Value]) -> Value:
    b, (x,) = e.b, operands
    count, columns = x.type.shape
    group, eps = step.attrs["group"], step.attrs["eps"]
    grouped = x if group == int(columns) else b.reshape(x, shape=(count, int(columns) // group, group))
    gamma, beta = e.needed(step, "gamma"), e.of(step, "beta")
    inside = beta if beta is None or int(beta.type.shape[0]) == group else None
    if step.attrs["centred"]:
        y = b.layer_norm(grouped, gamma, beta=inside, eps=eps, name="norm")
    else:
        y = b.rms_norm(grouped, gamma, eps=eps, name="norm")
        inside = None
    y = y if grouped is x else b.reshape(y, shape=(count, columns))
    factor = e.of(step, "factor")
    y = y if factor is None else b.mul(y, factor, name="norm_scale")
    return y if beta is None or inside is not None else b.add(y, beta, name="norm_bias")


def _act(e: Emitter, step: Step, operands: list[Value]) -> Value:
    b, a = e.b, step.attrs
    x = operands[0] if a["inner"] == 1.0 else b.scale(operands[0], value=a["inner"])
    y = b.act(x, fn=a["fn"])
    return y if a["outer"] == 1.0 else b.scale(y, value=a["outer"])


def _affine(e: Emitter, step: Step, operands: list[Value]) -> Value:
    b, (y,) = e.b, operands
    factor = step.attrs["factor"]
    if isinstance(factor, float):
        y = b.scale(y, value=factor)
    elif factor is not None:
        y = b.mul(y, e.needed(step, "factor"), name="scaled")
    table, bias = e.of(step, "positions"), e.of(step, "bias")
    if table is not None:
        expected, found = e.params.offset(step), e.far.row_offset(e.params.indices(step))
        if expected != found:
            raise NotRecognised(f"expected rows of its table {expected} behind positions, got {found}")
        y = b.add_positions(y, table, name="positions")
    return y if bias is None else b.add(y, bias, name="biased")


def _mul(e: Emitter, step: Step, operands: list[Value]) -> Value:
    return e.b.mul(*operands, name="gated")


def _add(e: Emitter, step: Step, operands: list[Value]) -> Value:
    return e.b.add(*operands, name="residual")


def _slice(e: Emitter, step: Step, operands: list[Value]) -> Value:
    return e.b.slice(operands[0], start=step.attrs["start"], size=step.attrs["size"])


def _same(e: Emitter, step: Step, operands: list[Value]) -> Value:
    return operands[0]


def _rope(e: Emitter, step: Step, operands: list[Value]) -> Value:
    b, (x,) = e.b, operands
    rotation = step.attrs["rotation"]
    count, columns = x.type.shape
    heads = b.reshape(x, shape=(count, int(columns) // rotation.size, rotation.size), name="rope_heads")
    turned = b.rope(heads, e.table(step), rotary_dim=2 * rotation.pairs, interleaved=rotation.interleaved)
    return b.reshape(turned, shape=(count, columns), name="rope_merged")


def _attention(e: Emitter, step: Step, operands: list[Value]) -> Value:
    b, a = e.b, step.attrs
    (q, k, v), size = operands, a["size"]
    layer, count = e.attentions, q.type.shape[0]
    q = b.reshape(q, shape=(count, a["heads"], size), name="q_heads")
    k_cache = e.cache(f"layers.{layer}.k", step.operands[1], k, a["kv_heads"], size)
    v_cache = e.cache(f"layers.{layer}.v", step.operands[2], v, a["kv_heads"], size)
    more: dict[str, Any] = {"window": e.far.window(a["masks"])}
    if a["softcap"]:
        more["softcap"] = a["softcap"]
    if a["alibi_scale"]:
        more |= {"alibi": ALIBI, "alibi_scale": a["alibi_scale"]}
    y = b.attention(q, k_cache, v_cache, scale=a["scale"], **more)
    return b.reshape(y, shape=(count, a["heads"] * size), name="heads")


MAKERS: dict[str, Maker] = {
    "embedding": _embedding, "linear": _linear, "norm": _norm, "act": _act, "affine": _affine, "mul": _mul, "add": _add,
    "slice": _slice, "same": _same, "rope": _rope, "attention": _attention,
}  # fmt: skip
