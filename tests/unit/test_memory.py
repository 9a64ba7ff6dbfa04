"""Liveness, planner, validator, CSV, memory map."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlavm.memory import (
    Interval,
    alignments,
    assign,
    check_addresses,
    check_capacity,
    displaced,
    liveness,
    plan,
    settled,
    validate,
)
from dlavm.memory.csv import parse_csv, read_csv
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.target.layout import KV_FORMATS, KvLayout
from dlavm.target.sizes import sizes
from dlavm.task import Buffer, Program, parse_program

V1, V3 = load_target("v1", "nano"), load_target("v3", "nano")
HEAD = "program p(token: 1..8)\n" + "".join(f"buffer {n}: activations 64 bytes f16\n" for n in "abcd")


def lives(text: str) -> dict[str, tuple[int, int]]:
    return {i.name: (i.lower, i.upper) for i in liveness(parse_program(HEAD + text), V3)}


def program(*buffers: Buffer) -> Program:
    return Program("p", (), buffers, ())


# -- liveness ------------------------------------------------------------------------------------------------------


def test_straight_line() -> None:
    text = "launch COPY src=@a dst=@b\nlaunch COPY src=@b dst=@c\nlaunch COPY src=@c dst=@b"
    assert lives(text) == {"a": (0, 1), "b": (0, 3), "c": (1, 3)}


def test_a_loop_keeps_what_comes_from_outside_or_goes_there() -> None:
    text = """\
launch COPY dst=@a
for t in token:
  launch COPY src=@a dst=@b
  for u in token:
    launch COPY src=@b dst=@c
launch COPY src=@c dst=@d
"""
    assert lives(text) == {"a": (0, 3), "b": (1, 3), "c": (1, 4), "d": (3, 4)}


def test_what_every_turn_writes_first_lives_within_a_turn() -> None:
    text = """\
for t in token:
  launch COPY dst=@a
  launch COPY src=@a dst=@b
  launch COPY src=@b dst=@c
  launch COPY src=@c dst=@d
"""
    assert lives(text) == {"a": (0, 2), "b": (1, 3), "c": (2, 4), "d": (3, 4)}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("  launch COPY src=@a\n  launch COPY dst=@a\n  launch COPY", (0, 3)),  # read first: of the turn before
        ("  launch COPY\n  launch COPY src=@a dst=@a\n  launch COPY", (0, 3)),
        ("  launch COPY\n  launch KV_APPEND cache=@a\n  launch COPY src=@a\n  launch COPY", (1, 3)),
        ("  launch COPY\n  if lt(3, t):\n    launch COPY dst=@a\n  launch COPY src=@a", (0, 3)),  # not always
        ("  launch COPY\n  for u in t:\n    launch COPY dst=@a\n  launch COPY src=@a", (0, 3)),  # perhaps no turn
        ("  launch COPY\n  for u in token:\n    launch COPY dst=@a\n  launch COPY src=@a", (1, 3)),
        ("  launch COPY\n  let p: 0..4294967295 = @a + 16\n  launch COPY dst=p\n  launch COPY src=@a", (1, 3)),
    ],
)
def test_what_a_turn_hands_on_is_needed_for_the_whole_loop(body: str, expected: tuple[int, int]) -> None:
    assert lives(f"for t in token:\n{body}\n")["a"] == expected


def test_what_the_program_loads_is_needed() -> None:
    text = """\
launch COPY dst=@a
launch COPY dst=@b
for t in token:
  load e: 0..9 = @a[t]
  launch COPY src=@b+e dst=@c
  launch COPY src=@c dst=@d
"""
    assert lives(text) == {"a": (0, 4), "b": (1, 4), "c": (2, 4), "d": (3, 4)}
    assert lives("launch COPY dst=@a\nload e: 0..9 = @a[1]\nlaunch COPY rows_i=e\nlaunch COPY")["a"] == (0, 2)


def test_two_loops_one_behind_the_other_share_nothing() -> None:
    text = "for t in token:\n  launch COPY dst=@a\nfor t in token:\n  launch COPY dst=@b\n"
    assert lives(text) == {"a": (0, 1), "b": (1, 2)}


def test_calls_count_where_they_are() -> None:
    text = "function f:\n  launch COPY src=@a\nlaunch COPY src=@b\ncall f\nlaunch COPY src=@b\n"
    text += "for t in token:\n  call f\n  launch COPY"
    assert lives(text) == {"a": (1, 5), "b": (0, 3)}


def test_host_copies_and_conditions_count() -> None:
    text = "copy dst=@a src=@b bytes=16\nif lt(3, token):\n  launch COPY src=@a"
    assert lives(text) == {"a": (0, 2), "b": (0, 1)}


def test_recursion_is_refused() -> None:
    with pytest.raises(DlavmError, match="not running already, got 'f'"):
        lives("function f:\n  call f\ncall f")


# -- planner, validator --------------------------------------------------------------------------------------------


def test_a_chain_needs_two_buffers() -> None:
    chain = [Interval(f"b{i}", i, i + 2, 100) for i in range(20)]
    made = plan(chain, 1)
    assert (made.peak, made.lower_bound, made.optimal) == (200, 200, True)


def test_alignment_and_capacity() -> None:
    intervals = [Interval("a", 0, 2, 10), Interval("b", 1, 3, 10)]
    made = plan(intervals, 64)
    assert sorted(made.offsets.values()) == [0, 64]
    assert made.peak == 74
    assert plan(intervals, 64, 74) == made
    with pytest.raises(DlavmError, match="expected at most 73 bytes, got 74"):
        plan(intervals, 64, 73)


def test_nothing_to_plan() -> None:
    made = plan([])
    assert (dict(made.offsets), made.peak, made.optimal) == ({}, 0, True)


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        ([Interval("a", 0, 1, 4)] * 2, "'a' twice"),
        ([Interval("a", 1, 1, 4)], "buffer a: expected size >= 0 and lower < upper"),
        ([Interval("a", 0, 1, -4)], "buffer a: expected size >= 0"),
    ],
)
def test_bad_intervals(intervals: list[Interval], message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        plan(intervals)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ({"a": 0}, "buffer b: expected an offset"),
        ({"a": 0, "b": 8}, "buffer b: offset expected a multiple of 16, got 8"),
        ({"a": 0, "b": 112}, "buffer b: expected within 128 bytes, got bytes 112..144"),
        ({"a": -16, "b": 32}, "buffer a: expected within 128 bytes"),
        ({"a": 0, "b": 16}, r"buffers (a and b|b and a): expected no overlap"),
    ],
)
def test_validator_refuses(offsets: dict[str, int], message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        validate([Interval("a", 0, 2, 32), Interval("b", 1, 3, 32)], offsets, 16, 128)


def test_half_open_intervals_share_bytes() -> None:
    validate([Interval("a", 0, 2, 32), Interval("b", 2, 3, 32)], {"a": 0, "b": 0})


# -- CSV -----------------------------------------------------------------------------------------------------------


def test_columns_in_any_order() -> None:
    assert parse_csv("size, id,upper,lower,offset\n4,x, 2,0,64\n") == ([Interval("x", 0, 2, 4)], {"x": 64})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns id,lower,upper,size"),
        ("id,lower,upper\n", "line 1: expected the columns"),
        ("id,lower,upper,size,colour\n", "line 1: expected the columns"),
        ("id,lower,upper,size\n1,2,3\n", "line 2: expected 4 values, got 3"),
        ("id,lower,upper,size\n1,2,3,4\n1,2,3,4\n", "line 3: id expected a name that is free, got '1'"),
        ("id,lower,upper,size\n1,2,3,x\n", "line 2: size expected a number of at least 0, got 'x'"),
        ("id,lower,upper,size\n1,-2,3,4\n", "line 2: lower expected a number"),
        ("id,lower,upper,size\n1,3,3,4\n", "line 2: expected lower < upper, got 3 and 3"),
    ],
)
def test_bad_csv(text: str, message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        parse_csv(text)


def test_missing_and_binary_csv(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("x.csv", "y.csv"):
        with pytest.raises(DlavmError, match="expected a CSV file"):
            read_csv(tmp_path / name)


# -- memory map ----------------------------------------------------------------------------------------------------

EVERY_ROLE = [Buffer(role, role, 100) for role in ("kv", "input", "weights", "output", "tables", "activations")]


def test_regions_in_order_and_pages() -> None:
    memory = V3.space("weights")
    made = assign(program(*EVERY_ROLE), V3, [Buffer("stream", "program", 40)])
    assert [r.role for r in made.regions] == ["weights", "tables", "program", "input", "output", "activations", "kv"]
    assert made.bases["weights"] == memory.base
    assert made.region("weights").bytes == 4096 * memory.channels
    assert all(base % memory.beat_row == 0 for base in made.bases.values())
    ends = [r.base + r.bytes for r in made.regions]
    assert ends[:-1] == [r.base for r in made.regions[1:]]
    assert set(made.bases) == {b.name for b in EVERY_ROLE} | {"stream"}
    with pytest.raises(DlavmError, match="got 'stack'"):
        made.region("stack")


@pytest.mark.parametrize("board", ["nano", "kv260", "vcu128", "u280", "v80"])
def test_regions_begin_with_what_comes_in_a_cycle(board: str) -> None:
    """Whatever lies before them: rows of the memory fabric."""
    spec = load_target("v3", board)
    buffers = [Buffer("i", "input", 64, "u32[16]"), Buffer("k", "kv", 4096, "f16[1, 32, 64]")]
    row = sizes(spec).row_units * 16
    assert all(region.base % row == 0 for region in assign(program(*buffers), spec).regions)


@pytest.mark.parametrize("board", ["nano", "kv260", "vcu128", "u280", "v80"])
@pytest.mark.parametrize("form", KV_FORMATS)
def test_heads_meet_in_a_bank_least(board: str, form: str) -> None:
    """Where a tile holds values of several heads, four heads of a long cache begin in four banks. Gaps are no more than
    an eighth, and none where a tile is no wider than a block."""
    memory = load_target("v3", board).space("kv")
    figures = memory.timing.values
    bank = memory.channels * figures["page_bytes"] * figures["interleave"]
    gaps = set()
    for ctx in (1, 128, 1152, 1312, 2048, 4096, 8192, 1 << 17):
        close, here = KvLayout(8, ctx, 128, form), KvLayout(8, ctx, 128, form, memory)
        gap = here.head_bytes - close.head_bytes
        gaps.add(gap)
        assert 0 <= 8 * gap <= close.head_bytes and here.bytes == 8 * here.head_bytes
        if ctx == 1 << 17 and memory.row_tile > 32:
            assert len({head * here.head_bytes // bank % figures["banks"] for head in range(4)}) == 4
    assert (gaps == {0}) == (memory.row_tile <= 32)


def test_roles_lie_in_their_spaces() -> None:
    made = assign(program(*EVERY_ROLE), V1)
    hbm, ddr = V1.space("weights"), V1.space("tables")
    assert made.bases["weights"] == hbm.base and made.bases["tables"] == ddr.base
    for name, base in made.bases.items():
        space = hbm if name in ("weights", "kv") else ddr
        assert space.base <= base < space.base + space.capacity


VCU128 = load_target("v3", "vcu128")
ON_CHIP = VCU128.board.memories["onchip"]


def used(name: str, size: int) -> str:
    """A program with one activation of that size that is read."""
    return f"program p(token: 1..8)\nbuffer {name}: activations {size} bytes f16\nlaunch C src=@{name}\n"


@pytest.mark.parametrize(("size", "space"), [(1, "onchip"), (ON_CHIP.capacity, "onchip"),
                                             (ON_CHIP.capacity + 1, "hbm"), (1 << 32, "hbm")])  # fmt: skip
def test_activations_lie_on_the_chip_where_they_fit(size: int, space: str) -> None:
    memory = VCU128.board.memories[space]
    made = assign(parse_program(used("a", size)), VCU128, [b for b in EVERY_ROLE if b.role != "activations"])
    assert {r.role: r.space for r in made.regions} == {
        r.role: space if r.role == "activations" else "hbm" for r in made.regions}
    assert made.bases["a"] == made.region("activations").base
    assert memory.base <= made.bases["a"] <= memory.base + memory.capacity - size
    assert made.bytes("activations") % memory.beat_row == 0
    assert settled(VCU128, made).spaces("activations") == (memory,) and settled(VCU128, made).hash == VCU128.hash
    notes = displaced(VCU128, made)
    assert len(notes) == (space == "hbm")
    assert all(f"more than the {ON_CHIP.capacity} of onchip: they lie in hbm" in note for note in notes)


def test_all_programs_decide_together() -> None:
    """Where one of them has too much for the chip, none lies there."""
    small, large = parse_program(used("a", 64)), parse_program(used("b", ON_CHIP.capacity + 1))
    for first, other in ((small, large), (large, small)):
        made = assign(first, VCU128, also=[other])
        assert made.region("activations").space == "hbm"
        assert len({*made.bases.values(), *made.others[0].values()}) == 1
    assert assign(small, VCU128, also=[small]).region("activations").space == "onchip"


def test_a_board_without_memory_on_the_chip_says_nothing() -> None:
    made = assign(parse_program(used("a", 1 << 20)), V3)
    assert made.region("activations").space == "hbm" and displaced(V3, made) == []
    assert displaced(VCU128, assign(program(), VCU128)) == [] and settled(V3, assign(program(), V3)) == V3


def test_records_are_aligned_for_every_space_that_may_hold_them() -> None:
    assert alignments(VCU128)["activations"] == 1024  # of hbm; of the chip 512
    assert alignments(V3) == dict.fromkeys(V3.roles, 32)


def test_activations_are_planned() -> None:
    text = HEAD + "launch C src=@a dst=@b\nlaunch C src=@b dst=@c\n"
    made = assign(parse_program(text), V3)
    assert made.activations.optimal and made.bytes("activations") == 128
    assert made.bases["a"] == made.bases["c"] != made.bases["b"]
    assert made.bases["d"] == made.region("activations").base


def test_more_than_addresses_reach() -> None:
    """Of what a program keeps; activations of which a command may be beyond are for `verify`."""
    fits = {"weights": (1 << 36) - (1 << 20) - 64, "kv": 1 << 20, "tables": 64, "activations": 1 << 36}
    check_addresses(program(*(Buffer(role, role, size) for role, size in fits.items())))
    for role in ("weights", "kv", "tables"):
        sizes = {**fits, role: fits[role] + 1}
        with pytest.raises(DlavmError, match=f"at most 68719476736 bytes, .* got 68719476737 .*{role} {sizes[role]}"):
            check_addresses(program(*(Buffer(name, name, size) for name, size in sizes.items())))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"weights": 1 << 20, "kv": 1 << 28}, r"got 269484032 \(weights 1048576, kv 268435456\); the KV cache"),
        ({"weights": 1 << 26, "kv": 1 << 27}, "choose a smaller --ctx"),
        ({"weights": 1 << 28, "kv": 1 << 20}, "choose a board with more memory"),
    ],
)
def test_a_space_too_small(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(DlavmError, match=message) as error:
        check_capacity(assign(program(*(Buffer(role, role, size) for role, size in sizes.items())), V3), V3)
    assert "memory hbm of board nano: expected at most 134217728 bytes" in str(error.value)


def test_map_refuses() -> None:
    with pytest.raises(DlavmError, match="'kv' twice"):
        assign(program(*EVERY_ROLE), V3, [Buffer("kv", "kv", 5)])
    with pytest.raises(DlavmError, match="got role 'program'"):
        assign(program(), V1, [Buffer("stream", "program", 5)])


def test_no_buffers() -> None:
    made = assign(program(), V3)
    assert made.regions == () and made.bytes("kv") == 0
