"""The timed simulator against the Verilated core: cycles and all counters are equal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlavm.pack.artifact import Artifact
from dlavm.rtl import build
from dlavm.rtl.model import library
from dlavm.runtime.session import open_session
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.sim.timed import open_timed
from dlavm.support.paths import data_root
from dlavm.target import TargetSpec, load_target
from dlavm.target.isa import Instr
from tests.e2e.conftest import run_command
from tests.ops.programs import MAKERS, WRITE, Case, random_case
from tests.ops.test_engines import start
from tests.rtl.cores import V1, V2, execute, placed, write
from tests.rtl.test_sizes import BOARDS, named
from tests.rtl.timed_programs import case_of, concurrent_case, many_rows_case, single_case

NANO = load_target("v3", "nano")
LATENCIES = ("board", "1", "7", "40", "150")
OPS = sorted({make.__name__.upper() for make in MAKERS})
missing = build.missing_tools(("verilator",))
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))

Pair = tuple[NativeDevice, NativeDevice]


def pair_of(spec: TargetSpec) -> Iterator[Pair]:
    with NativeDevice(spec, f"rtl:{library(spec)}") as core, open_timed(spec) as timed:
        timed.set_option("check_hazards", 0)
        yield core, timed


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """The same calls go to both, so that their memories are refreshed in the same cycles. Nobody resets them."""
    yield from pair_of(NANO)


def counters(device: NativeDevice, spec: TargetSpec = NANO) -> dict[str, Any]:
    """Everything that a run counts, by register."""
    registers = spec.registers
    out: dict[str, Any] = {"run": device.counters()}
    for channel in range(sum(memory.channels for memory in spec.board.memories.values()) + 1):
        device.csr_write(registers["CHANNEL"].offset, channel)
        for name in ("READ", "WRITTEN", "BUSY", "STALLED", "IDLE"):
            at = registers[f"CHANNEL_{name}"].offset
            out[f"{name} of {channel}"] = device.csr_read(at) | device.csr_read(at + 4) << 32
    at = registers["ENGINE_BUSY"].offset
    return out | {f"engine {i}": device.csr_read(at + 8 * i) for i in range(4)}


def check(pair: Pair, case: Case, what: str, latency: str = "board") -> None:
    results = []
    for device in pair:
        device.set_option("latency", latency)
        start(device, NANO, case)
        device.run()
        results.append(counters(device))
    want, got = results
    different = {name: (want[name], got[name]) for name in want if want[name] != got[name]}
    assert want["run"].cycles > 0
    assert not different, f"{what}, latency {latency}: core, timed: {different}"


@pytest.mark.parametrize("op", OPS)
def test_each_command(pair: Pair, op: str) -> None:
    for seed in range(10):
        check(pair, single_case(NANO, op, seed), f"{op} {seed}", LATENCIES[seed % len(LATENCIES)])


@pytest.mark.parametrize("seed", range(5))
def test_random_programs(pair: Pair, seed: int) -> None:
    check(pair, random_case(NANO, seed, 8), f"seed {seed}", LATENCIES[seed])


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_engines_at_the_same_time(pair: Pair, first: int) -> None:
    for seed in range(first, first + 10):
        check(pair, concurrent_case(NANO, seed), f"seed {seed}", LATENCIES[seed % len(LATENCIES)])


def test_many_rows(pair: Pair) -> None:
    for seed in range(18):
        check(pair, many_rows_case(NANO, seed), f"seed {seed}", LATENCIES[seed % len(LATENCIES)])


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1200, 20))
def test_many_programs(pair: Pair, first: int) -> None:
    for seed in range(first, first + 20):
        check(pair, concurrent_case(NANO, seed), f"seed {seed}", LATENCIES[seed % len(LATENCIES)])
        check(pair, random_case(NANO, seed, 4), f"seed {seed}", LATENCIES[seed % len(LATENCIES)])


def test_another_timing_of_memory(pair: Pair) -> None:
    for changes in ("refresh_clocks=0", "cl=9 window=1 refresh_interval=300", "reads=2 writes=1", ""):
        for device in pair:
            device.set_option("timing", changes)
        for seed in range(4):
            check(pair, concurrent_case(NANO, seed), f"{changes}: seed {seed}")


def test_after_an_error(pair: Pair) -> None:
    """The same error; then a reset, and equal cycles again."""
    bad = case_of(NANO, [Instr("COPY", {"src": 0x100, "dst": WRITE // 16, "rows_o": 1, "rows_i": 1, "dim": 64}),
                         Instr("SCALAR", {"fn": NANO.enums["scalar_fn"]["div"], "rd": 1})])
    codes = []
    for device in pair:
        start(device, NANO, bad)
        with pytest.raises(DeviceError) as error:
            device.run()
        codes.append((error.value.code, device.csr_read(NANO.registers["ERROR_PC"].offset)))
        device.csr_write(NANO.registers["CONTROL"].offset, 2)
    assert codes[0] == codes[1] and codes[0][0] == "scalar"
    check(pair, concurrent_case(NANO, 3), "after an error", "40")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kv260", *BOARDS])
def test_other_boards(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """kv260: rows of 64 bytes, several clocks of memory a cycle, a memory that does not begin at zero. BOARDS: each
    width of the blocks."""
    spec = named(name, monkeypatch) if name in BOARDS else load_target("v3", name)
    for pair in pair_of(spec):
        for seed in range(30):
            case = (random_case(spec, seed, 6), many_rows_case(spec, seed), concurrent_case(spec, seed))[seed % 3]
            check_placed(pair, spec, case, f"seed {seed}")


def check_placed(pair: Pair, spec: TargetSpec, case: Case, what: str) -> None:
    """The same counters for a case whose operands go into the spaces of their roles."""
    case, results = placed(spec, case), []
    for device in pair:
        write(device, spec, case)
        execute(device, spec, case)
        results.append(counters(device, spec))
    want, got = results
    different = {key: (want[key], got[key]) for key in want if want[key] != got[key]}
    assert not different, f"{what}: core, timed: {different}"


@pytest.mark.slow
@pytest.mark.parametrize("spec", [V1, V2], ids=lambda spec: spec.name)
def test_other_generations(spec: TargetSpec) -> None:
    """v1: the host's accesses to registers take time too, and the counters go on from launch to launch."""
    for pair in pair_of(spec):
        for seed in range(40):
            for device in pair:
                device.set_option("latency", LATENCIES[seed % len(LATENCIES)])
            check_placed(pair, spec, random_case(spec, seed, 8), f"seed {seed}")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["v1", "v2"])
def test_a_model_on_other_generations(tmp_path: Path, target: str) -> None:
    """Two layers of odd sizes: a prompt of five tokens and three steps of one; with refreshes between the launches."""
    model = f"{data_root() / 'models' / 'llama.py'}:llama_tiny"
    out = tmp_path / target
    outcome = run_command("build", model, "--target", target, "--board", "nano", "--ctx", "128", "--weights", "random",
                          "-o", out)
    assert outcome.code == 0, outcome.err
    same_steps(out, steps=3)


@pytest.mark.slow
@pytest.mark.parametrize("kv", ["fp16", "mxint8"])
def test_the_bundled_model(tmp_path_factory: pytest.TempPathFactory, kv: str) -> None:
    """A prompt of five tokens and three steps of one."""
    out = tmp_path_factory.mktemp("stories") / "nano"
    model = data_root() / "models" / "stories.py"
    outcome = run_command("build", model, "--target", "v3", "--board", "nano", "--ctx", "128", "--kv", kv, "-o", out)
    assert outcome.code == 0, outcome.err
    same_steps(out, steps=3)


def same_steps(out: Path, steps: int) -> None:
    """Logits and all counters of the artifact's first steps: a prompt of five tokens, then one by one."""
    artifact = Artifact.open(out)
    with open_session(artifact, "rtl") as core, open_session(artifact, "timed") as timed:
        ids = [1, 203, 207, 261, 300]
        for _ in range(1 + steps):
            want, got = core.step(ids, 1), timed.step(ids, 1)
            assert want.logits.tobytes() == got.logits.tobytes()
            assert want.counters == got.counters
            ids = [int(got.next_ids[-1])]
        assert isinstance(core.device, NativeDevice) and isinstance(timed.device, NativeDevice)
        assert counters(core.device, artifact.target) == counters(timed.device, artifact.target)


@pytest.mark.slow
def test_the_table_in_the_documentation() -> None:
    """doc/timing.md has what `make timing` writes."""
    script = data_root() / "scripts" / "timing.py"
    done = subprocess.run([sys.executable, script, "--check"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
