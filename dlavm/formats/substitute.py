"""Which format takes the place of one that a target does not have."""

from __future__ import annotations

from collections.abc import Collection

from dlavm.formats.table import FORMATS, Format


def substitute(format: Format, available: Collection[str]) -> Format | None:
    """The format of those, by name, that loses least of a grid of `format`. None where there are none.

    First comes one that holds any such grid exactly; then one whose integers reach as far, so that `convert` keeps a
    grid whose scales allow it, the smallest first; then the one with the most bits. Groups that divide those of
    `format` go before others.
    """
    found = [FORMATS[name] for name in FORMATS if name in available]
    return min(found, key=lambda other: _distance(format, other), default=None)


def holds(format: Format, other: Format) -> bool:
    """Whether `other` holds every grid of `format` exactly, as `convert` makes it."""
    if format == other:
        return True
    if format.group % other.group or format.scale != other.scale:
        return False
    return format.element.float_type is None and _reaches(format, other)


def _distance(format: Format, other: Format) -> tuple[bool, bool, int, bool, bool, int]:
    reaches = _reaches(format, other)
    bits = other.element.bits if reaches else -other.element.bits
    apart = format.group % other.group != 0
    return not holds(format, other), not reaches, bits, apart, other.zero != format.zero, -other.group


def _reaches(format: Format, other: Format) -> bool:
    """Whether `other` is of integers among which those of `format` are."""
    if other.element.float_type is not None or other.scale != "f16":
        return False
    if format.zero and other.zero and other.element.bits >= format.element.bits:
        return True
    largest = (1 << format.element.bits) - 1
    low, high = (-largest, largest) if format.zero else (format.element.table.min(), format.element.table.max())
    return bool(-other.element.middle <= low and high < other.element.middle)
