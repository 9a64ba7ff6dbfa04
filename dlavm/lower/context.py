"""What lowering rules share: where each graph value lies (`Rows`), the buffers, the task builder."""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dlavm.formats import FORMATS
from dlavm.graph import Graph, Node, Value
from dlavm.lower.tiling import Choice, Tiling, choose_tiling
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, IntoExpr, le, wrap
from dlavm.target import TargetSpec
from dlavm.target.layout import KV_FORMATS, KvLayout, PackedWeights, row_bytes
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task import Buffer, Program, TaskBuilder

BATCH_INPUTS = ("kv_lens", "kv_bases")


@dataclass(frozen=True)
class Rows:
    """A tensor as the engines see it: row (o, i), o < outer, i < inner, of `dim` elements starts at
    base + o * outer_stride + i * inner_stride (16-byte units)."""

    base: Expr
    outer: Expr
    outer_stride: int
    inner: int
    inner_stride: int
    dim: int

    def at(self, outer: IntoExpr, count: IntoExpr) -> Rows:
        """`count` outer rows from row `outer` on."""
        return replace(self, base=self.base + wrap(outer) * self.outer_stride, outer=wrap(count))

    def fields(self, name: str) -> dict[str, IntoExpr]:
        """Address fields of a row set called `name` in the commands."""
        return {name: self.base, f"{name}_so": self.outer_stride, f"{name}_si": self.inner_stride}

    def counts(self) -> dict[str, IntoExpr]:
        return {"rows_o": self.outer, "rows_i": self.inner}


@dataclass(frozen=True)
class Part:
    """Tokens first .. first + count - 1 of a step, which follow the `kv_len` cached tokens of one sequence; its caches
    are `kv_base` address units behind those of the first sequence."""

    first: Expr
    count: Expr
    kv_len: Expr
    kv_base: Expr


@dataclass(frozen=True)
class Content:
    """What the packer puts into a constant buffer: kind `packed` (`count` PackedWeights of the value in its own format,
    one behind the other), `rows` (fp16 rows at row_bytes), `index` (u32 below dims[0]), `activation` (table of that
    name), `floats` (fp32 `values`). `dims`: rows and columns of matrices."""

    kind: str
    name: str
    dims: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    count: int = 1


@dataclass(frozen=True)
class HostInput:
    """A buffer that the host writes before a step: u32 ids, or the fp16 rows of the param `table` that they choose."""

    buffer: str
    rows: Rows
    table: str = ""


@dataclass(frozen=True)
class Lowered:
    """A task program, what its constant buffers hold, the buffer behind each input and cache, the rows of the outputs
    that the device computes, how its linears are tiled."""

    program: Program
    contents: Mapping[str, Content]
    inputs: Mapping[str, HostInput]
    outputs: Mapping[str, Rows]
    kv: Mapping[str, KvLayout]
    choices: tuple[Choice, ...] = ()


def _cache_layout(value: Value, spec: TargetSpec) -> KvLayout:
    heads, ctx, dim = (int(x) for x in value.type.shape)
    form = next((name for name, form in KV_FORMATS.items() if form.dtype == value.type.dtype), "fp16")
    return KvLayout(heads, ctx, dim, form, spec.space("kv"))


def buffer_name(text: str) -> str:
    """`text` with what a buffer's name cannot have replaced: softcap(30.0) becomes softcap_30.0."""
    return re.sub(r"[^\w.\-]+", "_", text, flags=re.ASCII).strip("_")


class Context:
    """State of one lowering; rules call it to place values and to launch commands.

    `batch`: the tokens of a step belong to as many sequences, whose cached tokens and distances of caches the host
    writes to the inputs `kv_lens` and `kv_bases`, instead of the arguments kv_len and kv_base.
    """

    def __init__(self, graph: Graph, spec: TargetSpec, batch: bool = False) -> None:
        self.graph, self.spec, self.batch = graph, spec, batch
        token, kv_len, head_rows = (graph.variables[n] for n in ("token", "kv_len", "head_rows"))
        args = [v for v in ((token, head_rows) if batch else (token, kv_len, head_rows)) if v.op == "var"]
        fits = () if batch else (le(kv_len + token, int(str(graph.meta["ctx"]))),)
        self.tasks = TaskBuilder(graph.name, args, (le(head_rows, token), *fits), spec.commands)
        # From the caches of the first sequence to those of the step's, in address units.
        has_base = bool(graph.kv) and not batch
        self.kv_base = self.tasks.arg("kv_base", 0, self._last_kv_base()) if has_base else wrap(0)
        self.contents: dict[str, Content] = {}
        self.kv: dict[str, KvLayout] = {}
        self.act_slots: dict[str, int] = {}
        self.choices: list[Choice] = []
        self.inputs: dict[str, HostInput] = {}
        self._tilings: dict[tuple[PackedWeights, int], Tiling] = {}
        self._rows: dict[str, Rows] = {}
        self._buffers: dict[str, Buffer] = {}
        self._outputs = {v.name for v in graph.outputs.values()}

    def _last_kv_base(self) -> int:
        """The last sequence's caches end with the memory at the latest."""
        one = sum(_cache_layout(value, self.spec).bytes for value in self.graph.kv)
        return max(1, (self.spec.space("kv").capacity - one) // ADDRESS_UNIT)

    def sequences(self, tokens: Expr) -> Iterator[Part]:
        """The tokens of a step in parts of one sequence each; a loop where there are several."""
        if not self.batch:
            yield Part(wrap(0), tokens, self.variable("kv_len"), self.kv_base)
            return
        size = 4 * self.variable("token").hi
        lens, bases = (self.storage(name, "input", size, f"u32[{tokens}]") for name in BATCH_INPUTS)
        with self.tasks.loop("s", tokens) as s:
            kv_len = self.tasks.load("kv_len", lens, s, 0, self.variable("kv_len").hi)
            kv_base = self.tasks.load("kv_base", bases, s, 0, self._last_kv_base())
            yield Part(s, wrap(1), kv_len, kv_base)

    def variable(self, name: str) -> Expr:
        return self.graph.variables[name]

    # -- placing values --------------------------------------------------------------------------------------------

    def rows(self, value: Value) -> Rows:
        """Where a value lies. Raises DlavmError for a value that was never placed."""
        if value.name not in self._rows:
            raise DlavmError(f"{value.name}: not placed before its use (role {value.role})")
        return self._rows[value.name]

    def flat(self, value: Value) -> Rows:
        """The value as single rows (inner = 1): a multi-head tensor whose heads lie side by side counts as one row."""
        r = self.rows(value)
        if r.inner == 1:
            return r
        if r.inner_stride * ADDRESS_UNIT != 2 * r.dim:
            raise DlavmError(f"{value.name}: heads of {r.dim} elements do not lie side by side (16-byte rows)")
        return replace(r, inner=1, inner_stride=0, dim=r.inner * r.dim)

    def bind(self, value: Value, rows: Rows) -> None:
        """Makes a value a view of existing bytes."""
        self._rows[value.name] = rows

    def place(self, value: Value) -> Rows:
        """New storage for a node's output [outer, (inner,) dim], fp16."""
        shape = value.type.shape
        outer, dim = shape[0], int(shape[-1])
        inner = int(shape[1]) if len(shape) == 3 else 1
        stride = row_bytes(dim) if inner > 1 else 0
        outer_bytes = inner * stride if inner > 1 else row_bytes(dim)
        role = "output" if value.name in self._outputs else "activations"
        base = self.storage(value.name, role, outer.hi * outer_bytes, str(value.type))
        rows = Rows(base, outer, outer_bytes // ADDRESS_UNIT, inner, stride // ADDRESS_UNIT, dim)
        self._rows[value.name] = rows
        return rows

    def storage(self, name: str, role: str, size: int, shape_text: str) -> Expr:
        """A buffer of `size` bytes (made once per name); returns its base."""
        if name not in self._buffers:
            self._buffers[name] = self.tasks.buffer(name, role, max(size, ADDRESS_UNIT), shape_text)
        return self._buffers[name].base

    def input(self, ids: Value) -> Expr:
        """Address of the token ids, (token,) u32."""
        tokens = ids.type.shape[0]
        base = self.storage(ids.name, "input", 4 * tokens.hi, str(ids.type))
        self.inputs[ids.name] = HostInput(ids.name, Rows(base, tokens, 0, 1, 0, 1))
        return base

    def host_rows(self, node: Node) -> Rows:
        """Rows of the node's table that the host gathers: fp16 (token, dim). Raises DlavmError for a second table."""
        tokens, dim = node.output.type.shape
        name, stride = f"{node.name}.rows", row_bytes(int(dim))
        known = self.inputs.get(node["ids"].name)
        if known:
            raise DlavmError(f"{node}: expected one embedding of {node['ids'].name}, whose rows the host of "
                             f"{self.spec.name} takes, got those of {known.table} and of {node['table'].name}")
        base = self.storage(name, "input", tokens.hi * stride, str(node.output.type))
        rows = Rows(base, tokens, stride // ADDRESS_UNIT, 1, 0, int(dim))
        self.inputs[node["ids"].name] = HostInput(name, rows, node["table"].name)
        return rows

    def placed(self, value: Value) -> bool:
        """Whether the device has the value."""
        return value.name in self._rows

    def vector(self, value: Value) -> Expr:
        """Address of a constant fp16 vector (norm weights, biases)."""
        size = int(value.type.shape[0])
        self.contents[value.name] = Content("rows", value.name, (1, size))
        return self.storage(value.name, "weights", row_bytes(size), str(value.type))

    def table(self, value: Value) -> Rows:
        """A constant fp16 matrix, row by row: the embedding (role weights) or a table that the compiler computes."""
        rows, dim = (int(x) for x in value.type.shape)
        role = "weights" if value.role == "param" else "tables"
        self.contents[value.name] = Content("rows", value.name, (rows, dim))
        base = self.storage(value.name, role, rows * row_bytes(dim), str(value.type))
        return Rows(base, wrap(rows), row_bytes(dim) // ADDRESS_UNIT, 1, 0, dim)

    def index(self, value: Value) -> Expr:
        """Address of a constant vector of indices into itself, u32."""
        size = int(value.type.shape[0])
        self.contents[value.name] = Content("index", value.name, (size,))
        return self.storage(value.name, "weights", 4 * size, str(value.type))

    def floats(self, what: str, values: tuple[float, ...]) -> Expr:
        """Address of fp32 numbers that the compiler computes; `what` names them."""
        name = buffer_name(what)
        self.contents[name] = Content("floats", name, values=values)
        return self.storage(name, "tables", 4 * len(values), f"f32[{len(values)}]")

    def weights(self, value: Value, node: Node) -> tuple[Expr, PackedWeights]:
        """Address of a packed weight matrix [n, k], or of the first of those in [e, n, k], which lie `bytes` of one
        apart. Raises DlavmError where it was not quantised, or to a format that the target does not have."""
        format = FORMATS.get(value.type.dtype)
        if format is None or not self.spec.has(format.name):
            have = ", ".join(name for name in FORMATS if self.spec.has(name))
            raise DlavmError(f"{node}: weight {value.name}: {self.spec.name} expected one of {have}, "
                             f"got {value.type.dtype!r}")
        *front, n, k = (int(x) for x in value.type.shape)
        packed, count = PackedWeights(self.spec.space("weights"), n, k, format), math.prod(front)
        self.contents[value.name] = Content("packed", value.name, (n, k), count=count)
        return self.storage(value.name, "weights", count * packed.bytes, str(value.type)), packed

    def tiling(self, packed: PackedWeights, tokens: int) -> Tiling:
        """How a product with a matrix is cut for up to `tokens` tokens; it is written down for `Lowered`."""
        if (packed, tokens) not in self._tilings:
            self._tilings[packed, tokens] = choose_tiling(self.spec, packed, tokens)
        self.choices.append(Choice(self.tasks.where, packed, tokens, self._tilings[packed, tokens]))
        return self._tilings[packed, tokens]

    def cache(self, value: Value, node: Node) -> tuple[Expr, KvLayout]:
        """The cache behind a kv value, one buffer for all of its SSA versions; its base in the first sequence. Raises
        DlavmError for a format that the target does not have."""
        layout = self.kv.setdefault(value.source, _cache_layout(value, self.spec))
        if not self.spec.has(f"kv_{layout.format}"):
            have = ", ".join(name for name in KV_FORMATS if self.spec.has(f"kv_{name}"))
            raise DlavmError(f"{node}: cache {value.source}: {self.spec.name} expected one of {have}, "
                             f"got {layout.format!r}")
        return self.storage(value.source, "kv", layout.bytes, str(value.type)), layout

    def act_slot(self, fn: str, node: Node) -> int:
        """The table slot of an activation; its LOAD_TABLE stands at the start of the program."""
        if fn not in self.act_slots and len(self.act_slots) >= self.spec.limits["act_slots"]:
            raise DlavmError(f"{node}: activation {fn!r} is one too many, {self.spec.name} holds "
                             f"{self.spec.limits['act_slots']} tables: {sorted(self.act_slots)}")
        return self.act_slots.setdefault(fn, len(self.act_slots))
