"""Formats of different precision for different layers, under a budget of bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlavm.formats import Format
from dlavm.support.errors import DlavmError


@dataclass(frozen=True)
class Candidate:
    """A format of a unit: its bits in all, and the error that it makes."""

    format: str
    bits: float
    error: float


def stored_bits(format: Format, n: int, k: int) -> int:
    """Bits of a matrix [n, k]: codes, scales, zero points."""
    per_group = (8 if format.scale == "e8m0" else 16) + (8 if format.zero else 0)
    return n * (k * format.element.bits + format.groups(k) * per_group)


def choose(units: Sequence[Sequence[Candidate]], bits: float) -> list[Candidate]:
    """One candidate of each unit, so that together they take at most `bits` and the sum of the errors is small.

    Of each unit those count that are on the lower convex hull of error over bits. Beginning with the smallest ones, the
    step up that saves most error a bit is taken as long as one fits: the optimum of the relaxed problem, but for the
    steps at the end. Raises DlavmError where the smallest ones do not fit.
    """
    hulls = [_hull(candidates) for candidates in units]
    place = [0] * len(hulls)
    left = bits - sum(hull[0].bits for hull in hulls)
    if left < 0:
        least = bits - left
        raise DlavmError(f"budget: expected at least {least:.0f} bits, what the smallest formats take, got {bits:.0f}")
    while True:
        steps = [
            (_gain(hull[at], hull[at + 1]), -unit)
            for unit, (hull, at) in enumerate(zip(hulls, place, strict=True))
            if at + 1 < len(hull) and hull[at + 1].bits - hull[at].bits <= left
        ]
        if not steps:
            return [hull[at] for hull, at in zip(hulls, place, strict=True)]
        unit = -max(steps)[1]
        left -= hulls[unit][place[unit] + 1].bits - hulls[unit][place[unit]].bits
        place[unit] += 1


def _gain(a: Candidate, b: Candidate) -> float:
    """Error that is saved a bit."""
    return (a.error - b.error) / (b.bits - a.bits)


def _hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """From the smallest on, each with more bits and less error than the one before, and gains that fall."""
    hull: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.bits, c.error, c.format)):
        if hull and candidate.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _gain(hull[-1], candidate) >= _gain(hull[-2], hull[-1]):
            hull.pop()
        hull.append(candidate)
    return hull


def candidates(
    errors: Mapping[str, float], formats: Sequence[Format], shapes: Sequence[tuple[int, int]]
) -> list[Candidate]:
    """Of a unit of matrices with these shapes."""
    return [Candidate(f.name, sum(stored_bits(f, n, k) for n, k in shapes), errors[f.name]) for f in formats]
