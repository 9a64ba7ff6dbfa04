"""The order of nodes that needs the least memory for activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from dlavm.graph import Graph, Node, Type
from dlavm.graph.analysis import scope_of
from dlavm.target.layout import MAX_TOKEN_TILE, row_bytes, score_columns
from dlavm.target.spec import TargetSpec

MOST_STATES = 5000  # of one scope, before its order is left as it is
VIEWS = ("reshape", "slice", "last_rows")  # the bytes of their operand
COMMANDS = {"linear": "LINEAR", "rms_norm": "NORM", "layer_norm": "NORM", "rope": "ROPE", "act": "ACT",
            "scale": "ELTWISE", "add": "ELTWISE", "mul": "ELTWISE", "add_positions": "ELTWISE"}  # fmt: skip
FIELDS = {"x": "src", "a": "src", "b": "b", "aux": "aux"}  # of the commands, by operand


@dataclass(frozen=True)
class OrderForMemory:
    """Puts the nodes of a scope (a layer) into the order with the lowest peak, found by looking at all of them, if that
    lowers the peak of the graph. Scopes below that peak stay as they are written; equal scopes get equal orders.

    Sizes are upper bounds: all tokens of a chunk. Counted are results and the scores of attention; not counted are
    results that can take the bytes of an operand, as `task/share.py` will decide, and outputs.
    """

    spec: TargetSpec
    name: str = "order_for_memory"

    def __call__(self, graph: Graph) -> Graph:
        scopes = list(_Scopes(graph, self.spec))
        before = [problem.peak(range(len(nodes))) for nodes, problem in scopes]
        orders = [best_order(problem) for _, problem in scopes]
        after = max((p.peak(order) for (_, p), order in zip(scopes, orders, strict=True)), default=0)
        nodes = [
            part[i]
            for (part, _), peak, order in zip(scopes, before, orders, strict=True)
            for i in (order if peak > after else range(len(part)))
        ]
        return replace(graph, nodes=tuple(nodes))


@dataclass(frozen=True)
class Problem:
    """The nodes of a scope by number, sets of them as bits. `needs`: those before a node. `scratch`: bytes that a node
    needs for itself. `buffers`: size, maker (-1: there before), readers, whether it is read later on. `heirs`: for each
    node the buffers whose bytes its result may take. `base`: bytes of what lives through all of it."""

    needs: tuple[int, ...]
    scratch: tuple[int, ...]
    buffers: tuple[tuple[int, int, int, bool], ...]
    heirs: tuple[tuple[int, ...], ...]
    base: int

    def live(self, done: int) -> int:
        """Bytes that are needed between nodes, when those of `done` have run."""
        return self.base + sum(
            size for size, maker, readers, stays in self.buffers
            if (maker < 0 or done >> maker & 1) and (stays or readers & ~done)
        )  # fmt: skip

    def during(self, done: int, node: int) -> int:
        """Bytes that are needed while a node runs."""
        made = sum(size for size, maker, _, _ in self.buffers if maker == node)
        for heir in self.heirs[node]:
            size, _, readers, stays = self.buffers[heir]
            if size == made and not stays and not readers & ~done & ~(1 << node):
                made = 0
        return self.live(done) + made + self.scratch[node]

    def peak(self, order: Sequence[int]) -> int:
        done, peak = 0, 0
        for node in order:
            peak = max(peak, self.during(done, node))
            done |= 1 << node
        return peak


@lru_cache(maxsize=256)
def best_order(problem: Problem) -> tuple[int, ...]:
    """An order with the lowest peak, of these the one closest to the given order; that one itself where there are too
    many ways. One set of nodes after another, each by its best way: what ran first does not matter to the rest."""
    count = len(problem.needs)
    level: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    states = 0
    for _ in range(count):
        following: dict[int, tuple[int, tuple[int, ...]]] = {}
        for done, (peak, order) in level.items():
            for node in _next(problem, done):
                found = (max(peak, problem.during(done, node)), (*order, node))
                after = done | 1 << node
                following[after] = min(following.get(after, found), found)
        level, states = following, states + len(following)
        if states > MOST_STATES:
            return tuple(range(count))
    return next(iter(level.values()))[1]


def _next(problem: Problem, done: int) -> list[int]:
    """The nodes that can run; one alone if it needs no room, since it only frees some."""
    ready = [i for i, needs in enumerate(problem.needs) if not done >> i & 1 and not needs & ~done]
    makers = {maker for size, maker, _, _ in problem.buffers if size}
    idle = [i for i in ready if i not in makers and not problem.scratch[i]]
    return idle[:1] or ready


class _Scopes:
    """Iterates over the scopes of a graph: their nodes and the problem of ordering them."""

    def __init__(self, graph: Graph, spec: TargetSpec) -> None:
        self._graph, self._spec = graph, spec
        self._buffer = _buffers(graph)  # of each value, by name
        self._last: dict[str, int] = {}  # place of the last node that reads a buffer
        for place, node in enumerate(graph.nodes):
            self._last.update((self._buffer[v.name], place) for v in node.inputs if v.name in self._buffer)
        self._outputs = {value.name for value in graph.outputs.values()}

    def __iter__(self) -> Iterator[tuple[list[Node], Problem]]:
        place, live = 0, 0  # bytes that live before the scope
        for _, group in groupby(self._graph.nodes, key=lambda node: scope_of(node)[:1]):
            nodes = list(group)
            place += len(nodes)
            problem = self._problem(nodes, place, live)
            live = problem.live((1 << len(nodes)) - 1)
            yield nodes, problem

    def _problem(self, nodes: Sequence[Node], end: int, live: int) -> Problem:
        """`end`: place of the node behind the scope."""
        made = {self._buffer[node.name]: i for i, node in enumerate(nodes) if self._buffer.get(node.name) == node.name}
        readers: dict[str, int] = dict.fromkeys(made, 0)
        for i, node in enumerate(nodes):
            for name in {self._buffer[v.name] for v in node.inputs if v.name in self._buffer}:
                readers[name] = readers.get(name, 0) | 1 << i
        numbers = {name: number for number, name in enumerate(readers)}
        buffers = tuple((self._bytes(name), made.get(name, -1), bits, self._last.get(name, -1) >= end)
                        for name, bits in readers.items())  # fmt: skip
        return Problem(
            needs=tuple(_needs(nodes)),
            scratch=tuple(self._scratch(node) for node in nodes),
            buffers=buffers,
            heirs=tuple(tuple(numbers[name] for name in self._heirs(node)) for node in nodes),
            base=live - sum(size for size, maker, _, _ in buffers if maker < 0),
        )

    def _bytes(self, name: str) -> int:
        return 0 if name in self._outputs else _placed_bytes(self._graph.values[name].type)

    def _heirs(self, node: Node) -> list[str]:
        """Buffers of operands that the node's command may overwrite with its result."""
        command = self._spec.commands.get(COMMANDS.get(node.op, ""))
        in_place = command.in_place if command else ()
        found = [(value, self._buffer.get(value.name)) for name, value in node.operands if FIELDS.get(name) in in_place]
        values = self._graph.values
        return [name for value, name in found if name and values[name].type.shape[0] == value.type.shape[0]]

    def _scratch(self, node: Node) -> int:
        """The scores and sums of attention, for the tokens that are taken at once."""
        if node.op != "attention":
            return 0
        rows, heads, _ = node["q"].type.shape
        ctx = int(node["k_cache"].type.shape[1])
        tokens = min(rows.hi, MAX_TOKEN_TILE) if self._spec.has("token_batch") else 1
        columns = score_columns(ctx, int(node.number("window")), tokens)
        return int(heads) * tokens * (row_bytes(columns) + 4)


def _buffers(graph: Graph) -> dict[str, str]:
    """The value whose bytes each activation has: itself, or what it is a view of."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        if node.output.role == "activation":
            found[node.name] = found.get(node["x"].name, node.name) if node.op in VIEWS else node.name
    return found


def _placed_bytes(type_: Type) -> int:
    """As lowering places a result: rows, and heads of rows, begin at multiples of 16 bytes."""
    *outer, dim = type_.shape
    rows = 1
    for extent in outer:
        rows *= extent.hi
    return rows * row_bytes(dim.hi) if outer else 4 * dim.hi


def _needs(nodes: Sequence[Node]) -> Iterator[int]:
    """What must run before each node: what makes its operands, and what reads or writes a cache before it changes."""
    maker: dict[str, int] = {}
    users: dict[str, int] = {}  # of a cache
    for i, node in enumerate(nodes):
        bits = 0
        for value in node.inputs:
            bits |= 1 << maker[value.name] if value.name in maker else 0
            if value.role == "kv":
                bits |= users.get(value.source, 0) if node.op == "kv_append" else 0
                users[value.source] = users.get(value.source, 0) | 1 << i
        maker[node.name] = i
        yield bits
