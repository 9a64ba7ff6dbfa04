"""Targets: deltas, layout of fields, hashes, generated files."""
from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dlavm.schedule.cost import Cost
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.target import load_target
from dlavm.target.gen import main as generate
from dlavm.target.sizes import matrix_lanes, sizes, vector_lanes
from dlavm.target.spec import expand, list_boards, list_targets, load_isa
from dlavm.task import Launch

TARGETS, BOARDS = list_targets(), list_boards()
LANES = {"nano": 8, "kv260": 16, "u280": 128, "v80": 128, "vcu128": 128}  # of the vector engine


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A writable copy of targets/."""
    return Path(shutil.copytree(data_root() / "targets", tmp_path / "targets", ignore=shutil.ignore_patterns("rtl")))


def test_what_is_there() -> None:
    assert TARGETS == ["v1", "v2", "v3"]
    assert BOARDS == ["kv260", "nano", "u280", "v80", "vcu128"]


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_pair_loads(target: str, board: str) -> None:
    spec = load_target(target, board)
    assert len(spec.hash) == 64
    for memory in spec.board.memories.values():
        assert memory.capacity % memory.beat_row == 0
        assert memory.base % memory.beat_row == 0
        assert memory.base + memory.capacity <= 1 << 36  # addresses have 32 bits of 16 bytes
        wide = memory.channels * memory.port_bytes * memory.port_clock_mhz / 1000
        assert wide >= memory.peak_gbs  # the port never limits below the memory's own peak


def test_hashes_differ_between_targets_and_boards() -> None:
    assert len({load_target(t, b).hash for t in TARGETS for b in BOARDS}) == len(TARGETS) * len(BOARDS)


def test_hash_ignores_prose_but_not_buffers(tree: Path) -> None:
    before = load_target("v3", "nano", tree).hash
    board = tree / "boards" / "nano.yaml"
    board.write_text(board.read_text().replace("The smallest", "A small"))
    other = shutil.copytree(tree, tree.parent / "prose")
    assert load_target("v3", "nano", other).hash == before
    (other / "boards" / "nano.yaml").write_text(board.read_text().replace("accumulators: 4096", "accumulators: 2048"))
    changed = shutil.copytree(other, tree.parent / "buffers")
    assert load_target("v3", "nano", changed).hash != before


def test_a_role_prefers_what_its_board_has(tree: Path) -> None:
    """The others are no part of the target there, nor of its hash."""
    assert [m.name for m in load_target("v3", "vcu128").spaces("activations")] == ["onchip", "hbm"]
    assert load_target("v3", "vcu128").space("activations").name == "onchip"
    for board, memory in (("nano", "hbm"), ("kv260", "ddr")):
        assert [m.name for m in load_target("v3", board).spaces("activations")] == [memory]
    path = tree / "v3.yaml"
    path.write_text(path.read_text().replace("[onchip, hbm]", "hbm"))
    for board in BOARDS:
        same = load_target("v3", board, tree).hash == load_target("v3", board).hash
        assert same == ("onchip" not in load_target("v3", board).board.memories)


def test_the_memory_at_an_address() -> None:
    board = load_target("v3", "vcu128").board
    for memory in board.memories.values():
        last = memory.base + memory.capacity - 1
        assert board.holding(memory.base) == board.holding(last) == memory
        assert board.holding(last + 1) is None


def test_a_stated_power_is_no_part_of_the_hash(tree: Path) -> None:
    before = load_target("v3", "nano", tree)
    assert before.board.power_watts is None
    other = Path(shutil.copytree(tree, tree.parent / "power"))
    board = other / "boards" / "nano.yaml"
    board.write_text(board.read_text() + "power: {watts: 12.5, source: a meter}\n")
    after = load_target("v3", "nano", other)
    assert after.board.power_watts == 12.5 and after.hash == before.hash


def test_lanes_follow_from_the_memory_of_the_weights() -> None:
    """64 for each 16 bytes that it brings in a cycle of the core: two beat rows where its ports run twice as fast."""
    for target in TARGETS:
        found = {board: matrix_lanes(load_target(target, board)) for board in BOARDS}
        assert found == {"nano": 128, "kv260": 256, "u280": 8192, "v80": 8192, "vcu128": 8192}
    nano = load_target("v3", "nano")
    board = nano.board
    wide = {name: replace(memory, port_bytes=2 * memory.port_bytes) for name, memory in board.memories.items()}
    fast = {name: replace(memory, port_clock_mhz=200) for name, memory in board.memories.items()}
    for memories in (wide, fast):
        assert matrix_lanes(replace(nano, board=replace(board, memories=memories))) == 256
    ddr = replace(nano, roles={**nano.roles, "weights": ("ddr",)})
    assert matrix_lanes(ddr) == 64


def test_vector_lanes_are_those_of_the_core() -> None:
    """What a board states, as far as a beat row of the weights' memory feeds them; tables and costs say the same."""
    for target in TARGETS:
        specs = {board: load_target(target, board) for board in BOARDS}
        assert {board: vector_lanes(spec) for board, spec in specs.items()} == LANES
        assert {board: sizes(spec).lanes for board, spec in specs.items()} == LANES
    nano = load_target("v3", "nano")
    more = replace(nano, board=replace(nano.board, vector_lanes=64))  # two channels of 16 bytes
    assert vector_lanes(more) == sizes(more).lanes == 16
    wide = Launch("NORM", {"dim": 4096, "rows_o": 1000, "rows_i": 1, "batch": 1})
    cost = {lanes: Cost(replace(nano, board=replace(nano.board, vector_lanes=lanes)))(wide) for lanes in (8, 16, 64)}
    assert cost[8] > cost[16] == cost[64]


def test_deltas_add_and_remove() -> None:
    v1, v2, v3 = (load_target(t) for t in TARGETS)
    assert "ARGMAX" not in v1.commands and "ARGMAX" in v2.commands
    assert v1.has("mmio") and not v2.has("mmio")
    assert set(v2.commands) < set(v3.commands)
    assert (v1.header_words, v2.header_words, v3.header_words) == (0, 1, 2)


def test_a_new_generation_is_one_file(tree: Path) -> None:
    delta = "extends: v3\ndoc: pretend\ncapabilities: {add: [fast]}\ncommands: {remove: [COPY]}\n"
    (tree / "v4.yaml").write_text(delta)
    spec = load_target("v4", "nano", tree)
    assert spec.has("fast", "gather") and "COPY" not in spec.commands


def test_removing_what_is_not_there_is_an_error(tree: Path) -> None:
    (tree / "v4.yaml").write_text("extends: v3\ncommands: {remove: [WARP]}\n")
    with pytest.raises(DlavmError, match=r"v4.yaml: commands: remove names \['WARP'\]"):
        expand("v4", tree)


def test_unknown_names() -> None:
    with pytest.raises(DlavmError, match="unknown target 'v9'; known: v1, v2, v3"):
        load_target("v9")
    with pytest.raises(DlavmError, match="unknown board 'vcu999'; known: kv260"):
        load_target("v3", "vcu999")


@pytest.mark.parametrize("target", TARGETS)
def test_fields_do_not_overlap(target: str) -> None:
    for command in load_target(target).commands.values():
        bits = [(f.word, f.lsb + i) for f in command.fields for i in range(f.bits)]
        assert len(bits) == len(set(bits))
        assert all(bit < 32 for _, bit in bits)


def test_opcodes_registers_and_values_are_unique() -> None:
    isa = load_isa(data_root() / "targets")
    opcodes = [c["opcode"] for c in isa.raw_commands.values()]
    offsets = [r["offset"] + 4 * i for r in isa.raw_registers.values() for i in range(r.get("count", 1))]
    assert len(opcodes) == len(set(opcodes)) and len(offsets) == len(set(offsets))
    assert all(len(set(v.values())) == len(v) for v in isa.enums.values())
    assert all(len(isa.command(n).by_name) == len(isa.command(n).fields) for n in isa.raw_commands)


def test_generated_files_are_current() -> None:
    assert generate(["--check"]) == 0


def test_expanded_targets_parse_as_what_they_expand() -> None:
    for name in TARGETS:
        text = (data_root() / "targets" / "generated" / f"{name}.expanded.yaml").read_text()
        assert yaml.safe_load(text) == expand(name, data_root() / "targets")
