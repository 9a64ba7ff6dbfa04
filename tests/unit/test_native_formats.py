"""Weight formats on both engines: every code, zero point and scale byte, rounding, K tiles, what a target lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.formats import FORMATS, Grid
from dlavm.pack.unpack import unstripe
from dlavm.pack.weights import pack_grid
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.support.env import SIMD_LEVELS
from dlavm.target.isa import Instr, encode, f32_bits, payload
from dlavm.target.layout import PackedWeights
from dlavm.target.spec import TargetSpec, load_target
from tests.unit.native_helpers import nano, register, run, start, units
from tests.unit.test_weights import random_grid

SPEC = nano()
MEMORY = SPEC.space("weights")
WEIGHTS, SRC, DST = (MEMORY.base + i * 0x80000 for i in range(3))
FLOATS = {"e2m1": ml_dtypes.float4_e2m1fn, "e2m3": ml_dtypes.float6_e2m3fn, "e4m3": ml_dtypes.float8_e4m3fn}
ENGINES = ("reference", *SIMD_LEVELS[1:])


@pytest.fixture(params=ENGINES)
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "reference":
        yield ReferenceDevice(SPEC)
        return
    with NativeDevice(SPEC, threads=1) as native:
        try:
            native.set_option("simd", request.param)
        except DeviceError as missing:
            pytest.skip(f"this machine lacks {request.param}: {missing}")
        yield native


def load(device: Any, grid: Grid, x: NDArray[np.float16]) -> dict[str, int]:
    """Writes weights and activations [rows, k]; the fields of the LINEAR that multiplies them."""
    packed = pack_grid(grid, MEMORY)
    device.mem_write(WEIGHTS, unstripe(packed, MEMORY, packed.size).tobytes())
    (n, k), stride = grid.shape, -(-x.shape[1] // 8)
    rows = np.zeros((len(x), stride * 8), np.float16)
    rows[:, :k] = x
    device.mem_write(SRC, rows.tobytes())
    return {"format": SPEC.enums["weight_format"][grid.format.name], "k": k, "n": n, "batch": 1, "rows_o": len(x),
            "rows_i": 1, "wgt": units(WEIGHTS), "src": units(SRC), "src_so": stride, "dst": units(DST),
            "wgt_tile": units(PackedWeights(MEMORY, n, k, grid.format).tile_bytes), "dst_so": -(-n // 8)}


def result(device: Any, rows: int, n: int) -> NDArray[np.float16]:
    raw = np.frombuffer(device.mem_read(DST, rows * -(-n // 8) * 16), np.float16)
    return raw.reshape(rows, -1)[:, :n]


def product(device: Any, grid: Grid, x: NDArray[np.float16], **fields: int) -> NDArray[np.float16]:
    run(device, SPEC, [Instr("LINEAR", load(device, grid, x) | fields)])
    return result(device, len(x), grid.shape[0])


def scales(grid_shape: tuple[int, int], name: str, power: int = 0) -> NDArray[Any]:
    if FORMATS[name].scale == "e8m0":
        return np.full(grid_shape, 127 + power, np.uint8)
    return np.full(grid_shape, 2.0**power, np.float16)


@pytest.mark.parametrize("name", FORMATS)
def test_every_code(device: Any, name: str) -> None:
    """Row i has code i in one place and zeros elsewhere; the activation there is 1."""
    form = FORMATS[name]
    codes = np.arange(1 << form.element.bits).astype(np.uint8)
    blank = 0 if form.element.float_type else form.element.middle
    kind = FLOATS.get(form.element.name)
    if kind is None:
        expected = (codes.astype(np.float32) - form.element.middle) / (64 if name == "mxint8" else 1)
    else:
        expected = codes.view(kind).astype(np.float32)
        expected = np.where(np.isnan(expected), np.copysign(np.float32(448), expected), expected)
    for place in (0, 1, 2, 3, 7, 13, 21, 31, 33, 60):
        k = 70
        matrix = np.full((len(codes), k), blank, np.uint8)
        matrix[:, place] = codes
        x = np.zeros((2, k), np.float16)
        x[0, place], x[1] = 1, 0.5
        shape = (len(codes), form.groups(k))
        zero = np.full(shape, form.element.middle, np.uint8) if form.zero else None
        got = product(device, Grid(form, matrix, scales(shape, name), zero), x)
        assert (got[0].astype(np.float32) == expected).all(), place
        assert (got[1].astype(np.float32) == expected / 2).all(), place


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.zero])
def test_every_zero_point(device: Any, name: str) -> None:
    """Any byte, also past the codes, and that of each group for its own weights."""
    form = FORMATS[name]
    k = 2 * form.group + 9
    zero = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) // 2], axis=1).astype(np.uint8)
    codes = np.random.default_rng(1).integers(0, 1 << form.element.bits, (256, k)).astype(np.uint8)
    for group in range(3):
        x = np.zeros((1, k), np.float16)
        x[0, group * form.group + 5] = 1
        got = product(device, Grid(form, codes, scales((256, 3), name), zero), x)
        expected = codes[:, group * form.group + 5].astype(int) - zero[:, group]
        assert (got[0].astype(int) == expected).all()


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.scale == "e8m0"])
def test_every_scale_byte(device: Any, name: str) -> None:
    """2^(s - 127), no further than 2^+-40, for either group of a beat."""
    form = FORMATS[name]
    one = int(np.flatnonzero(form.element.table == 2**-form.element.unit_exponent)[0])  # the code of 1.0
    scale = np.stack([np.arange(256), np.arange(256)[::-1]], axis=1).astype(np.uint8)
    exponent = np.clip(scale.astype(int) - 127, -40, 40)
    for group in range(2):
        x = np.zeros((1, 64), np.float16)
        x[0, 32 * group] = 1
        for power in (-35, 0, 35):
            got = product(device, Grid(form, np.full((256, 64), one, np.uint8), scale), x, use_scale=1,
                          scale=f32_bits(2.0**power))
            exact = np.minimum(np.ldexp(1.0, exponent[:, group] + power), 65504)
            assert (got[0] == exact.astype(np.float16)).all()


@pytest.mark.parametrize("name", ["mxfp8", "fp8g128"])
@pytest.mark.parametrize(("small", "left"), [(1, 0), (16, 0), (18, 32), (30, 32)])
def test_a_long_dot_product_rounds_to_nearest_even(device: Any, name: str, small: int, left: int) -> None:
    """2047 * 448 * 2^9 is 29 bits long with a unit of 32 in fp32; the next block takes it away again."""
    form = FORMATS[name]
    codes = {value: code for code, value in enumerate(form.element.table.tolist())}
    matrix = np.zeros((1, 64), np.uint8)
    matrix[0, [0, 1, 32]] = codes[448 * 512], codes[small], codes[-448 * 512]
    x = np.zeros((1, 64), np.float16)
    x[0, [0, 1, 32]] = 2047 / 1024, 1 / 1024, 2047 / 1024
    got = product(device, Grid(form, matrix, scales((1, form.groups(64)), name)), x)
    assert float(got[0, 0]) == left * 2.0**-19


@pytest.mark.parametrize("name", FORMATS)
def test_k_tiles_carry_the_accumulators(device: Any, name: str) -> None:
    form = FORMATS[name]
    rng = np.random.default_rng(11)
    cut = PackedWeights(MEMORY, 1, 1, form).section_k
    n, k = 21, 3 * cut + 17
    grid = random_grid(form, n, k, rng)
    grid = Grid(form, grid.codes, scales(grid.scale.shape, name, -6), grid.zero)
    x = rng.standard_normal((2, k)).astype(np.float16)
    expected = product(device, grid, x)
    whole = load(device, grid, x)
    layout = PackedWeights(MEMORY, n, k, form)
    program, at = [], 0
    for length in (cut, 2 * cut, 17):
        tile = {"k": length, "src": whole["src"] + at // 8, "wgt": whole["wgt"] + units(layout.k_offset(at))}
        last = at + length == k
        program.append(Instr("LINEAR", whole | tile | {"acc_in": int(at > 0), "acc_out": int(not last)}))
        at += length
    device.mem_write(DST, bytes(len(x) * -(-n // 8) * 16))
    run(device, SPEC, program)
    assert (result(device, len(x), n) == expected).all() and np.count_nonzero(expected) > n


def stopped(device: Any) -> str:
    with pytest.raises(DeviceError) as error:
        device.run()
    return str(error.value.code)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("engine", [ReferenceDevice, NativeDevice])
@pytest.mark.parametrize(("target", "name"), [("v2", "mxfp4"), ("v2", "fp8g128"), ("v2", 5), ("v3", 6), ("v3", 31)])
def test_a_stream_with_a_format_that_the_target_lacks(target: str, name: str | int, engine: Any, rows: int) -> None:
    spec = load_target(target, "nano")
    number = name if isinstance(name, int) else SPEC.enums["weight_format"][name]
    words = encode(spec, Instr("LINEAR", {"k": 32, "n": 8, "batch": 1, "rows_o": rows, "rows_i": 1}))
    words[spec.header_words] |= number
    with engine(spec) as device:
        start(device, spec, words)
        assert stopped(device) == "field_range"
        assert device.csr_read(register(spec, "ERROR")) == spec.enums["error"]["field_range"]


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("engine", [ReferenceDevice, NativeDevice])
@pytest.mark.parametrize("name", ["int8g128", "int4g32", "mxfp4"])
def test_registers_with_a_format_that_the_target_lacks(name: str, engine: Any, rows: int) -> None:
    spec = load_target("v1", "nano")
    words, _ = payload(spec, Instr("LINEAR", {"k": 32, "n": 8, "batch": 1, "rows_o": rows, "rows_i": 1}))
    words[0] |= SPEC.enums["weight_format"][name]
    with engine(spec) as device:
        for i, word in enumerate(words):
            device.csr_write(register(spec, "OP", i), word)
        with pytest.raises(DeviceError) as error:
            device.csr_write(register(spec, "LAUNCH"), spec.commands["LINEAR"].opcode)
        assert error.value.code == "field_range"


def test_targets_have_the_formats_that_they_should() -> None:
    """Capabilities, numbers of the instruction and the simulator's mask are one set; later generations have more."""
    found = {}
    for target in ("v1", "v2", "v3"):
        spec: TargetSpec = load_target(target)
        found[target] = {name for name in FORMATS if spec.has(name)}
        assert found[target] == set(spec.enums["weight_format"]) & set(FORMATS)
        assert spec.weight_format_mask == sum(1 << number for number in spec.enums["weight_format"].values())
    assert found["v1"] == {"int4g128", "int4g128z"}
    assert found["v2"] == {name for name in FORMATS if name.startswith("int")}
    assert found["v3"] == set(FORMATS)
