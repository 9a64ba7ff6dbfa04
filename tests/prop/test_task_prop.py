"""Task programs: text round trips, simplification keeps the trace, bounds in context hold, lifetimes do not mix."""

from __future__ import annotations

from hypothesis import given, settings

from dlavm.memory import liveness
from dlavm.target import load_target
from dlavm.task import Launch, Program, execute, parse_program, print_program, simplify, trace
from dlavm.task.facts import Facts
from dlavm.task.interpret import initial_values, value_of
from dlavm.task.ir import buffers_in, exprs_of
from dlavm.task.scope import walk_scoped
from dlavm.task.verify import problems
from tests.conftest import examples
from tests.prop.task_programs import ARGUMENTS, BASES, programs

NANO = load_target("v3", "nano")


@settings(max_examples=examples(120))
@given(programs())
def test_the_programs_of_these_tests_verify(program: Program) -> None:
    assert problems(program, NANO) == []


@settings(max_examples=examples(120))
@given(programs())
def test_print_then_parse_gives_the_program(program: Program) -> None:
    text = print_program(program)
    assert parse_program(text) == program
    assert print_program(parse_program(text)) == text


@settings(max_examples=examples(120))
@given(programs())
def test_simplify_keeps_the_trace(program: Program) -> None:
    simpler = simplify(program)
    for args in ARGUMENTS:
        assert list(trace(simpler, args, BASES)) == list(trace(program, args, BASES))


@settings(max_examples=examples(120))
@given(programs())
def test_simplified_programs_are_stable_in_text(program: Program) -> None:
    text = print_program(simplify(program))
    assert print_program(parse_program(text)) == text


@settings(max_examples=examples(120))
@given(programs())
def test_bounds_in_context_hold(program: Program) -> None:
    facts: dict[int, Facts] = {id(stmt): scope.facts for _, stmt, scope in walk_scoped(program)}
    for args in ARGUMENTS:
        values = initial_values(program, args, BASES)
        for stmt in execute(program, values):
            for _, expr in exprs_of(stmt):
                lo, hi = facts[id(stmt)].bounds(expr)
                assert lo <= value_of(expr, values) <= hi


@settings(max_examples=examples(200))
@given(programs())
def test_buffers_that_share_bytes_are_never_in_use_together(program: Program) -> None:
    """In use: from a write to the last read of what was written."""
    intervals = liveness(program, NANO)
    for args in ARGUMENTS:
        values = initial_values(program, args, BASES)
        used = {i.name: set[int]() for i in intervals}
        begun: dict[str, int] = {}
        for time, stmt in enumerate(execute(program, values)):
            assert isinstance(stmt, Launch)
            written, read = (buffers_of(stmt, field) for field in ("dst", "src"))
            for name in read & used.keys():
                used[name].update(range(begun.get(name, time), time + 1))
            for name in written & used.keys():
                begun[name] = time
                used[name].add(time)
        for a in intervals:
            for b in intervals:
                if a.upper <= b.lower:
                    assert not used[a.name] & used[b.name], (a, b)


def buffers_of(stmt: Launch, field: str) -> frozenset[str]:
    return buffers_in((stmt.fields[field],), {}) if field in stmt.fields else frozenset()
