"""Numbers for people: three or four digits and a unit."""

from __future__ import annotations

BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
SI_UNITS = ("", "k", "M", "G", "T", "P")


def size(count: float) -> str:
    """Bytes in powers of 1024."""
    return _scaled(count, 1024, BYTE_UNITS)


def number(value: float) -> str:
    """A count in powers of 1000: whole below 1000, three digits above."""
    return _scaled(value, 1000, SI_UNITS).strip()


def share(part: float, whole: float) -> str:
    """A percentage; a dash where there is no whole, `<0.1 %` for what rounds to nothing."""
    if whole <= 0:
        return "-"
    percent = 100 * part / whole
    return "<0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def seconds(value: float) -> str:
    """A duration from nanoseconds to seconds."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= factor:
            return f"{_digits(value / factor)} {unit}"
    return f"{_digits(value * 1e9)} ns"


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    at = 0
    while at + 1 < len(units) and round(value, 0 if at == 0 else 2) >= step:
        value, at = value / step, at + 1
    return f"{f'{value:.0f}' if at == 0 and value == int(value) else _digits(value)} {units[at]}"


def _digits(value: float) -> str:
    """Three digits, no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
