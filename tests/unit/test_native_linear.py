"""LINEAR on the native simulator: every path and thread count gives the same bytes, and those of a plain formula."""

from __future__ import annotations

import numpy as np
import pytest

from dlavm.formats import FORMATS
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.support.env import SIMD_LEVELS
from dlavm.target.isa import Instr
from dlavm.target.layout import PackedWeights
from dlavm.target.spec import TargetSpec, load_target
from tests.unit.native_helpers import run, units

SIZE = 1 << 21  # bytes: the first half is noise, results go to the second
PATHS = SIMD_LEVELS[1:]


def noise(rng: np.random.Generator) -> np.ndarray:
    """fp16 numbers of all sizes, with stretches of any bits at all (subnormals, exponent 31)."""
    wild = rng.integers(0, 1 << 16, SIZE // 4, dtype=np.uint16)
    sizes = np.exp2(rng.integers(-20, 8, SIZE // 4))
    tame = (rng.standard_normal(SIZE // 4) * sizes).astype(np.float16).view(np.uint16)
    return np.where(np.repeat(rng.random(SIZE // 4 // 512) < 0.25, 512), wild, tame)


def random_linear(spec: TargetSpec, rng: np.random.Generator) -> Instr:
    memory = spec.space("weights")
    form = str(rng.choice([str(rng.choice(list(FORMATS))), "kv_k", "kv_v"]))
    rows_o, rows_i, batch = (int(rng.integers(1, x)) for x in (6, 3, 4))
    n, k = (int(x) for x in (rng.integers(1, 700, 2) if form in FORMATS else rng.integers(1, 200, 2)))
    src_row, dst_row = -(-k // 8), -(-n // 8)
    aux_mode = int(rng.integers(0, 3)) if batch == 1 else 0
    fields = {
        "format": spec.enums["weight_format"][form], "act_bits": int(rng.integers(0, 2)), "k": k, "n": n,
        "rows_o": rows_o, "rows_i": rows_i, "batch": batch, "aux_mode": aux_mode, "act_slot": int(rng.integers(0, 4)),
        "src": units(memory.base) + int(rng.integers(0, 1000)), "src_so": src_row * rows_i, "src_si": src_row,
        "dst": units(memory.base + SIZE // 2), "dst_so": dst_row * rows_i, "dst_si": dst_row,
        "src_b": int(rng.integers(0, 500)), "dst_b": dst_row * rows_i * rows_o,
        "aux": units(memory.base), "aux_so": int(rng.integers(0, 90)), "aux_si": int(rng.integers(0, 90)),
        "bias": units(memory.base) + int(rng.integers(0, 999)),
        "row_scale": units(memory.base) + int(rng.integers(0, 999)),
        "scale": int(np.float32(rng.standard_normal()).view(np.uint32)),
    }
    for flag in ("use_scale", "use_row_scale", "use_bias", "use_act"):
        fields[flag] = int(rng.integers(0, 2))
    if form in FORMATS:
        tile = PackedWeights(memory, n, k, FORMATS[form]).tile_bytes
        return Instr("LINEAR", {**fields, "wgt": units(memory.base + int(rng.integers(0, 50)) * memory.beat_row),
                                "wgt_tile": units(tile), "wgt_b": units(memory.beat_row)})
    dim = k if form == "kv_k" else n
    return Instr("LINEAR", {**fields, "wgt": units(memory.base) + int(rng.integers(0, 5000)),
                            "wgt_tile": 128 * -(-dim // 32), "wgt_b": int(rng.integers(0, 4000))})


def results(spec: TargetSpec, data: np.ndarray, program: list[Instr], simd: str, threads: int) -> bytes | None:
    base = spec.space("weights").base
    with NativeDevice(spec, threads=threads) as device:
        try:
            device.set_option("simd", simd)
        except DeviceError:
            return None  # not a machine for it
        assert device.info()["simd"] == simd
        device.mem_write(base, data)
        load = [Instr("LOAD_TABLE", {"act_slot": i, "table": units(base) + 1000 * i}) for i in range(4)]
        run(device, spec, [*load, *program])
        return device.mem_read(base + SIZE // 2, SIZE // 2)


@pytest.mark.parametrize("board", ["nano", "vcu128", "kv260"])
@pytest.mark.parametrize("seed", range(6))
def test_instruction_sets_and_threads_agree(board: str, seed: int) -> None:
    spec = load_target("v3", board)
    rng = np.random.default_rng(seed)
    data = noise(rng)
    for _ in range(6):
        program = [random_linear(spec, rng)]
        expected = results(spec, data, program, "portable", 1)
        assert expected is not None and any(expected)
        for simd, threads in [("portable", 3), *((p, t) for p in PATHS[1:] for t in (1, 2))]:
            got = results(spec, data, program, simd, threads)
            assert got is None or got == expected, (program, simd, threads)


def test_exact_product() -> None:
    """Powers of two and small integers: the result is that of plain arithmetic."""
    spec = load_target("v3", "nano")
    memory = spec.space("weights")
    rng = np.random.default_rng(5)
    n, k = 37, 300
    w = rng.integers(-8, 8, (n, k))
    x = rng.integers(-60, 61, k)
    rpc, blocks, groups = memory.port_bytes // 2, -(-k // 32), -(-k // 128)
    tiles = -(-n // memory.row_tile)
    image = bytearray()
    for tile in range(tiles):
        streams = []
        for channel in range(memory.channels):
            stream = bytearray()
            rows = [tile * memory.row_tile + channel * rpc + j for j in range(rpc)]
            for g in range(groups):
                stream += np.array([2.0 ** (g - 3) if r < n else 0 for r in rows], dtype=np.float16).tobytes()
                for kb in range(4 * g, min(4 * g + 4, blocks)):
                    for p in range(4):
                        for r in rows:
                            nibble = [int(w[r, i]) + 8 if r < n and i < k else 8
                                      for i in range(32 * kb + 8 * p, 32 * kb + 8 * p + 8)]
                            stream += bytes(nibble[i] | nibble[i + 4] << 4 for i in range(4))
            streams.append(np.frombuffer(bytes(stream), dtype=np.uint8).reshape(-1, memory.port_bytes))
        image += np.stack(streams, axis=1).tobytes()
    scale = 2.0 ** (np.arange(k) // 128 - 3)
    with NativeDevice(spec) as device:
        at = memory.base
        device.mem_write(at, bytes(image))
        device.mem_write(at + 0x80000, x.astype(np.float16))
        tile_units = units(len(image) // tiles)
        run(device, spec, [Instr("LINEAR", {"k": k, "n": n, "rows_o": 1, "rows_i": 1, "batch": 1, "wgt": units(at),
                                            "wgt_tile": tile_units, "src": units(at + 0x80000),
                                            "dst": units(at + 0x90000)})])
        got = np.frombuffer(device.mem_read(at + 0x90000, 2 * n), dtype=np.float16)
        counters = device.counters()
    assert got.tolist() == (w * scale * x).sum(axis=1).astype(np.float16).tolist()
    assert counters.bytes_read == len(image) + 2 * k and counters.bytes_written == 2 * n


def test_k_tiles_carry_the_accumulators() -> None:
    spec = load_target("v3", "vcu128")
    memory = spec.space("weights")
    data = noise(np.random.default_rng(11))
    n, k, cut = 100, 500, 256
    groups = cut // 128
    whole = {"k": k, "n": n, "rows_o": 2, "rows_i": 1, "batch": 1, "src": units(memory.base), "src_so": 70,
             "dst": units(memory.base + SIZE // 2), "dst_so": 20, "wgt": units(memory.base), "wgt_tile": 0}
    first = {**whole, "k": cut, "acc_out": 1}
    second = {**whole, "k": k - cut, "acc_in": 1, "src": whole["src"] + cut // 8,
              "wgt": whole["wgt"] + units(33 * groups * memory.beat_row)}
    expected = results(spec, data, [Instr("LINEAR", whole)], "portable", 1)
    assert results(spec, data, [Instr("LINEAR", first), Instr("LINEAR", second)], "portable", 2) == expected
    with NativeDevice(spec) as device, pytest.raises(DeviceError, match="acc_in"):
        run(device, spec, [Instr("LINEAR", second)])
