"""The order of commands that keeps the engines busy: list scheduling of every body of a task program.

A body is a list of nodes: commands, blocks as a whole, and runs of LINEARs that hand accumulators on. A node needs
those before it that write what it reads or writes, or read what it writes, buffer by buffer. Each engine runs one node
at a time, in the order of the stream; a block has all engines that occur in it. Time is that of `Cost`. Whenever an
engine is free it takes, of the nodes that are ready, the one with the longest way to the end of the body behind it.
The stream has the nodes in the order of their begins; of two that begin together the longer one stands first, so that
what the other one frees is not written meanwhile.

Statements that define something for those behind them, fences and tables stay where they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dlavm.schedule.cost import Cost
from dlavm.sym import wrap
from dlavm.target import TargetSpec
from dlavm.task import Await, For, If, Launch, Load, Program, Stmt, walk_body
from dlavm.task.accesses import ANYWHERE, Access, access_of_all
from dlavm.task.ir import buffers_in

Beside = Callable[[Sequence[Stmt], Program, TargetSpec], Sequence[int]]
Chooser = Callable[[Sequence[int]], int]
"""Which of some numbers to take."""


@dataclass(frozen=True)
class Node:
    """Statements that stay together; `needs`: the numbers of the nodes that have to end before it begins."""

    stmts: tuple[Stmt, ...]
    engines: frozenset[str]
    cycles: int
    needs: frozenset[int]


def schedule(program: Program, spec: TargetSpec, choose: Chooser | None = None) -> Program:
    """The program with its statements in an order that does the same; as it is where a target runs one command at a
    time, and with functions. `choose`: for tests, which of the nodes that could come next does."""
    if program.functions or not spec.has("decoupled"):
        return program
    return replace(program, body=_Scheduler(program, spec, choose).body(program.body))


class _Scheduler:
    """Recursive in the nesting of blocks, which is small."""

    def __init__(self, program: Program, spec: TargetSpec, choose: Chooser | None) -> None:
        self._program, self._spec, self._choose = program, spec, choose
        self._cost = Cost(spec)
        self._written = access_of_all(program.body, program, spec).writes

    def body(self, stmts: Iterable[Stmt]) -> tuple[Stmt, ...]:
        made: list[Stmt] = []
        waiting: list[Stmt] = []
        for stmt in stmts:
            fixed = self._is_fixed(stmt)
            if isinstance(stmt, For | If):
                stmt = replace(stmt, body=self.body(stmt.body))
            if fixed:
                made += [*self._ordered(waiting), stmt]
                waiting = []
            else:
                waiting.append(stmt)
        return (*made, *self._ordered(waiting))

    def _is_fixed(self, stmt: Stmt) -> bool:
        """Whether nothing may move past it."""
        if not isinstance(stmt, Launch | For | If):
            return True
        return any(self._orders_all(inner) for _, inner in walk_body((stmt,)))

    def _orders_all(self, stmt: Stmt) -> bool:
        if isinstance(stmt, Load):  # the front end waits for no engine
            return not self._written.isdisjoint(buffers_in((stmt.base,), self._program.pointers))
        return waits_for_all(stmt)

    def _ordered(self, stmts: Sequence[Stmt]) -> list[Stmt]:
        nodes = self._nodes(list(_with_their_sums(stmts)))
        order = chosen(nodes, self._choose) if self._choose else by_begin(nodes)
        return [stmt for number in order for stmt in nodes[number].stmts]

    def _nodes(self, groups: Sequence[tuple[Stmt, ...]]) -> list[Node]:
        needs = _needs([access_of_all(group, self._program, self._spec) for group in groups])
        return [Node(group, self._engines(group), sum(map(self._cost, group)), need)
                for group, need in zip(groups, needs, strict=True)]  # fmt: skip

    def _engines(self, stmts: Iterable[Stmt]) -> frozenset[str]:
        launches = (stmt for _, stmt in walk_body(tuple(stmts)) if isinstance(stmt, Launch))
        return frozenset(engine for stmt in launches if (engine := self._spec.commands[stmt.op].engine))


def _with_their_sums(stmts: Iterable[Stmt]) -> Iterator[tuple[Stmt, ...]]:
    """Statements one by one, but for those between which the accumulators hold something."""
    group: list[Stmt] = []
    for stmt in stmts:
        group.append(stmt)
        products = [s for _, s in walk_body((stmt,)) if isinstance(s, Launch) and s.op == "LINEAR"]
        carried = products[-1].fields.get("acc_out", wrap(0)) if products else wrap(len(group) - 1)
        if carried.is_const and carried.value == 0:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


def _needs(accesses: Sequence[Access]) -> list[frozenset[int]]:
    """Of each access, the earlier ones that it conflicts with; those that one of these needs anyway may be left out."""
    writer: dict[str, int] = {}
    readers: dict[str, set[int]] = {}
    last_anywhere = -1
    found = []
    for number, touched in enumerate(accesses):
        names = touched.reads | touched.writes
        if ANYWHERE in names:
            found.append(frozenset(range(number)))
            last_anywhere = number
            continue
        needs = {last_anywhere} if last_anywhere >= 0 else set()
        needs |= {writer[name] for name in names if name in writer}
        for name in touched.writes:
            needs |= readers.pop(name, set())
        needs.discard(number)
        for name in touched.writes:
            writer[name] = number
        for name in touched.reads - touched.writes:
            readers.setdefault(name, set()).add(number)
        found.append(frozenset(needs))
    return found


def beside(stmts: Sequence[Stmt], program: Program, spec: TargetSpec) -> list[int]:
    """Of each statement of a body, the number of the last one that begins before it has ended, at the latest itself.

    Commands begin in their order, those of blocks among them as in a first turn. Where a target runs one command at a
    time, it is always the statement itself.
    """
    if program.functions or not spec.has("decoupled"):
        return alone(stmts, program, spec)
    timeline = _Timeline(program, spec)
    spans = [timeline.run(stmt) for stmt in stmts]
    begins = [begin for begin, _ in spans]
    return [max(number, bisect_left(begins, end) - 1) for number, (_, end) in enumerate(spans)]


def alone(stmts: Sequence[Stmt], program: Program, spec: TargetSpec) -> list[int]:
    """`beside` where nothing begins before all that is in front of it has ended."""
    return list(range(len(stmts)))


class _Timeline:
    """When commands run that engines take in the order of the stream. Recursive in the nesting of blocks."""

    def __init__(self, program: Program, spec: TargetSpec) -> None:
        self._program, self._spec, self._cost = program, spec, Cost(spec)
        self._begun = self._ended = 0  # the latest begin and end
        self._free: dict[str, int] = {}  # engines
        self._read: dict[str, int] = {}  # ends of what uses a buffer
        self._written: dict[str, int] = {}

    def run(self, stmt: Stmt) -> tuple[int, int]:
        """Begin and end of a statement that follows those before."""
        if isinstance(stmt, For | If):
            spans = [self.run(inner) for inner in stmt.body]
            return (spans[0][0], max(end for _, end in spans)) if spans else (self._begun, self._begun)
        touched = access_of_all((stmt,), self._program, self._spec)
        command = self._spec.commands.get(stmt.op) if isinstance(stmt, Launch) else None
        engine = command.engine if command else None
        if engine is None or waits_for_all(stmt) or ANYWHERE in touched.reads | touched.writes:
            begin = self._begun = self._ended
        else:
            waits = [self._begun, self._free.get(engine, 0)]
            waits += [self._written.get(name, 0) for name in touched.reads | touched.writes]
            waits += [self._read.get(name, 0) for name in touched.writes]
            begin = self._begun = max(waits)
        end = begin + (self._cost(stmt) if engine else 0)
        self._ended = max(self._ended, end)
        if engine:
            self._free[engine] = end
        for name in touched.reads:
            self._read[name] = max(self._read.get(name, 0), end)
        self._written |= dict.fromkeys(touched.writes, end)
        return begin, end


def waits_for_all(stmt: Stmt) -> bool:
    """Whether it waits for every engine by itself."""
    return isinstance(stmt, Await) or (isinstance(stmt, Launch) and stmt.op == "LOAD_TABLE")


def by_begin(nodes: Sequence[Node]) -> list[int]:
    """The numbers of the nodes in the order of their begins."""
    begins = begin_times(nodes)
    return sorted(range(len(nodes)), key=lambda n: (begins[n], -nodes[n].cycles, n))


def begin_times(nodes: Sequence[Node]) -> list[int]:
    """When each node begins, in cycles."""
    ways = _ways(nodes)
    left = [len(node.needs) for node in nodes]
    users = _users(nodes)
    ready = {n: 0 for n, count in enumerate(left) if not count}  # from when on
    free: dict[str, int] = {}
    begins = [0] * len(nodes)
    while ready:
        earliest = {n: max([since, *(free.get(e, 0) for e in nodes[n].engines)]) for n, since in ready.items()}
        number = min(ready, key=lambda n: (earliest[n], -ways[n], n))
        begins[number] = earliest[number]
        end = earliest[number] + nodes[number].cycles
        free |= dict.fromkeys(nodes[number].engines, end)
        del ready[number]
        for user in users[number]:
            left[user] -= 1
            if not left[user]:
                ready[user] = max(begins[n] + nodes[n].cycles for n in nodes[user].needs)
    return begins


def chosen(nodes: Sequence[Node], choose: Chooser) -> list[int]:
    """The numbers of the nodes in any order that their needs allow."""
    left = [len(node.needs) for node in nodes]
    users = _users(nodes)
    ready = [n for n, count in enumerate(left) if not count]
    order = []
    while ready:
        number = choose(ready)
        ready.remove(number)
        order.append(number)
        for user in users[number]:
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    return order


def _users(nodes: Sequence[Node]) -> list[list[int]]:
    users: list[list[int]] = [[] for _ in nodes]
    for number, node in enumerate(nodes):
        for need in sorted(node.needs):
            users[need].append(number)
    return users


def _ways(nodes: Sequence[Node]) -> list[int]:
    """Cycles from the begin of each node to the end of the last that needs it, directly or not."""
    ways = [node.cycles for node in nodes]
    users = _users(nodes)
    for number in reversed(range(len(nodes))):
        ways[number] += max((ways[user] for user in users[number]), default=0)
    return ways
