"""Every command of the target runs on the Verilated core with every value of its fields; doc/hardware.md says so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from dlavm.rtl import build
from dlavm.rtl.model import library
from dlavm.sim.native import NativeDevice
from dlavm.target import load_target
from dlavm.target.isa import Instr, encode_program
from tests.ops.coverage import Item, all_items, covering_cases, items_of, table
from tests.rtl.cores import memory_after

NANO = load_target("v3", "nano")
BLOCK = re.compile(r"(<!-- begin coverage -->\n\n).*?(<!-- end coverage -->)", re.S)
missing = build.missing_tools(("verilator",))


@pytest.fixture(scope="module")
def ran() -> set[Item]:
    """Items of the streams that ran on the core and left the simulator's memory behind."""
    items: set[Item] = set()
    with NativeDevice(NANO) as sim, NativeDevice(NANO, f"rtl:{library(NANO)}") as core:
        core.set_option("max_cycles", 4_000_000)
        for name, case in covering_cases(NANO):
            different = np.flatnonzero(memory_after(sim, NANO, case) != memory_after(core, NANO, case))
            assert different.size == 0, f"{name}: {different.size} bytes differ, the first at 0x{different[0]:x}"
            items |= items_of(NANO, case.words)
    return items


@pytest.mark.skipif(missing is not None, reason=str(missing))
def test_every_value_of_every_field_ran(ran: set[Item]) -> None:
    assert sorted(all_items(NANO) - ran) == []


@pytest.mark.skipif(missing is not None, reason=str(missing))
def test_the_documented_table(ran: set[Item], repository: Path, request: pytest.FixtureRequest) -> None:
    page = repository / "doc" / "hardware.md"
    text = page.read_text(encoding="utf-8")
    assert BLOCK.search(text)
    expected = BLOCK.sub(lambda found: f"{found[1]}{table(NANO, ran)}\n{found[2]}", text)
    if request.config.getoption("--update-golden"):
        page.write_text(expected, encoding="utf-8")
        return
    assert text == expected, "doc/hardware.md: another table; if that is meant, rerun with --update-golden"


def test_what_is_not_run_is_missing() -> None:
    """The measure itself: an empty program has END alone, and the table says what else there is."""
    items = items_of(NANO, encode_program(NANO, [Instr("END")]))
    assert items == {("END", "")}
    rows = table(NANO, items)
    assert "| COPY (never) | - | 0 of 9 | no |" in rows and "| END | - | - | no |" in rows
    assert "ENDLOOP (never) | - | - | none |" in rows
    whole = items_of(NANO, encode_program(NANO, [Instr("NORM", {"norm": 1, "use_beta": 1, "rows_o": 1, "rows_i": 1,
                                                               "dim": 8}, 3)]))
    assert whole == {("NORM", ""), ("NORM", "norm=1"), ("NORM", "use_beta=1"), ("NORM", "predicate")}
