"""Semaphores of the decoupled engines and the order of their commands, over random programs.

The model of the machine here is that of doc/numerics.md section 9, by itself: a clock an engine, a queue of snapshots
a semaphore, and every access that an engine has made.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.codegen.ordering import ordered
from dlavm.schedule import beside, schedule
from dlavm.sym import Expr, Var, minimum, wrap
from dlavm.target import load_target
from dlavm.task import Await, Buffer, For, If, Launch, Program, Signal, Stmt, Wait, execute, trace
from dlavm.task.interpret import initial_values
from dlavm.task.ir import buffers_in
from tests.conftest import examples
from tests.prop.task_programs import ARGS, ARGUMENTS, expressions

NANO = load_target("v3", "nano")
BUFFERS = (*(Buffer(name, "activations", 64) for name in "abcd"), Buffer("k", "kv", 64))
BASES = {"a": 0, "b": 64, "c": 128, "d": 96, "k": 4096}  # d has bytes of b and of c
FIELDS = {"COPY": ("src", "dst"), "NORM": ("src", "dst"), "ELTWISE": ("b", "src", "dst"),
          "LINEAR": ("src", "wgt", "dst"), "KV_APPEND": ("src", "cache")}  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn, env: dict[str, Expr], depth: int) -> tuple[Stmt, ...]:
    body = list[Stmt]()
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["launch"] * 5 + ["await"] + ["for", "for", "if"] * (depth > 0)))
        free = next(name for name in ("x", "y", "z", "w") if name not in env)
        if kind == "launch":
            op = draw(st.sampled_from(sorted(FIELDS)))
            fields = {name: draw(st.sampled_from(BUFFERS)).base for name in FIELDS[op]}
            body.append(Launch(op, {**fields, "rows_o": 1, "rows_i": 1, "batch": 1} if op == "LINEAR" else fields))
        elif kind == "await":
            body.append(Await())
        elif kind == "for":
            count = draw(st.sampled_from([wrap(2), minimum(ARGS[0], 3), minimum(ARGS[1], 3)]))
            var = Var(free, 0, 2)
            body.append(For(var, count, draw(bodies({**env, free: var}, depth - 1))))
        else:
            body.append(If(draw(expressions(env)), draw(bodies(env, depth - 1))))
    return tuple(body)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    return Program("random", ARGS, BUFFERS, draw(bodies({arg.name: arg for arg in ARGS}, 3)))


class Machine:
    """What each engine knows of the others; complains about an access that nothing orders."""

    def __init__(self) -> None:
        self.engines = list(NANO.enums["engine"])
        self.clocks = {e: dict.fromkeys(self.engines, 0) for e in self.engines}
        self.signals: dict[int, list[dict[str, int]]] = {}
        self.accesses: list[tuple[str, int, str, bool]] = []  # engine, its time, buffer, whether it wrote

    def run(self, stmt: Stmt) -> None:
        if isinstance(stmt, Signal):
            self.signals.setdefault(stmt.sem, []).append(dict(self.clocks[stmt.engine]))
        elif isinstance(stmt, Wait):
            assert self.signals.get(stmt.sem), "a wait that nothing serves"
            self._learn(stmt.engine, self.signals[stmt.sem].pop(0))
        elif isinstance(stmt, Await):
            now = {e: self.clocks[e][e] for e in self.engines}
            for engine in self.engines:
                self._learn(engine, now)
        elif isinstance(stmt, Launch):
            self._command(stmt)

    def _learn(self, engine: str, clock: dict[str, int]) -> None:
        self.clocks[engine] = {e: max(now, clock[e]) for e, now in self.clocks[engine].items()}

    def _command(self, stmt: Launch) -> None:
        own = NANO.commands[stmt.op].engine
        assert own
        touched = []
        for field in FIELDS[stmt.op]:
            engine = "load" if field == "wgt" else own
            (name,) = buffers_in((stmt.fields[field],), {})
            touched.append((engine, name, NANO.commands[stmt.op].by_name[field].write))
        for engine, name, write in touched:
            for owner, time, other, wrote in self.accesses:
                if owner != engine and (write or wrote) and meet(name, other):
                    assert time <= self.clocks[engine][owner], f"{engine} {stmt.op} {name}, {owner} {other}"
        for engine in dict.fromkeys(["load", own] if stmt.op == "LINEAR" else [own]):
            self.clocks[engine][engine] += 1
        self.accesses += [(engine, self.clocks[engine][engine], name, write) for engine, name, write in touched]
        if stmt.op == "LINEAR":
            self._learn(own, self.clocks["load"])


def meet(one: str, other: str) -> bool:
    return one == other or ("k" not in (one, other) and abs(BASES[one] - BASES[other]) < 64)


@settings(max_examples=examples(200), deadline=None)
@given(programs())
def test_every_conflict_is_ordered_and_every_wait_served(program: Program) -> None:
    made = ordered(program, NANO, BASES)
    for args in ARGUMENTS:
        machine = Machine()
        seen = []
        for stmt in execute(made, initial_values(made, args, {})):
            machine.run(stmt)
            seen += [stmt] if isinstance(stmt, Launch | Await) else []
        assert not any(machine.signals.values()), "a signal that nothing takes"
        assert seen == [s for s in execute(program, initial_values(program, args, {}))]


def test_the_machine_complains() -> None:
    """Of a program whose semaphores were left out."""
    machine = Machine()
    machine.run(Launch("COPY", {"src": BUFFERS[0].base, "dst": BUFFERS[1].base}))
    with pytest.raises(AssertionError, match="vector NORM d, store b"):
        machine.run(Launch("NORM", {"src": BUFFERS[3].base, "dst": BUFFERS[0].base}))
    with pytest.raises(AssertionError, match="nothing serves"):
        machine.run(Wait("vector", 3))


@settings(max_examples=examples(100), deadline=None)
@given(programs(), st.integers(0, 1 << 32))
def test_a_schedule_keeps_what_depends(program: Program, seed: int) -> None:
    """The same commands; two that conflict stay in their order. So does any order that the needs allow."""
    for made in (schedule(program, NANO), schedule(program, NANO, Random(seed).choice)):
        for args in ARGUMENTS[:3]:
            before, after = (list(trace(p, args, BASES)) for p in (program, made))
            assert Counter(map(str, before)) == Counter(map(str, after))
            for name in BASES:
                assert history(before, name) == history(after, name)


def history(commands: list[object], name: str) -> list[object]:
    """Writes of a buffer in order, and the reads between them in any."""
    found: list[object] = []
    base = BASES[name] // 16
    for instr in commands:
        fields = instr.fields  # type: ignore[attr-defined]
        op = instr.op  # type: ignore[attr-defined]
        roles = {NANO.commands[op].by_name[f].write for f in FIELDS[op] if fields[f] == base}
        if True in roles:
            found.append(str(instr))
        elif roles:
            found = found if found and isinstance(found[-1], Counter) else [*found, Counter()]
            found[-1][str(instr)] += 1  # type: ignore[index]
    return found


@settings(max_examples=examples(100), deadline=None)
@given(programs())
def test_what_runs_beside_a_statement_comes_behind_it(program: Program) -> None:
    last = beside(program.body, program, NANO)
    assert all(number <= other < len(program.body) for number, other in enumerate(last))
    assert beside(program.body, program, load_target("v2", "nano")) == list(range(len(program.body)))
