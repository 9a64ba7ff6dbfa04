"""Quantised checkpoints: the numbers that their kernels multiply with, in our formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dlavm.formats import FORMATS
from dlavm.frontend.quantized import QuantizedSource, open_checkpoint
from dlavm.support.errors import DlavmError
from tests.unit.quantized_tensors import (
    Made,
    awq,
    fp8,
    gptq,
    int_quantized,
    mxfp4_packed,
    pack_quantized,
    write,
)

NAME = "model.layers.0.mlp.up_proj"
GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}
AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
FP8: dict[str, Any] = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}


def compressed(**weights: Any) -> dict[str, Any]:
    scheme = {"weights": {"num_bits": 4, "type": "int", "symmetric": True, **weights}, "targets": ["Linear"]}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": scheme},
            "ignore": ["lm_head"]}  # fmt: skip


def opened(folder: Path, made: Made, quantization: dict[str, Any]) -> QuantizedSource:
    """The source of a checkpoint with this layer, a norm, and a bias of the layer."""
    others = {"model.norm.weight": np.ones(8, np.float32), f"{NAME}.bias": np.ones(len(made.values), np.float16)}
    write(folder, {**{f"{NAME}.{end}": tensor for end, tensor in made.tensors.items()}, **others}, quantization)
    source = open_checkpoint(folder)
    assert isinstance(source, QuantizedSource)
    return source


CASES = {
    "gptq": (gptq(40, 96), GPTQ, "int4g32z"),
    "gptq symmetric": (gptq(40, 96, sym=True), GPTQ, "int4g32"),
    "gptq version 2": (gptq(40, 96, v2=True), {**GPTQ, "checkpoint_format": "gptq_v2"}, "int4g32z"),
    "gptq groups of 64": (gptq(40, 192, 64), {**GPTQ, "group_size": 64}, "int4g64z"),
    "gptq groups of 128": (gptq(40, 256, 128), {**GPTQ, "group_size": 128}, "int4g128z"),
    "gptq a short group": (gptq(40, 160, 128), {**GPTQ, "group_size": 128}, "int4g128z"),
    "gptq a group a row": (gptq(40, 160, -1), {**GPTQ, "group_size": -1}, "int4g128z"),
    "gptq groups of 1024": (gptq(8, 2048, 1024, sym=True), {**GPTQ, "group_size": 1024}, "int4g128"),
    "gptq groups of 96": (gptq(8, 192, 96), {**GPTQ, "group_size": 96}, "int4g32z"),
    "gptq of 8 bits": (gptq(40, 96, bits=8), {**GPTQ, "bits": 8}, "int8g32z"),
    "gptq symmetric of 8 bits": (gptq(40, 96, bits=8, sym=True), {**GPTQ, "bits": 8}, "int8g32"),
    "gptq act-order": (gptq(40, 96, act=True), {**GPTQ, "desc_act": True}, "int4g32z"),
    "gptq act-order, a short group": (gptq(40, 160, 128, act=True), {**GPTQ, "group_size": 128}, "int4g128z"),
    "awq": (awq(40, 96), AWQ, "int4g32z"),
    "awq groups of 128": (awq(16, 256, 128), {**AWQ, "group_size": 128}, "int4g128z"),
    "awq, its older spelling": (awq(16, 96, -1), {"quant_method": "awq", "w_bit": 4, "q_group_size": -1}, "int4g128z"),
    "packed": (pack_quantized(40, 96), compressed(group_size=32, strategy="group"), "int4g32"),
    "packed with zero points": (pack_quantized(44, 96, sym=False), compressed(group_size=32), "int4g32z"),
    "packed, odd sizes": (pack_quantized(5, 77, 32, sym=False), compressed(group_size=32), "int4g32z"),
    "packed by rows": (pack_quantized(40, 100, -1), compressed(strategy="channel"), "int4g128"),
    "packed of 8 bits": (pack_quantized(40, 96, bits=8, sym=False), compressed(group_size=32), "int8g32z"),
    "packed in bf16": (pack_quantized(40, 96, dtype=ml_dtypes.bfloat16), compressed(group_size=32), "int4g32"),
    "packed act-order": (pack_quantized(40, 96, act=True), compressed(group_size=32, actorder="group"), "int4g32"),
    "int8 by rows": (int_quantized(40, 96, (40, 1), 96), compressed(num_bits=8, strategy="channel"), "int8g128"),
    "int8 by groups": (int_quantized(40, 96, (40, 3), 32, sym=False), compressed(group_size=32), "int8g32z"),
    "int8 with one scale": (int_quantized(40, 96, (1,), 96), compressed(strategy="tensor"), "int8g128"),
    "mxfp4": (mxfp4_packed(40, 96), compressed(group_size=32), "mxfp4"),
    "fp8 by blocks": (fp8(200, 300, (2, 3), (128, 128), "weight_scale_inv", np.float32), FP8, "fp8g128"),
    "fp8 by rows": (fp8(40, 96, (40, 1), (1, 96), "weight_scale", ml_dtypes.bfloat16), FP8, "fp8g128"),
    "fp8 with one scale": (fp8(40, 96, (), (40, 96), "weight_scale", np.float32), FP8, "fp8g128"),
    "fp8 compressed": (fp8(40, 96, (1,), (40, 96), "weight_scale", np.float32),
                       {**compressed(num_bits=8, type="float"), "format": "float-quantized"}, "fp8g128"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_exact_grids(case: str, tmp_path: Path) -> None:
    made, quantization, format = CASES[case]
    source = opened(tmp_path, made, quantization)
    weight, order = f"{NAME}.weight", [f"{NAME}.permutation"] if made.order is not None else []
    assert source.names() == sorted(["model.norm.weight", f"{NAME}.bias", weight, *order])  # no helper is left
    assert (source.dtype(weight), source.note(weight), source.shape(weight)) == (format, "", made.values.shape)
    np.testing.assert_array_equal(source.get(weight), made.given)
    n = len(made.values)
    for rows in (slice(None), slice(0, 1), slice(3, n - 1), slice(n - 1, n), slice(2, 2)):
        grid = source.grid(weight, rows)
        assert grid is not None and grid.format == FORMATS[format]
        np.testing.assert_array_equal(grid.values(), made.given[rows])
        np.testing.assert_array_equal(source.get(weight, rows), made.given[rows])
    if made.order is not None:
        assert source.permutations == {weight: order[0]} and source.dtype(order[0]) == "I32"
        np.testing.assert_array_equal(source.get(order[0]), made.order)


def test_bf16_cases_are_what_they_say() -> None:
    """That bf16 scales above are exact in fp16, so that the test of exactness means something."""
    for case in ("packed in bf16", "fp8 by rows"):
        scales = CASES[case][0].tensors["weight_scale"]
        assert scales.dtype == ml_dtypes.bfloat16


def test_zero_points_of_the_first_gptq_wrap(tmp_path: Path) -> None:
    """A zero point of 0 is stored as -1."""
    made = gptq(8, 32)
    made.tensors["qzeros"] = np.full((1, 1), -1, np.int32)
    grid = opened(tmp_path, made, GPTQ).grid(f"{NAME}.weight")
    assert grid is not None and grid.zero is not None and not grid.zero.any()


def test_scales_that_fp16_rounds(tmp_path: Path) -> None:
    """The codes are kept, the note says what is lost, and `get` gives the checkpoint's own numbers."""
    made = fp8(200, 300, (2, 3), (128, 128), "weight_scale_inv", np.float32, exact=False)
    source = opened(tmp_path, made, FP8)
    name = f"{NAME}.weight"
    assert source.dtype(name) == "fp8g128" and source.note(name).startswith("scales rounded to fp16, by up to 0.0")
    np.testing.assert_array_equal(source.get(name), made.values)
    grid = source.grid(name)
    assert grid is not None
    np.testing.assert_allclose(grid.values(), made.values, rtol=5e-4)
    assert not np.array_equal(grid.values(), made.values)


@pytest.mark.parametrize("scale", [1e-9, 1e8])
def test_scales_beyond_fp16(scale: float, tmp_path: Path) -> None:
    made = fp8(40, 96, (40, 1), (1, 96), "weight_scale", np.float32)
    made.tensors["weight_scale"] = made.tensors["weight_scale"] * np.float32(scale)
    source = opened(tmp_path, made, FP8)
    name = f"{NAME}.weight"
    assert source.dtype(name) == "F32" and source.grid(name) is None
    assert source.note(name) == "scales that fp16 does not hold"
    np.testing.assert_allclose(source.get(name), made.values * np.float32(scale), rtol=1e-6)


def test_groups_that_no_format_has(tmp_path: Path) -> None:
    made = gptq(8, 96, 48)
    source = opened(tmp_path, made, {**GPTQ, "group_size": 48})
    name = f"{NAME}.weight"
    assert (source.dtype(name), source.note(name)) == ("F32", "groups of 48 weights")
    np.testing.assert_array_equal(source.get(name), made.values)
    made = fp8(128, 128, (2, 2), (64, 64), "weight_scale_inv", np.float32)
    source = opened(tmp_path / "fp8", made, {**FP8, "weight_block_size": [64, 64]})
    assert (source.dtype(name), source.note(name)) == ("F32", "groups of 64 weights")
    np.testing.assert_array_equal(source.get(name), made.values)


def test_exponents_beyond_ours(tmp_path: Path) -> None:
    made, name = mxfp4_packed(4, 64), f"{NAME}.weight"
    made.tensors["weight_packed"][1, :16] &= 0x88  # zeros of either sign
    made.tensors["weight_scale"][1, 0] = 0
    made.values[1, :32] = 0
    source = opened(tmp_path / "zeros", made, compressed())
    grid = source.grid(name)
    assert source.dtype(name) == "mxfp4" and grid is not None
    np.testing.assert_array_equal(grid.values(), made.values)
    made.tensors["weight_scale"][2, 1] = 20
    source = opened(tmp_path / "small", made, compressed())
    assert (source.dtype(name), source.note(name)) == ("F32", "scales beyond 2^+-40")
    assert np.isfinite(source.get(name)).all()


def test_experts_in_mxfp4(tmp_path: Path) -> None:
    made = [mxfp4_packed(6, 64, seed) for seed in (1, 2, 3)]
    blocks = np.stack([m.tensors["weight_packed"].reshape(6, 2, 16) for m in made])
    scales = np.stack([m.tensors["weight_scale"] for m in made])
    tensors = {"mlp.experts.gate_up_proj_blocks": blocks, "mlp.experts.gate_up_proj_scales": scales}
    source = open_checkpoint(write(tmp_path, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": []}))
    assert source.names() == [f"mlp.experts.{i}.gate_up_proj.weight" for i in range(3)]
    for name, expert in zip(source.names(), made, strict=True):
        grid = source.grid(name, slice(1, 5))
        assert source.dtype(name) == "mxfp4" and source.shape(name) == (6, 64) and grid is not None
        np.testing.assert_array_equal(grid.values(), expert.values[1:5])
        np.testing.assert_array_equal(source.get(name), expert.values)


def test_layers_with_the_same_order_share_it(tmp_path: Path) -> None:
    made = {f"layers.{i}.self_attn.{p}": gptq(8, 64, act=True, seed=9 + (p == "o")) for i in (0, 1) for p in "qkvo"}
    tensors = {f"{name}.{end}": tensor for name, m in made.items() for end, tensor in m.tensors.items()}
    source = open_checkpoint(write(tmp_path, tensors, GPTQ))
    assert isinstance(source, QuantizedSource)
    assert source.permutations == {
        f"layers.{i}.self_attn.{p}.weight": f"layers.{i}.self_attn.{'o' if p == 'o' else 'k'}.permutation"
        for i in (0, 1) for p in "qkvo"
    }  # fmt: skip


def test_other_floats_and_no_config(tmp_path: Path) -> None:
    tensors = {"lm_head.weight": np.ones((3, 4), np.float16)}
    source = open_checkpoint(write(tmp_path, tensors, GPTQ))
    assert source.names() == ["lm_head.weight"] and source.dtype("lm_head.weight") == "F16"
    assert source.grid("lm_head.weight") is None and source.note("lm_head.weight") == ""
    with pytest.raises(DlavmError, match="expected a tensor of the checkpoint, got 'other'"):
        source.get("other")
    assert not isinstance(open_checkpoint(write(tmp_path, tensors, None)), QuantizedSource)


METHODS: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "bitsandbytes"}, r"quant_method expected one of .*'gptq', 'awq'.*got 'bitsandbytes'"),
    ({}, "quantization_config.quant_method expected one of .*, got None"),
    ({**GPTQ, "bits": 3}, "quantization_config.bits expected 4 or 8, got 3"),
    ({**GPTQ, "bits": None}, "quantization_config.bits expected a positive integer, got None"),
    ({**GPTQ, "group_size": 0}, "quantization_config.group_size expected a positive integer, got 0"),
    ({**GPTQ, "group_size": -2}, "quantization_config.group_size expected a positive integer, got -2"),
    ({**GPTQ, "checkpoint_format": "marlin"}, "checkpoint_format expected 'gptq' or 'gptq_v2', got 'marlin'"),
    ({**GPTQ, "is_marlin_format": True}, "is_marlin_format expected False, got True"),
    ({**GPTQ, "dynamic": {"+:.*up.*": {"bits": 8}}}, "dynamic expected none but layers left out"),
    ({**AWQ, "bits": 8}, "quantization_config.bits expected 4, got 8"),
    ({**AWQ, "version": "gemv"}, "quantization_config.version expected 'gemm', got 'gemv'"),
    ({**FP8, "weight_block_size": [128]}, r"weight_block_size expected two positive integers, got \[128\]"),
    ({**compressed(), "format": "marlin-24"}, "quantization_config.format expected .*, got 'marlin-24'"),
    ({**compressed(), "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config.format expected 'dense'"),
    ({**compressed(), "config_groups": [1]}, "config_groups expected an object or null"),
    (compressed(group_size="32"), "config_groups.group_0.weights.group_size expected a positive integer, got '32'"),
]  # fmt: skip


@pytest.mark.parametrize(("quantization", "complaint"), METHODS)
def test_configurations_that_are_not_read(quantization: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    tensors = {f"{NAME}.{end}": tensor for end, tensor in gptq(8, 32).tensors.items()}
    write(tmp_path, tensors, {"quant_method": None} | quantization)
    with pytest.raises(DlavmError, match=complaint) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: ")


def changed(made: Made, **tensors: Any) -> Made:
    return Made({end: t for end, t in {**made.tensors, **tensors}.items() if t is not None}, made.values, made.order)


I32 = np.int32
BAD: dict[str, tuple[Made, dict[str, Any], str]] = {
    "no scales": (changed(gptq(8, 64), scales=None), GPTQ, "expected a tensor .*.scales, got none"),
    "no zero points": (changed(gptq(8, 64), qzeros=None), GPTQ, "expected a tensor .*up_proj.qzeros, got none"),
    "scales of another group size": (gptq(8, 64, 64), GPTQ, r".scales expected the shape \[2, 8\], got \[1, 8\]"),
    "integer scales": (changed(gptq(8, 64), scales=np.ones((2, 8), I32)), GPTQ, "scales expected the type F16 or BF16"),
    "zero points of another width": (
        changed(gptq(8, 64), qzeros=np.ones((2, 2), I32)), GPTQ, r"qzeros expected the shape \[2, 1\], got \[2, 2\]"),
    "flat weights": (changed(gptq(8, 64), qweight=np.ones(8, I32)), GPTQ, r"qweight expected 2 axes .* got \[8\]"),
    "no weights": (changed(gptq(8, 64), qweight=np.ones((0, 8), I32)), GPTQ, r"qweight expected 2 axes.* got \[0, 8\]"),
    "float weights": (changed(gptq(8, 64), qweight=np.ones((8, 8), np.float16)), GPTQ, "qweight expected the type I32"),
    "a short g_idx": (changed(gptq(8, 64), g_idx=np.zeros(8, I32)), GPTQ, r"g_idx expected .*\[64\], got \[8\]"),
    "a group beyond": (changed(gptq(8, 64), g_idx=np.full(64, 2, I32)), GPTQ, "g_idx expected groups of 0..1, got 2"),
    "a group below": (changed(gptq(8, 64), g_idx=np.full(64, -1, I32)), GPTQ, "g_idx expected groups of 0..1, got -1"),
    "groups that are not full": (
        changed(gptq(8, 64), g_idx=np.zeros(64, I32)), GPTQ, "g_idx expected 32 columns of group 0, got 64"),
    "awq zero points": (
        changed(awq(8, 64), qzeros=np.ones((1, 1), I32)), AWQ, r"qzeros expected the shape \[2, 1\], got \[1, 1\]"),
    "no shape": (changed(pack_quantized(8, 64), weight_shape=None), compressed(group_size=32),
                 "expected a tensor .*weight_shape, got none"),
    "another shape": (changed(pack_quantized(8, 64), weight_shape=np.array([8, 1 << 40])), compressed(group_size=32),
                      r"weight_packed expected the shape \[8, 137438953472\] or .*, got \[8, 8\]"),
    "a negative shape": (changed(pack_quantized(8, 64), weight_shape=np.array([8, -64])), compressed(group_size=32),
                         r"weight_shape expected two positive extents, got \[8, -64\]"),
    "an unknown group size": (pack_quantized(8, 64, 32), compressed(group_size=16),
                              r"weight_scale expected the shape \[1\] or \[8, 1\] or \[8, 4\], got \[8, 2\]"),
    "nvfp4": (changed(mxfp4_packed(8, 64), weight_global_scale=np.ones(1, np.float32)), compressed(),
              "expected MXFP4 or integers, got 'NVFP4'"),
    "fp8 without scales": (changed(fp8(8, 64, (1,), (8, 64), "weight_scale", np.float32), weight_scale=None), FP8,
                           "expected a tensor .*weight_scale, got none"),
    "fp8 with other blocks": (fp8(200, 300, (4, 5), (64, 64), "weight_scale_inv", np.float32), FP8,
                              r"weight_scale_inv expected the shape .* or \[2, 3\], got \[4, 5\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_tensors(case: str, tmp_path: Path) -> None:
    made, quantization, complaint = BAD[case]
    with pytest.raises(DlavmError, match=complaint) as caught:
        opened(tmp_path, made, quantization)
    assert str(tmp_path) in str(caught.value)


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    name, infinite, nan = f"{NAME}.weight", gptq(8, 64), fp8(8, 64, (1,), (8, 64), "weight_scale", np.float32)
    infinite.tensors["scales"][1, 3] = np.inf
    nan.tensors["weight"].view(np.uint8)[2, 5] = 0xFF
    exponent = mxfp4_packed(8, 64)
    exponent.tensors["weight_scale"][0, 0] = 255
    for folder, made, quantization in (("a", infinite, GPTQ), ("b", nan, FP8), ("c", exponent, compressed())):
        source = opened(tmp_path / folder, made, quantization)
        for read in (source.get, source.grid):
            with pytest.raises(DlavmError, match="model.safetensors: .*up_proj.weight expected finite"):
                read(name)


def test_the_file_of_the_first_tools(tmp_path: Path) -> None:
    made = gptq(8, 64)
    write(tmp_path, {f"{NAME}.{end}": tensor for end, tensor in made.tensors.items()}, None)
    (tmp_path / "quantize_config.json").write_text('{"bits": 4, "group_size": 32, "desc_act": true}')
    source = open_checkpoint(tmp_path)
    assert source.dtype(f"{NAME}.weight") == "int4g32z"
    np.testing.assert_array_equal(source.get(f"{NAME}.weight"), made.values)
    (tmp_path / "quantize_config.json").write_text('{"bits": 2, "group_size": 32}')
    with pytest.raises(DlavmError, match=r"quantize_config.json: bits expected 4 or 8, got 2"):
        open_checkpoint(tmp_path)


def test_scales_of_activations_are_not_used(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn"
    made = fp8(40, 96, (1,), (40, 96), "weight_scale", np.float32)
    tensors = {f"{name}.k_proj.{end}": tensor for end, tensor in made.tensors.items()}
    for other in ("k_proj.input_scale", "k_scale", "v_scale"):
        tensors[f"{name}.{other}"] = np.ones(1, np.float32)
    assert open_checkpoint(write(tmp_path, tensors, FP8)).names() == [f"{name}.k_proj.weight"]
