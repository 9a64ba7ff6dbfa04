"""cocotb: the fp32 units against numpy, on random and on boundary values. RTL_ROUNDS multiplies the random ones."""

from __future__ import annotations

import os
from typing import Any

import cocotb
import numpy as np

from tests.rtl import model
from tests.rtl.drive import pipeline, start, words

WAYS = 32
ADD_LATENCY, MUL_LATENCY, INT_LATENCY = 4, 5, 3
ROUNDS = int(os.environ.get("RTL_ROUNDS", "1"))

CORNERS = np.array(
    [0, 1, 2, 3, 0x7FFFFE, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000, 0x33800000, 0x33800001, 0x34000000]
    + [0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FFFFFFF, 0x40000000, 0x4B000000, 0x4B7FFFFF, 0x4B800000, 0x4B800001]
    + [0x7E7FFFFF, 0x7E800000, 0x7EFFFFFF, 0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FFFFFFF],
    np.uint32,
)


def corner_pairs() -> tuple[model.U32, model.U32]:
    """Every pair of corner values of either sign."""
    both = np.concatenate([CORNERS, CORNERS | np.uint32(0x80000000)])
    a, b = np.meshgrid(both, both)
    return a.ravel().astype(np.uint32), b.ravel().astype(np.uint32)


def random_pairs(rng: np.random.Generator, count: int) -> tuple[model.U32, model.U32]:
    """Bits of any kind, exponents close together (cancellation, rounding), sparse fractions (ties)."""
    a, b = rng.integers(0, 2**32, (2, count), dtype=np.uint32)
    near = rng.integers(0, 4, count) > 0
    exponent = (((a >> 23) & 255).astype(np.int64) + rng.integers(-30, 31, count)).clip(0, 254).astype(np.uint32)
    b = np.where(near, (b & np.uint32(0x807FFFFF)) | (exponent << np.uint32(23)), b)
    keep = np.uint32(0xFFFFFFFF) << rng.integers(0, 24, count).astype(np.uint32)
    sparse = rng.integers(0, 2, count) > 0
    return np.where(sparse, a & keep, a).astype(np.uint32), np.where(sparse, b & keep, b).astype(np.uint32)


def product_boundary(rng: np.random.Generator, count: int) -> tuple[model.U32, model.U32]:
    """Pairs whose product is about the smallest normal, a subnormal, or the largest finite value."""
    a = rng.integers(0, 2**31, count, dtype=np.uint32)
    target = rng.choice(np.array([127 - 150, 127 - 127, 127 - 126, 127 + 127]), count) + rng.integers(-3, 4, count)
    exponent = (target + 127 - (a >> 23).astype(np.int64)).clip(0, 254).astype(np.uint32)
    b = (exponent << np.uint32(23)) | rng.integers(0, 2**23, count, dtype=np.uint32)
    return a, b | (rng.integers(0, 2, count, dtype=np.uint32) << np.uint32(31))


def assemble(rng: np.random.Generator, exponent: Any, significand: Any) -> model.U32:
    """Floats of either sign of biased exponents and significands of 24 bits, of which the first is set."""
    sign = rng.integers(0, 2, len(significand)) << 31
    return (sign | exponent << 23 | significand & 0x7FFFFF).astype(np.uint32)


def sum_ties(rng: np.random.Generator, count: int) -> tuple[model.U32, model.U32]:
    """For each distance of exponents: b's bits that a sum shifts out are half a unit, or one more or less; a is any,
    all ones (the sum carries), or a power of two (a difference borrows)."""
    parts = []
    for distance in range(1, 27):
        a = rng.integers(1 << 23, 1 << 24, count)
        a = np.choose(rng.integers(0, 3, count), [a, (1 << 24) - 1 - (a & 3), (1 << 23) + (a & 3)])
        for shifted in (distance - 1, distance, distance + 1):  # the sum itself may move by a place
            low = min(max(shifted, 1), 24)
            b = rng.integers(1 << 23, 1 << 24, count) >> low << low
            b = (b + (1 << low - 1) + rng.integers(-1, 2, count)).clip(1 << 23, (1 << 24) - 1)
            exponent = rng.integers(distance + 1, 255, count)
            parts.append((assemble(rng, exponent, a), assemble(rng, exponent - distance, b)))
    return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])


def product_ties(rng: np.random.Generator, count: int) -> tuple[model.U32, model.U32]:
    """Products that end in half a unit of the last place or a little beside it: b = (half + little) / a modulo 2^24."""
    a = rng.integers(1 << 22, 1 << 23, count) * 2 + 1
    half = np.int64(1) << rng.choice([22, 23], count)
    inverse = a.copy()
    for _ in range(5):  # Newton's iteration doubles the right bits, of which an odd number begins with 3
        inverse = inverse * (2 - a * inverse & 0xFFFFFF) & 0xFFFFFF
    b = inverse * (half + rng.integers(-2, 3, count) & 0xFFFFFF) & 0xFFFFFF
    assert ((a * b - half + 2 & 0xFFFFFF) < 5).all()
    fits = b >= 1 << 23
    a, b = a[fits], b[fits]
    # Far from the ends, and where products become subnormal.
    first = rng.integers(64, 190, len(a))
    small = 127 - first + rng.integers(-2, 2, len(a))
    second = np.where(rng.integers(0, 2, len(a)) > 0, rng.integers(64, 190, len(a)), small)
    return assemble(rng, first, a), assemble(rng, second.clip(1, 254), b)


def exact_ties(rng: np.random.Generator, count: int) -> tuple[model.U32, model.U32]:
    """Products that lie halfway between two floats: 22 or 23 zeros at their end, shared in every way."""
    parts = []
    for zeros in (22, 23):
        for of_a in range(zeros + 1):
            pair = []
            for own in (of_a, zeros - of_a):
                odd = rng.integers(1 << 23, 1 << 24, count) >> own | 1
                pair.append(assemble(rng, rng.integers(64, 190, count), odd << own))
            parts.append(pair)
    return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])


def rows(*parts: model.U32) -> model.U32:
    """Values as rows of WAYS, filled up with zeros."""
    flat = np.concatenate(parts)
    return np.pad(flat, (0, -len(flat) % WAYS)).reshape(-1, WAYS)


def expect(name: str, got: Any, want: Any, *operands: Any) -> None:
    """Asserts equality and shows the first difference."""
    wrong = np.argwhere(got != want)
    if len(wrong):
        at = tuple(wrong[0])
        shown = [hex(int(x[at])) for x in operands]
        raise AssertionError(f"{name}{shown}: want {int(want[at]):#x}, got {int(got[at]):#x}; {len(wrong)} differ")


@cocotb.test()
async def add(dut: Any) -> None:
    rng = np.random.default_rng(1)
    pairs = [corner_pairs(), sum_ties(rng, 1000 * ROUNDS), random_pairs(rng, 600_000 * ROUNDS)]
    a, b = (rows(*(p[i] for p in pairs)) for i in range(2))
    await start(dut)
    got = await pipeline(dut, {"a_i": words(a), "b_i": words(b)}, "sum_o", ADD_LATENCY, np.uint32)
    expect("add", got, model.add32(a, b), a, b)


@cocotb.test()
async def mul(dut: Any) -> None:
    rng = np.random.default_rng(2)
    pairs = [corner_pairs(), exact_ties(rng, 1000 * ROUNDS), product_ties(rng, 100_000 * ROUNDS),
             random_pairs(rng, 300_000 * ROUNDS), product_boundary(rng, 300_000 * ROUNDS)]  # fmt: skip
    a, b = (rows(*(p[i] for p in pairs)) for i in range(2))
    await start(dut)
    got = await pipeline(dut, {"a_i": words(a), "b_i": words(b)}, "product_o", MUL_LATENCY, np.uint32)
    expect("mul", got, model.mul32(a, b), a, b)


@cocotb.test()
async def narrow_mul(dut: Any) -> None:
    """As the matrix engine uses it: any fp16 scale, normal or zero terms."""
    rng = np.random.default_rng(3)
    dot, exponent = rng.integers(-(2**19), 2**19, 65536), rng.integers(-40, 11, 65536)
    a = rows(np.ldexp(dot, exponent).astype(np.float32).view(np.uint32))
    b = rows(model.half(np.arange(65536, dtype=np.uint16)).view(np.uint32))
    await start(dut)
    got = await pipeline(dut, {"a_i": words(a), "b_i": words(b)}, "narrow_product_o", MUL_LATENCY, np.uint32)
    expect("narrow_mul", got, model.mul32(a, b), a, b)


async def check_ints(dut: Any, width: int, scale: int = 1, offset: int = 0) -> None:
    """Integers of up to 32 bits at the port; the unit sees value * scale + offset."""
    rng = np.random.default_rng(width)
    limit = 2 ** (min(width, 32) - 1)
    edge = np.concatenate([[0, -limit, limit - 1], 2 ** np.arange(20), 2 ** np.arange(20) - 1])
    sparse = rng.integers(-limit, limit, 100_000) >> rng.integers(0, 31, 100_000)
    values = np.concatenate([edge, -edge[1:], rng.integers(-limit, limit, 200_000), sparse]).clip(-limit, limit - 1)
    values = np.pad(values, (0, -len(values) % WAYS)).reshape(-1, WAYS).astype(np.int64)
    exps = rng.integers(-70, 12, values.shape).astype(np.int8)
    await start(dut)
    ports = {"int_i": words(values.astype(np.int32)), "int_exp_i": words(exps)}
    got = await pipeline(dut, ports, f"int{width}_o", INT_LATENCY, np.uint32)
    floats = (values * scale + offset).astype(np.float32)  # rounds once, to nearest even
    want = np.ldexp(floats, exps.astype(np.int32)).astype(np.float32).view(np.uint32)
    expect("int", got, want, values, exps)


@cocotb.test()
async def int20(dut: Any) -> None:
    await check_ints(dut, 20)


@cocotb.test()
async def int35(dut: Any) -> None:
    await check_ints(dut, 35, scale=8, offset=5)


@cocotb.test()
async def every_half(dut: Any) -> None:
    halves = np.arange(65536, dtype=np.uint16).reshape(-1, WAYS)
    await start(dut)
    got = await pipeline(dut, {"half_i": words(halves)}, "half_o", 0, np.uint32)
    expect("half", got, model.half(halves).view(np.uint32), halves)
