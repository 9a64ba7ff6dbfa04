"""The order of nodes that needs the least memory for activations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, groupby
from typing import NamedTuple

from dlavm.graph import Graph, Node, Type
from dlavm.graph.analysis import scope_of
from dlavm.target.layout import attention_tile, row_bytes, score_columns
from dlavm.target.spec import TargetSpec

MOST_STATES = 5000  # of one piece, before its order is left as it is
MOST_NODES = 64  # the same
VIEWS = ("reshape", "slice", "last_rows")  # the bytes of their operand
COMMANDS = {"linear": "LINEAR", "rms_norm": "NORM", "layer_norm": "NORM", "rope": "ROPE", "act": "ACT",
            "scale": "ELTWISE", "add": "ELTWISE", "mul": "ELTWISE", "add_positions": "ELTWISE"}  # fmt: skip
FIELDS = {"x": "src", "a": "src", "b": "b", "aux": "aux"}  # of the commands, by operand


@dataclass(frozen=True)
class OrderForMemory:
    """Puts the nodes of a piece into an order with a lower peak, where that lowers the peak of the graph; found by
    looking at all orders. Pieces below that peak stay as they are written; equal pieces get equal orders.

    A piece is a scope (a layer), or a part of it between nodes that everything before leads to and everything behind
    needs. Sizes are upper bounds: all tokens of a chunk. Counted are results and the scores of attention; not counted
    are results that can take the bytes of an operand, as `task/share.py` will decide, and outputs.
    """

    spec: TargetSpec
    name: str = "order_for_memory"

    def __call__(self, graph: Graph) -> Graph:
        pieces = list(_Pieces(graph, self.spec))
        bases: dict[Problem, int] = {}
        for piece in pieces:
            bases[piece.problem] = max(bases.get(piece.problem, 0), piece.base)
        goal = lowest_peak(bases)
        orders = {problem: problem.written if base + problem.peak() <= goal else best_order(problem, goal - base)
                  for problem, base in bases.items()}  # fmt: skip
        return replace(graph, nodes=tuple(piece.nodes[i] for piece in pieces for i in orders[piece.problem]))


class Buffer(NamedTuple):
    """Bytes of a result: the node that makes it (-1: there before), those that read it, whether it is read later on."""

    size: int
    maker: int
    readers: tuple[int, ...]
    stays: bool


@dataclass(frozen=True)
class Problem:
    """The nodes of a piece by number. `needs`: those that must run before a node. `scratch`: bytes that it needs for
    itself. `heirs`: the buffers whose bytes its result may take."""

    needs: tuple[tuple[int, ...], ...]
    scratch: tuple[int, ...]
    buffers: tuple[Buffer, ...]
    heirs: tuple[tuple[int, ...], ...]

    @property
    def written(self) -> tuple[int, ...]:
        return tuple(range(len(self.needs)))

    @cached_property
    def reads(self) -> tuple[tuple[int, ...], ...]:
        """The buffers that each node reads."""
        return _inverse((buffer.readers for buffer in self.buffers), len(self.needs))

    @cached_property
    def makes(self) -> tuple[tuple[int, ...], ...]:
        """The buffers that each node makes."""
        return _inverse(((b.maker,) if b.maker >= 0 else () for b in self.buffers), len(self.needs))

    def peak(self, order: Sequence[int] | None = None) -> int:
        """The most bytes in use, beside those that live through all of it; None: in the order as written."""
        memory, peak = _Memory(self), 0
        for node in self.written if order is None else order:
            peak = max(peak, memory.during(node))
            memory.run(node)
        return peak


def _inverse(rows: Iterable[Sequence[int]], count: int) -> tuple[tuple[int, ...], ...]:
    found: list[list[int]] = [[] for _ in range(count)]
    for number, row in enumerate(rows):
        for i in row:
            found[i].append(number)
    return tuple(map(tuple, found))


class _Memory:
    """The bytes in use when some nodes have run, and how many readers each buffer still waits for."""

    def __init__(self, problem: Problem, live: int | None = None, left: Sequence[int] | None = None) -> None:
        self._problem = problem
        self.live = sum(b.size for b in problem.buffers if b.maker < 0) if live is None else live
        self._left = [len(b.readers) for b in problem.buffers] if left is None else list(left)

    def copy(self) -> _Memory:
        return _Memory(self._problem, self.live, self._left)

    def during(self, node: int) -> int:
        """Bytes in use while a node runs."""
        p = self._problem
        made = sum(p.buffers[b].size for b in p.makes[node])
        for heir in p.heirs[node]:
            if p.buffers[heir].size == made and not p.buffers[heir].stays and self._left[heir] == 1:
                made = 0
        return self.live + made + p.scratch[node]

    def run(self, node: int) -> None:
        p = self._problem
        for b in p.makes[node]:
            self.live += p.buffers[b].size if p.buffers[b].readers or p.buffers[b].stays else 0
        for b in p.reads[node]:
            self._left[b] -= 1
            self.live -= p.buffers[b].size if not self._left[b] and not p.buffers[b].stays else 0


def lowest_peak(bases: Mapping[Problem, int]) -> int:
    """The lowest peak of a graph of such pieces, above what lives through each of them. Those with the highest peak as
    written are looked at first; most others are below what comes out."""
    goal = 0
    written = {problem: base + problem.peak() for problem, base in bases.items()}
    for problem, peak in sorted(written.items(), key=lambda item: -item[1]):
        if peak > goal:
            goal = max(goal, bases[problem] + problem.peak(best_order(problem)))
    return goal


def best_order(problem: Problem, goal: int = 0) -> tuple[int, ...]:
    """Of the orders with a peak up to `goal` the one closest to the order as written, but that nodes which need no room
    run as soon as they can; an order with the lowest peak if that is higher; that as written where there are too many.

    One set of nodes after another, each by its best way: what ran first does not matter to the rest.
    """
    if len(problem.needs) > MOST_NODES:
        return problem.written
    needs = [sum(1 << i for i in before) for before in problem.needs]
    idle = [not problem.scratch[i] and not any(problem.buffers[b].size for b in made)
            for i, made in enumerate(problem.makes)]  # fmt: skip
    level: dict[int, tuple[tuple[int, tuple[int, ...]], _Memory]] = {0: ((goal, ()), _Memory(problem))}
    states = 0
    for _ in needs:
        following: dict[int, tuple[tuple[int, tuple[int, ...]], _Memory]] = {}
        for done, ((peak, order), memory) in level.items():
            for node in _next(needs, idle, done):
                way, after = (max(peak, memory.during(node)), (*order, node)), done | 1 << node
                if after in following:
                    following[after] = min(following[after][0], way), following[after][1]
                    continue
                following[after] = way, memory.copy()
                following[after][1].run(node)
            if states + len(following) > MOST_STATES:
                return problem.written
        level, states = following, states + len(following)
    return next(iter(level.values()))[0][1]


def _next(needs: Sequence[int], idle: Sequence[bool], done: int) -> list[int]:
    """The nodes that can run; one alone if it needs no room, since it only frees some."""
    ready = [i for i, before in enumerate(needs) if not done >> i & 1 and not before & ~done]
    return [i for i in ready if idle[i]][:1] or ready


class Piece(NamedTuple):
    """Nodes that follow each other, the problem of ordering them, and the bytes that live through all of it."""

    nodes: list[Node]
    problem: Problem
    base: int


class _Pieces:
    """Iterates over the pieces of a graph."""

    def __init__(self, graph: Graph, spec: TargetSpec) -> None:
        self._graph, self._spec = graph, spec
        self._buffer = _buffers(graph)  # of each value, by name
        self._last: dict[str, int] = {}  # place of the last node that reads a buffer
        for place, node in enumerate(graph.nodes):
            self._last.update((self._buffer[v.name], place) for v in node.inputs if v.name in self._buffer)
        self._outputs = {value.name for value in graph.outputs.values()}

    def __iter__(self) -> Iterator[Piece]:
        place, live = 0, 0  # bytes that live before the piece
        for _, group in groupby(self._graph.nodes, key=lambda node: scope_of(node)[:1]):
            for nodes in _parts(list(group)):
                place += len(nodes)
                problem = self._problem(nodes, place)
                base = live - sum(b.size for b in problem.buffers if b.maker < 0)
                live = base + sum(b.size for b in problem.buffers if b.stays)
                yield Piece(nodes, problem, base)

    def _problem(self, nodes: Sequence[Node], end: int) -> Problem:
        """`end`: place of the node behind the piece."""
        made = {self._buffer[node.name]: i for i, node in enumerate(nodes) if self._buffer.get(node.name) == node.name}
        readers: dict[str, list[int]] = {name: [] for name in made}
        for i, node in enumerate(nodes):
            for name in dict.fromkeys(self._buffer[v.name] for v in node.inputs if v.name in self._buffer):
                readers.setdefault(name, []).append(i)
        numbers = {name: number for number, name in enumerate(readers)}
        return Problem(
            needs=tuple(_needs(nodes)),
            scratch=tuple(self._scratch(node) for node in nodes),
            buffers=tuple(Buffer(self._bytes(name), made.get(name, -1), tuple(places), self._last.get(name, -1) >= end)
                          for name, places in readers.items()),
            heirs=tuple(tuple(numbers[name] for name in self._heirs(node)) for node in nodes),
        )  # fmt: skip

    def _bytes(self, name: str) -> int:
        return 0 if name in self._outputs else _placed_bytes(self._graph.values[name].type)

    def _heirs(self, node: Node) -> list[str]:
        """Buffers of operands that the node may overwrite with its result: those that its command reads once, row by
        row, and queries of which nothing is needed behind the scores."""
        command = self._spec.commands.get(COMMANDS.get(node.op, ""))
        in_place = command.in_place if command else ()
        untiled = node.op == "attention" and self._tile(node) >= node["q"].type.shape[0].hi
        if not in_place and not untiled:
            return []
        names = [self._buffer.get(value.name, "") for value in node.inputs]
        values = self._graph.values
        return [name for (operand, value), name in zip(node.operands, names, strict=True)
                if name and (untiled or FIELDS.get(operand) in in_place) and names.count(name) == 1
                and values[name].type.shape[0] == value.type.shape[0]]  # fmt: skip

    def _scratch(self, node: Node) -> int:
        """The scores and sums of attention; the choice of experts, and what is between the products of one."""
        if node.op == "moe":
            chosen = node["logits"].type.shape[0].hi * int(node.number("top_k"))
            return 2 * row_bytes(chosen, 4) + row_bytes(int(node["gate"].type.shape[1]))
        if node.op != "attention":
            return 0
        tokens = self._tile(node)
        columns = score_columns(int(node["k_cache"].type.shape[1]), int(node.number("window")), tokens)
        rows = int(node["q"].type.shape[1]) * tokens
        return rows * row_bytes(columns) + row_bytes(rows, 4)

    def _tile(self, node: Node) -> int:
        """Tokens that an attention takes at once."""
        tokens, heads, dim = node["q"].type.shape
        group = int(heads) // int(node["k_cache"].type.shape[0])
        most = attention_tile(self._spec.board, group, int(dim), tokens.hi)
        return most if self._spec.has("token_batch") else min(1, most)


def _parts(nodes: list[Node]) -> Iterator[list[Node]]:
    """A scope in parts: each ends with a node that all before it lead to and all behind it need."""
    needs = list(_needs(nodes))
    followed = [len(nodes)] * len(nodes)  # by the first node that needs it
    for i, before in enumerate(needs):
        for j in before:
            followed[j] = min(followed[j], i)
    latest = [max(before, default=-1) for before in needs]  # of those that a node needs
    behind = [*accumulate(reversed(latest[1:]), min)][::-1] + [len(nodes)]
    start = 0
    for i, first in enumerate(accumulate([0, *followed[:-1]], max)):
        if first <= i <= behind[i]:
            yield nodes[start : i + 1]
            start = i + 1
    if start < len(nodes):
        yield nodes[start:]


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


def _needs(nodes: Sequence[Node]) -> Iterator[tuple[int, ...]]:
    """What must run before each node: what makes its operands, and what reads or writes a cache before it changes."""
    maker: dict[str, int] = {}
    users: dict[str, list[int]] = {}  # of a cache
    for i, node in enumerate(nodes):
        before = [maker[value.name] for value in node.inputs if value.name in maker]
        for value in node.inputs:
            if value.role == "kv":
                before += users.get(value.source, []) if node.op == "kv_append" else []
                users.setdefault(value.source, []).append(i)
        maker[node.name] = i
        yield tuple(sorted({*before} - {i}))
