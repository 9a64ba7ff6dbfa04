"""The order of commands: list scheduling by hand, what stays where it is, where semaphores stand."""

from __future__ import annotations

from dlavm.codegen.ordering import ordered
from dlavm.memory import liveness
from dlavm.schedule import beside, schedule
from dlavm.schedule.order import Node, begin_times, by_begin
from dlavm.target import load_target
from dlavm.task import Launch, Program, parse_program, print_program

V2, V3 = load_target("v2", "nano"), load_target("v3", "nano")
HEAD = "program p(token: 1..8)\n" + "".join(f"buffer {n}: activations 64 bytes f16\n" for n in "abcdefg")
HEAD += "buffer w: weights 64 bytes f16\nbuffer k: kv 64 bytes f16\n"


def parsed(text: str) -> Program:
    return parse_program(HEAD + text, V3)


def body(program: Program) -> str:
    lines = print_program(program, V3).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("program", "buffer")))


def node(engine: str, cycles: int, *needs: int) -> Node:
    return Node((), frozenset([engine]), cycles, frozenset(needs))


def attention(groups: int) -> list[Node]:
    """Products of 40 cycles and a softmax of 30 in equal groups."""
    parts = ("matrix", 40 // groups), ("vector", 30 // groups), ("matrix", 40 // groups)
    return [node(engine, cycles, *([3 * g + i - 1] if i else []))
            for g in range(groups) for i, (engine, cycles) in enumerate(parts)]  # fmt: skip


def test_softmax_hides_behind_products_of_other_groups() -> None:
    assert by_begin(attention(1)) == [0, 1, 2]
    nodes = attention(2)
    assert begin_times(nodes) == [0, 20, 40, 20, 40, 60]
    assert by_begin(nodes) == [0, 3, 1, 2, 4, 5]  # QK0 QK1 SM0 PV0 SM1 PV1


def test_the_longest_way_goes_first() -> None:
    """Of three products the one whose result passes most others; the one that nothing waits for comes last."""
    nodes = [node("matrix", 10), node("matrix", 10), node("matrix", 10), node("vector", 5, 0), node("vector", 5, 1),
             node("store", 5, 4), node("matrix", 10, 3, 5)]  # fmt: skip
    assert by_begin(nodes) == [1, 0, 4, 5, 2, 3, 6]
    assert begin_times(nodes) == [10, 0, 20, 20, 10, 15, 30]


LAYER = """\
launch LINEAR rows_o=1 rows_i=1 batch=1 k=64 n=64 wgt=@w src=@a dst=@b
launch LINEAR rows_o=1 rows_i=1 batch=1 k=64 n=64 wgt=@w src=@a dst=@c
launch LINEAR rows_o=1 rows_i=1 batch=1 k=64 n=64 wgt=@w src=@a dst=@d
launch ROPE rows_o=1 rows_i=1 dim=64 src=@b dst=@b
launch ROPE rows_o=1 rows_i=1 dim=64 src=@c dst=@c
launch KV_APPEND rows_o=1 rows_i=1 dim=64 src=@c cache=@k
launch LINEAR format=kv_k:1 rows_o=1 rows_i=1 batch=1 k=64 n=64 src=@b wgt=@k dst=@e
launch COPY rows_o=1 rows_i=1 dim=64 src=@d dst=@f
"""


def test_a_layer() -> None:
    """Keys first, queries next, and what the scores do not need last."""
    found = [(s.op, str(s.fields["src"])) for s in schedule(parsed(LAYER), V3).body if isinstance(s, Launch)]
    assert found == [("LINEAR", "@a"), ("LINEAR", "@a"), ("ROPE", "@c"), ("KV_APPEND", "@c"), ("LINEAR", "@a"),
                     ("ROPE", "@b"), ("LINEAR", "@b"), ("COPY", "@d")]  # fmt: skip
    assert schedule(parsed(LAYER), V2) == parsed(LAYER)


def test_what_others_wait_for_stays_where_it_is() -> None:
    text = "launch NORM src=@a dst=@b\nawait all\nlaunch COPY src=@c dst=@d\nlaunch LOAD_TABLE table=@w\n"
    text += "launch LINEAR wgt=@w src=@e dst=@f\n"
    assert schedule(parsed(text), V3) == parsed(text)
    carried = "launch LINEAR acc_out=1 wgt=@w src=@a dst=@b\nlaunch LINEAR acc_in=1 wgt=@w src=@a dst=@b\n"
    other = "launch LINEAR wgt=@w src=@c dst=@d\nlaunch NORM src=@d dst=@e\nlaunch NORM src=@e dst=@e\n"
    assert body(schedule(parsed(carried + other), V3)).splitlines()[0].find("src=@c") > 0
    found = [s.fields["src"] for s in schedule(parsed(carried + other), V3).body if isinstance(s, Launch)]
    first = found.index(parsed(carried).body[0].fields["src"])  # type: ignore[union-attr]
    assert found[first] is found[first + 1]


def test_bytes_are_kept_from_what_runs_beside() -> None:
    """The store copies b while matrix writes c: c does not take the place of b."""
    text = "launch LINEAR rows_o=1 rows_i=1 batch=1 k=64 n=64 wgt=@w src=@a dst=@b\n"
    text += "launch COPY rows_o=1 rows_i=1 dim=64 src=@b dst=@f\n"
    text += "launch LINEAR rows_o=1 rows_i=1 batch=1 k=64 n=64 wgt=@w src=@a dst=@c\n"
    text += "launch LINEAR rows_o=1 rows_i=1 batch=1 k=64 n=64 wgt=@w src=@c dst=@d\n"
    assert beside(parsed(text).body, parsed(text), V3) == [0, 2, 2, 3]
    assert {i.name: (i.lower, i.upper) for i in liveness(parsed(text), V3)}["b"] == (0, 3)
    assert {i.name: (i.lower, i.upper) for i in liveness(parsed(text), V2)}["b"] == (0, 2)


def test_semaphores_stand_where_the_dependency_is() -> None:
    text = "launch NORM src=@a dst=@b\nlaunch NORM src=@a dst=@c\n"
    text += "launch COPY src=@b dst=@d\nlaunch COPY src=@c dst=@e\n"
    apart = {name: 64 * i for i, name in enumerate("abcdefgwk")}
    assert body(ordered(parsed(text), V3, apart)) == """\
launch NORM src=@a dst=@b
signal vector 11
launch NORM src=@a dst=@c
signal vector 11
wait store 11
launch COPY src=@b dst=@d
wait store 11
launch COPY src=@c dst=@e"""


def test_a_loop_takes_a_token_from_the_turn_before() -> None:
    """vector reads what the store wrote before the loop and in the turn before."""
    text = "launch COPY src=@a dst=@b\nfor t in token:\n  launch NORM src=@b dst=@c\n  launch COPY src=@c dst=@b\n"
    apart = {name: 64 * i for i, name in enumerate("abcdefgwk")}
    assert body(ordered(parsed(text), V3, apart)) == """\
launch COPY src=@a dst=@b
signal store 14
for t in token:
  wait vector 14
  launch NORM src=@b dst=@c
  signal vector 11
  wait store 11
  launch COPY src=@c dst=@b
  signal store 14
wait vector 14"""
