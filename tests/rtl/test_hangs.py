"""Cores that hang, and hosts that do not wait: every run ends, and the core works again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from dlavm.rtl import build
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.target.isa import Instr, encode_program
from tests.ops.programs import PROGRAM, Case, random_case
from tests.rtl import cores
from tests.rtl.cores import RESET, START, V3, register
from tests.rtl.test_control_flow import check_same, flow_case, mark

missing = build.missing_tools()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))


@pytest.fixture
def core() -> Iterator[NativeDevice]:
    yield from cores.opened(V3)


def begin(core: NativeDevice, case: Case) -> None:
    """Starts a case, and does not wait for its end."""
    cores.write(core, V3, case)
    core.csr_write(register(V3, "PROGRAM"), PROGRAM // 16)
    core.csr_write(register(V3, "PROGRAM_WORDS"), len(case.words))
    core.csr_write(register(V3, "CONTROL"), START)


@pytest.mark.parametrize("after", [0, 700])
def test_memory_that_never_answers(core: NativeDevice, after: int) -> None:
    """A run in which nothing moves any more ends, from its start on or in the middle of it; then all is as ever."""
    case = random_case(V3, 3, commands=4)
    begin(core, case)
    if after:
        core.set_option("max_cycles", after)
        with pytest.raises(DeviceError, match=f"did not finish within {after} cycles"):
            core.run()
        core.set_option("max_cycles", 2_000_000)
    core.set_option("stalls", 1000)
    core.set_option("idle_cycles", 30000)
    with pytest.raises(DeviceError, match=r"run: the core hangs: no command and no beat of memory for 3\d{4} cycles"
                                          r".*it was reset") as error:
        core.run()
    assert error.value.code == "system"
    assert core.csr_read(register(V3, "STATUS")) == 0 and core.run() == 0
    core.set_option("stalls", 0)
    check_same(core, case, "afterwards")


def test_slow_memory_is_no_hang(core: NativeDevice) -> None:
    core.set_option("latency", 20000)
    core.set_option("idle_cycles", 25000)
    check_same(core, flow_case(mark(1, 1)), "latency 20000")


def test_a_reset_that_is_not_taken(core: NativeDevice) -> None:
    """Memory owes answers and gives none: the core is reset from outside, and works again."""
    case = random_case(V3, 3, commands=4)
    begin(core, case)
    core.set_option("max_cycles", 700)
    with pytest.raises(DeviceError, match="did not finish"):
        core.run()
    core.set_option("stalls", 1000)
    message = "CONTROL: the core did not end what it runs within 50... cycles; it was reset from outside"
    with pytest.raises(DeviceError, match=message):
        core.csr_write(register(V3, "CONTROL"), RESET)
    core.set_option("stalls", 0)
    core.set_option("max_cycles", 2_000_000)
    check_same(core, case, "afterwards")


def test_ctrl_c_ends_a_run(core: NativeDevice) -> None:
    """The main thread sees it while the core runs; the core is reset and runs what comes next."""
    # A process that was started in the background ignores the signal until it says otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    core.set_option("max_cycles", 50_000_000)
    loop = Instr("LOOP", {"rd": 1, "count": 0x7FFFFFFF, "body": len(encode_program(V3, mark(1, 1))) + 2})
    begin(core, flow_case([loop, *mark(1, 1), Instr("ENDLOOP")]))
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        core.run()
    timer.join()
    signal.signal(signal.SIGINT, before)
    assert core.csr_read(register(V3, "STATUS")) == core.csr_read(register(V3, "PROGRAM")) == 0
    check_same(core, random_case(V3, 5, commands=4), "afterwards")


def test_errors_of_a_run_reach_every_thread(core: NativeDevice) -> None:
    """Whether the main thread calls, or another one, which no Ctrl-C reaches."""
    errors: list[BaseException] = []

    def run() -> None:
        begin(core, flow_case([Instr("RET")]))
        try:
            core.run()
        except DeviceError as error:
            errors.append(error)

    run()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(errors) == 2 and str(errors[0]) == str(errors[1])
    assert str(errors[0]).startswith("command at word 0: stack:")
