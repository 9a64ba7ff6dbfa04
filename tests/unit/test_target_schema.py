"""Files of targets/ with mistakes: one line that names file and place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dlavm.compile import Options, compile_model
from dlavm.frontend import load_model
from dlavm.lower import lowering_problems
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.target import load_board, load_target

COMMANDS, CONTROL, ENUMS, REGISTERS = (f"isa/{name}.yaml" for name in ("commands", "control", "enums", "registers"))
NANO, V2, V3 = "boards/nano.yaml", "v2.yaml", "v3.yaml"
NANO_HBM, URAM, VCU128 = "memories/nano_hbm.yaml", "memories/uram.yaml", "boards/vcu128.yaml"
HBM = "hbm: {base: 0x0, capacity: 0x8000000, channels: 2, port_bytes: 16,"

# file, what is replaced, by what, the message
WRONG = [
    (NANO, "clock_mhz: 100\n", "", "boards/nano.yaml: expected the keys doc, clock_mhz, .* got doc, memories, vector"),
    (NANO, "lanes: 8", "lanes: 8, colour: 1", "nano.yaml: vector: expected the keys lanes, got lanes, colour"),
    (NANO, "lanes: 8", "lanes: many", "nano.yaml: vector: lanes: expected int, got 'many'"),
    (NANO, "lanes: 8", "lanes: 0", "nano.yaml: vector.lanes: expected at least 1, got 0"),
    (NANO, "lanes: 8", "lanes: 4", "nano.yaml: vector.lanes: expected one of 8, 16, 32, 64, 128, got 4"),
    (NANO, "lanes: 8", "lanes: 24", "nano.yaml: vector.lanes: expected one of 8, 16, 32, 64, 128, got 24"),
    (NANO, "lanes: 8", "lanes: 256", "nano.yaml: vector.lanes: expected one of 8, 16, 32, 64, 128, got 256"),
    (NANO, "lanes: 8", "lanes: true", "expected int, got True"),
    (NANO, "vector: {lanes: 8}", "vector: {lanes: 8}\nmatrix: {lanes: 64}", "nano.yaml: expected .* got .*matrix"),
    (NANO, "clock_mhz: 100", "clock_mhz: .inf", "nano.yaml: clock_mhz: expected a number above 0, got inf"),
    (NANO, ", peak_gbs: 3.2", "", "nano.yaml: memories.hbm: expected the keys base, .*peak_gbs, timing, got base"),
    (NANO, "channels: 2", "channels: 0", "nano.yaml: memories.hbm: channels: expected at least 1, got 0"),
    (NANO, "channels: 2", "channels: 3", "memories.hbm: capacity: expected .* a multiple of 48, .* got 0x8000000"),
    (NANO, "port_bytes: 16", "port_bytes: 24", "memories.hbm: port_bytes: expected a multiple of 16, got 24"),
    (NANO, "base: 0x0,", "base: 0x7,", "memories.hbm: base: expected .* a multiple of 32, .* got 0x7"),
    (NANO, "capacity: 0x8000000", "capacity: -32", "memories.hbm: capacity: expected at least 32 .* got -0x20"),
    (NANO, "base: 0x800000000", "base: 0x1000", "memories.ddr: base: expected at least 0x8000000, where hbm ends"),
    (NANO, "base: 0x800000000", "base: 0xFFFF00000000", "memories.ddr: base and capacity: expected 1..68719476736"),
    (NANO, "of: nano_hbm", "of: nano_hbn", "unknown memory 'nano_hbn' of board nano; known: ddr4_2400_x16, .*nano_ddr"),
    (NANO, "of: nano_hbm", "of: hbm2_1800", "memories.hbm: timing: of: expected .* peak_gbs of 3.2, got 28.8 from 2"),
    (NANO, "request: 10", "request: -1", "nano.yaml: memories.hbm: timing: request: expected 0..1000000000, got -1"),
    (NANO, "request: 10, ", "", "nano.yaml: memories.hbm: timing: expected the keys of, request, response, got of"),
    (NANO_HBM, "ras: 8\n", "", "memories/nano_hbm.yaml: expected the keys doc, clock_mhz, .*ras"),
    (NANO_HBM, "ras: 8", "ras: 8.5", "memories/nano_hbm.yaml: ras: expected int, got 8.5"),
    (NANO_HBM, "burst_clocks: 1", "burst_clocks: 0", "nano_hbm.yaml: burst_clocks: expected a number above 0, got 0"),
    (NANO_HBM, "clock_mhz: 100", "clock_mhz: .nan", "nano_hbm.yaml: clock_mhz: expected a number above 0, got nan"),
    (URAM, "accesses: 2", "accesses: 3", "memories/uram.yaml: accesses: expected 1..2, got 3"),
    (URAM, "reads: 32\n", "", "memories/uram.yaml: expected the keys doc, accesses, reads, writes, got doc, accesses"),
    (URAM, "accesses: 2", "accesses: 2\nclock_mhz: 450", "memories/uram.yaml: expected the keys doc, .*clock_mhz"),
    (VCU128, "peak_gbs: 115.2", "peak_gbs: 230.4", "memories.onchip: timing: of: expected .* 230.4, got 115.2 from 8"),
    (NANO, "doc:", "doc: twice\ndoc:", "boards/nano.yaml: expected YAML, got the key 'doc' comes twice"),
    (NANO, "doc:", "doc: [", "boards/nano.yaml: expected YAML, got"),
    (V3, "limits:", "limitz:", "v3.yaml: expected the keys doc, capabilities, .*limitz"),
    (V3, "scalar_registers: 32", "scaler_registers: 32", "v3.yaml: limits: expected the keys scalar_registers"),
    (V3, "scalar_registers: 32", "scalar_registers: 33", "v3.yaml: limits.scalar_registers: expected 0..32, got 33"),
    (V3, "header_words: 2", "header_words: 3", "v3.yaml: encoding.header_words: expected 0..2, got 3"),
    (V3, "extends: v2", "extends: v3", "v3.yaml: extends: expected an end, got v3 -> v3"),
    (V3, "extends: v2", "extends: v9", "unknown target 'v9'"),
    (V3, "extends: v2", "extends: ../targets/v2", "unknown target '../targets/v2'"),
    (V3, "capabilities: {add:", "capabilities: {adds:", "v3.yaml: capabilities: expected the keys .*got adds"),
    (V3, "registers: {add: [ARG]}", "registers: [ARG]", r"v3.yaml: registers: expected the keys .*got \['ARG'\]"),
    (V3, "registers: {add: [ARG]}", "", "v3.yaml: registers: expected ARG, which capability scalars needs, got ID"),
    (V3, "LOOP, ENDLOOP", "LOOP", "v3.yaml: commands: expected ENDLOOP, which capability loops needs"),
    (V3, "add: [ARG]", "add: [ARG], remove: [ID]", "v3.yaml: registers: expected ID, which every target needs"),
    (V3, "semaphores: 32", "semaphores: 0", "v3.yaml: limits.semaphores: expected some .* got 0"),
    (V3, "loops, decoupled, ", "loops, ", "v3.yaml: limits.semaphores: expected .* none without, got 32"),
    (V3, "loops, decoupled, ", "decoupled, ", "v3.yaml: capabilities: expected scalars and loops beside decoupled"),
    (V3, "ENDLOOP, CALL", "ENDLOOP, ENDLOOP, CALL", "v3.yaml: commands: expected every name once, got 'ENDLOOP' again"),
    (V3, "ENDLOOP, CALL", "ENDLOOP, KALL", "command 'KALL' is not in targets/isa"),
    (V3, "tables: hbm", "tables: hbn", "board nano: memory expected one of hbm, ddr, got 'hbn'"),
    (V3, "[onchip, hbm]", "[]", "v3.yaml: roles.activations: expected a memory, got none"),
    (V3, "[onchip, hbm]", "[hbm, hbm]", "v3.yaml: roles.activations: expected every memory once, got 'hbm' again"),
    (V3, "[onchip, hbm]", "[onchip, 3]", "v3.yaml: roles.activations: expected str, got 3"),
    (V3, "[onchip, hbm]", "[onchip, hbn]", "board nano: memory expected one of hbm, ddr, got 'hbn'"),
    (V3, "kv: hbm", "kv: [onchip, hbm]", r"v3.yaml: roles: kv: expected str, got \['onchip', 'hbm'\]"),
    (V3, "weights: hbm", "weight: hbm", "v3.yaml: roles: expected the keys weights"),
    (V2, "roles: {add: {program: ddr}}\n", "", "v2.yaml: roles: expected a memory for program, got weights"),
    (COMMANDS, "opcode: 0x21", "opcode: 0x20", "targets/isa.SOFTMAX: expected a number of its own, got 32 as NORM has"),
    (COMMANDS, "opcode: 0x21", "opcode: 0x121", "commands.yaml: SOFTMAX: opcode: expected 0..255, got 289"),
    (COMMANDS, "    opcode: 0x21\n", "", "commands.yaml: SOFTMAX: expected the keys opcode, doc, fields, got engine"),
    (COMMANDS, "engine: matrix", "engine: matrx", "LINEAR: engine: expected one of load, .* got 'matrx'"),
    (COMMANDS, "  ROPE:", "  Rope:", "commands.yaml: Rope: expected a name like"),
    (COMMANDS, "in_place: [src, b]", "in_place: [src, c]", "ELTWISE: in_place: expected one of src, dst, b, got 'c'"),
    (COMMANDS, "{name: norm, kind: enum", "{name: norm, kind: enumeration", "NORM: field 0: .*enum"),
    (COMMANDS, "enum: norm_kind", "enum: norm_kinds", "NORM: field 0: enum: expected one of .* got 'norm_kinds'"),
    (COMMANDS, "{name: inv_n, kind: f32", "{name: inv_n, kind: f33", "NORM: field .*: kind: expected .* got 'f33'"),
    (COMMANDS, "{name: inv_n,", "{name: eps,", "NORM: field .*: expected a name of its own, got 'eps' again"),
    (COMMANDS, "{name: inv_n,", "{name: inv n,", "NORM: field .*: expected a name like .* got 'inv n'"),
    (COMMANDS, "kind: u2", "kind: u99", "kind: expected one of enum, flag, u1 .. u32, count, .* got 'u99'"),
    (COMMANDS, "kind: count, bits: 12", "kind: count, bits: 40", "groups.rows: .*bits: expected 1..32, got 40"),
    (COMMANDS, "{group: rows}", "{group: rowz}", "LINEAR: field .*: group: expected one of rows, got 'rowz'"),
    (CONTROL, "predicate: false", "predicate: 0", "control.yaml: ENDLOOP: predicate: expected bool, got 0"),
    (ENUMS, "rms: 0, layer: 1", "rms: 0, layer: 0", "enums.yaml: norm_kind.layer: expected a number of its own, got 0"),
    (ENUMS, "rms: 0, layer: 1", "rms: 0, layer: x", "enums.yaml: norm_kind.layer: expected int, got 'x'"),
    (REGISTERS, "offset: 0x004", "offset: 0x000", "registers.yaml.STATUS.*: expected a number of its own, got 0 as ID"),
    (REGISTERS, "offset: 0x004", "offset: 0x005", "registers.yaml: STATUS: offset: expected a multiple of 4, got 5"),
    (REGISTERS, "access: wo", "access: w", "registers.yaml: CONTROL: access: expected one of ro, wo, rw, got 'w'"),
]


WRONG += [
    (NANO, "clock_mhz: 100\n", f"clock_mhz: 100\npower: {power}\n", message)
    for power, message in (
        ("12", "nano.yaml: power"),
        ("{watts: 12}", "nano.yaml: power: .*source"),
        ("{watts: 0, source: x}", "nano.yaml: power.watts: expected a number above 0, got 0"),
        ("{watts: 5, source: ' '}", "nano.yaml: power.source: expected where the figure comes from"),
    )
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A writable copy of targets/."""
    ignored = shutil.ignore_patterns("rtl", "generated")
    return Path(shutil.copytree(data_root() / "targets", tmp_path / "targets", ignore=ignored))


@pytest.mark.parametrize(("file", "old", "new", "message"), WRONG)
def test_a_mistake_is_named(file: str, old: str, new: str, message: str, tree: Path) -> None:
    path = tree / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DlavmError, match=message) as error:
        load_target("v2" if file == V2 else "v3", "vcu128" if file in (URAM, VCU128) else "nano", tree)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"5", b"\xff\xfe", b"&a [*a]"])
@pytest.mark.parametrize("file", [NANO, V3, COMMANDS, CONTROL, ENUMS, REGISTERS])
def test_a_file_that_is_none(file: str, content: bytes, tree: Path) -> None:
    (tree / file).write_bytes(content)
    with pytest.raises(DlavmError, match=file):
        load_target("v3", "nano", tree)


@pytest.mark.parametrize("board", ["../boards/nano", "vcu129", "", "nano.yaml"])
def test_boards_that_are_not_there(board: str) -> None:
    with pytest.raises(DlavmError, match=r"unknown board .*; known: kv260, nano"):
        load_board(board)


def test_the_only_memory_has_any_name(tree: Path) -> None:
    text = (tree / NANO).read_text()
    assert HBM in text
    (tree / NANO).write_text("".join(line for line in text.replace(HBM, HBM.replace("hbm", "cloud")).splitlines(True)
                                     if "ddr" not in line))
    assert {load_target("v1", "nano", tree).space(role).name for role in ("kv", "tables")} == {"cloud"}


def test_more_engines_than_semaphores(tree: Path) -> None:
    (tree / "v4.yaml").write_text("extends: v3\nlimits: {semaphores: 8}\n")
    model = load_model(data_root() / "models" / "stories.py", "none")
    with pytest.raises(DlavmError, match=r"target v4: limits.semaphores expected at least 16, .* got 8"):
        compile_model(model, load_target("v4", "nano", tree), Options(ctx=32, chunk=4))


def test_a_command_that_a_rule_launches_and_the_target_lacks(tree: Path) -> None:
    (tree / "v4.yaml").write_text("extends: v3\ncommands: {remove: [NORM]}\n")
    spec = load_target("v4", "nano", tree)
    graph = load_model(data_root() / "models" / "stories.py", "none").graph(32, 4)
    problems = [what for where, what in lowering_problems(graph, spec)[0] if "norm" in where]
    assert len(problems) == 17 and all("command expected one of LINEAR, " in what for what in problems)
