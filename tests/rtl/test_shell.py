"""The core with standard AXI ports: lint, names and widths of the ports, tied signals, and a program through it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dlavm.rtl import build, model, shell
from dlavm.sim.native import NativeDevice
from dlavm.target import TargetSpec, load_target
from tests.e2e.conftest import run_command
from tests.ops.programs import random_case
from tests.rtl.test_control_flow import check_same

NANO = load_target("v3", "nano")
missing = build.missing_tools(("verilator",))
needs_verilator = pytest.mark.skipif(missing is not None, reason=str(missing))

# AMBA AXI4, what a master and its slave drive; xSIZE and so on with their widths, data apart.
MASTER_DRIVES = {f"{x}{name}": bits for x in ("aw", "ar") for name, bits in
                 {"addr": 40, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "qos": 4, "id": 1,
                  "valid": 1}.items()} | {"wlast": 1, "wvalid": 1, "bready": 1, "rready": 1}
SLAVE_DRIVES = {"awready": 1, "arready": 1, "wready": 1, "bid": 1, "bresp": 2, "bvalid": 1, "rid": 1, "rresp": 2,
                "rlast": 1, "rvalid": 1}


def hbm_only(channels: int) -> TargetSpec:
    """A vcu128 with few of its pseudo-channels and no DDR4: read and elaborated in a moment."""
    spec = load_target("v3", "vcu128")
    hbm = spec.board.memories["hbm"]
    memory = replace(hbm, channels=channels, capacity=hbm.capacity * channels // hbm.channels)
    return replace(spec, board=replace(spec.board, memories={"hbm": memory}, vector_lanes=16))


def ports(text: str) -> dict[str, tuple[str, int]]:
    """Name -> direction, bits of the ports of a module."""
    found = re.findall(r"^  (input|output) +wire (?:\[(\d+):0\] )?(\w+),?$", text, re.M)
    return {name: (direction, int(high or 0) + 1) for direction, high, name in found}


@needs_verilator
@pytest.mark.parametrize("spec", [NANO, load_target("v3", "kv260"), hbm_only(2)], ids=lambda s: str(s.board.name))
def test_tops_are_clean(spec: TargetSpec, tmp_path: Path) -> None:
    top = shell.write_shell(spec, tmp_path)[0]
    assert build.lint(shell.top_name(spec), [top]) == ""


@needs_verilator
def test_the_top_is_verilog(tmp_path: Path) -> None:
    """As UG1118 wants it of what is packaged; `logic` is a word of SystemVerilog."""
    top = shell.write_shell(NANO, tmp_path)[0]
    assert top.suffix == ".v"
    top.write_text(top.read_text().replace("input  wire aclk", "input  logic aclk"))
    assert "logic" in build.lint(shell.top_name(NANO), [top])


@pytest.mark.parametrize(("spec", "channels", "width"), [(NANO, 3, 16), (load_target("v3", "kv260"), 1, 64),
                                                         (hbm_only(2), 2, 64)])
def test_every_signal_of_every_channel(spec: TargetSpec, channels: int, width: int) -> None:
    found = ports(shell.top_text(spec))
    expected = {"aclk": ("input", 1), "aresetn": ("input", 1), "busy": ("output", 1)}
    for channel in range(channels):
        driven = MASTER_DRIVES | {"wdata": 8 * width, "wstrb": width}
        signals = {name: ("output", bits) for name, bits in driven.items()}
        signals |= {name: ("input", bits) for name, bits in (SLAVE_DRIVES | {"rdata": 8 * width}).items()}
        expected |= {f"m{channel:02}_axi_{name}": port for name, port in signals.items()}
    lite = {name: port for name, port in found.items() if name.startswith("s_axi_")}
    assert {name: port for name, port in found.items() if name not in lite} == expected
    assert {name[6:]: port for name, port in lite.items()} == {
        "awaddr": ("input", 12), "awprot": ("input", 3), "awvalid": ("input", 1), "awready": ("output", 1),
        "wdata": ("input", 32), "wstrb": ("input", 4), "wvalid": ("input", 1), "wready": ("output", 1),
        "bresp": ("output", 2), "bvalid": ("output", 1), "bready": ("input", 1), "araddr": ("input", 12),
        "arprot": ("input", 3), "arvalid": ("input", 1), "arready": ("output", 1), "rdata": ("output", 32),
        "rresp": ("output", 2), "rvalid": ("output", 1), "rready": ("input", 1)}  # fmt: skip


def test_channels_lie_where_the_card_expects_them() -> None:
    """As doc/devices.md says: contiguous parts of each memory."""
    hbm, ddr = NANO.board.memories["hbm"], NANO.board.memories["ddr"]
    assert shell.channel_bases(hbm) == [0, hbm.capacity // 2]
    assert ".CHANNEL_BASE({40'h800000000, 40'h4000000, 40'h0})" in shell.top_text(NANO)
    assert shell.channel_bases(ddr) == [ddr.base]


def test_the_masters_of_each_memory_are_named() -> None:
    lines = [line for line in shell.top_text(load_target("v3", "vcu128")).splitlines() if line.startswith("//")]
    assert lines == [
        "// The core of v3 on vcu128.", "// hbm: m00_axi to m31_axi.", "// ddr: m32_axi to m32_axi.",
        "// onchip: m33_axi to m40_axi, on the chip: "
        "the wrapper puts 1179648 bytes of RAM with a port for reads and one for writes behind each.",
    ]  # fmt: skip


def test_files(tmp_path: Path) -> None:
    spec = load_target("v3", "kv260")
    outcome = run_command("core", "--target", "v3", "--board", "kv260", "--shell", tmp_path / "new", "--json")
    report = outcome.json
    assert (outcome.code, report["top"], report["target_hash"]) == (0, "dlavm_v3_kv260", spec.hash)
    top, constraints, sources = (Path(file) for file in report["files"])
    assert "create_clock -name aclk -period 3.333 [get_ports aclk]" in constraints.read_text()
    assert "ASYNC_REG TRUE [get_cells {u_shell/reset_q_reg u_shell/rst_o_reg}]" in constraints.read_text()
    listed = sources.read_text().split()
    assert listed[-1] == top.name and all((sources.parent / file).is_file() for file in listed)
    assert {Path(file).stem for file in listed} >= {"core_pkg", "dlavm_core", "dlavm_shell", "dlavm_isa_pkg"}
    assert listed[: len(build.PACKAGES)] == [f"rtl/{path.name}" for path in build.packages()]
    assert {path.name for path in (sources.parent / "rtl").iterdir()} == {Path(file).name for file in listed[:-1]}
    assert "hbm: ports of 450 MHz" in shell.constraints_text(load_target("v3", "vcu128"))


@needs_verilator
def test_a_moved_folder_is_whole(tmp_path: Path) -> None:
    """Its list is all that a tool needs, wherever it is read from; nothing in it names the place of the sources."""
    shell.write_shell(NANO, tmp_path / "new" / "a folder")
    moved = (tmp_path / "new").rename(tmp_path / "moved") / "a folder"
    command = ["verilator", "--lint-only", "-Wall", "-quiet", "+1364-2005ext+v", "--top-module", shell.top_name(NANO),
               "-F", str(moved / "files.f")]  # fmt: skip
    done = subprocess.run(command, env=build.verilator_env(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr + done.stdout) == (0, "")
    texts = [path.read_text() for path in moved.rglob("*") if path.is_file()]
    assert len(texts) > 50 and not any(str(part) in text for text in texts for part in (build.rtl_dir(), tmp_path))
    (moved / "rtl" / "store_engine.sv").unlink()
    assert subprocess.run(command, env=build.verilator_env(), cwd=tmp_path, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "expected an ARTIFACT, or --target and --board"),
    (["--target", "v3"], "expected an ARTIFACT, or --target and --board"),
    (["--target", "v9", "--board", "nano"], "v9"),
    (["nowhere"], "expected a directory that `dlavm build` wrote, got 'nowhere'"),
    (["nowhere", "--board", "nano"], "got both"),
    (["--target", "v3", "--board", "nano", "--shell", "/proc/none"], "shell: /proc/none: expected to be written"),
    (["--target", "v3", "--board", "nano", "--shell", "x", "--waves"], "not allowed with"),
])  # fmt: skip
def test_bad_usage(arguments: list[str], message: str, tmp_path: Path) -> None:
    outcome = run_command("core", *arguments, *(() if "--shell" in arguments else ("--shell", tmp_path / "shell")))
    assert (outcome.code, outcome.out) == (2, "")
    assert re.search(message, outcome.err) and outcome.err.count("\n") == 1


def harness(spec: TargetSpec) -> str:
    """The module that sim/model.cpp clocks, around the top of the board: addresses from the start of each channel.

    What the core leaves open is checked in every cycle that it counts.
    """
    parts = [(base, memory.capacity // memory.channels) for memory in spec.board.memories.values()
             for base in shell.channel_bases(memory)]
    channels, width = len(parts), next(iter(spec.board.memories.values())).port_bytes
    signals = {**MASTER_DRIVES, "wdata": 8 * width, "wstrb": width}
    drives = "\n".join(f"  logic [{bits - 1}:0] {name} [{channels}];" for name, bits in signals.items())
    lines, connections = [], [".aclk(clk_i)", ".aresetn(!rst_i)", ".busy(busy_o)"]
    for c, (base, size) in enumerate(parts):
        for x in ("aw", "ar"):
            lines += [f"  assign m_{x}_valid_o[{c}] = {x}valid[{c}];", f"  assign m_{x}_len_o[8*{c}+:8] = {x}len[{c}];",
                      f"  assign m_{x}_addr_o[40*{c}+:40] = {x}addr[{c}] - 40'h{base:x};",
                      f"  always @(posedge clk_i) if ({x}valid[{c}] && !rst_i && "
                      f"({x}size[{c}] != {width.bit_length() - 1} || {x}burst[{c}] != 1 || {x}id[{c}] != 0 || "
                      f"{x}qos[{c}] != 0 || {x}prot[{c}] != 0 || {x}addr[{c}] - 40'h{base:x} >= {size} || "
                      f"{x}lock[{c}] != 0 || {x}cache[{c}] != 3)) $fatal;"]
            connections.append(f".m{c:02}_axi_{x}ready(m_{x}_ready_i[{c}])")
        lines += [f"  assign m_r_ready_o[{c}] = rready[{c}];", f"  assign m_b_ready_o[{c}] = bready[{c}];",
                  f"  assign m_w_valid_o[{c}] = wvalid[{c}];", f"  assign m_w_last_o[{c}] = wlast[{c}];",
                  f"  assign m_w_data_o[{8 * width}*{c}+:{8 * width}] = wdata[{c}];",
                  f"  assign m_w_strb_o[{width}*{c}+:{width}] = wstrb[{c}];"]
        inputs = {"wready": f"m_w_ready_i[{c}]", "bid": "1'd0", "bresp": f"m_b_resp_i[2*{c}+:2]",
                  "bvalid": f"m_b_valid_i[{c}]", "rid": "1'd0", "rdata": f"m_r_data_i[{8 * width}*{c}+:{8 * width}]",
                  "rresp": f"m_r_resp_i[2*{c}+:2]", "rlast": "1'd0", "rvalid": f"m_r_valid_i[{c}]"}
        connections += [f".m{c:02}_axi_{name}({value})" for name, value in inputs.items()]
        connections += [f".m{c:02}_axi_{name}({name}[{c}])" for name in signals]
    slave = {"awaddr": "s_aw_addr_i", "awprot": "3'd0", "awvalid": "s_aw_valid_i", "awready": "s_aw_ready_o",
             "wdata": "s_w_data_i", "wstrb": "4'hf", "wvalid": "s_w_valid_i", "wready": "s_w_ready_o", "bresp": "bresp",
             "bvalid": "s_b_valid_o", "bready": "s_b_ready_i", "araddr": "s_ar_addr_i", "arprot": "3'd0",
             "arvalid": "s_ar_valid_i", "arready": "s_ar_ready_o", "rdata": "s_r_data_o", "rresp": "rresp",
             "rvalid": "s_r_valid_o", "rready": "s_r_ready_i"}
    connections += [f".s_axi_{name}({value})" for name, value in slave.items()]
    head = model.top_text(spec).split("  dlavm_core #(")[0]
    return (f"{head}{drives}\n  logic [1:0] bresp, rresp;\n" + "\n".join(lines) +
            f"\n  {shell.top_name(spec)} u_board (" + ", ".join(connections) + ");\nendmodule\n")


@pytest.mark.slow
@needs_verilator
def test_programs_through_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = shell.write_shell(NANO, tmp_path)[0]
    text = harness(NANO)
    monkeypatch.setattr(model, "top_text", lambda spec: text)
    with NativeDevice(NANO, f"rtl:{model.library(NANO, [top.parent])}") as core:
        for seed in range(4):
            core.set_option("stalls", 200 * (seed % 2))
            check_same(core, random_case(NANO, seed, commands=8), f"seed {seed}")
