"""SVG as text: elements, and axes. Colours come from the page's style sheet, so a picture follows its theme."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from math import log10

COLOURS = 8  # classes c0 .. c7 of the style sheet


def tag(name: str, *children: str, **attributes: object) -> str:
    """An element; `class_` and `stroke_width` become `class` and `stroke-width`, numbers get two decimals at most.

    Children are markup already; see `text` for what needs escaping.
    """
    parts = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(v)}"' for key, v in attributes.items())
    return f"<{name}{parts}>{''.join(children)}</{name}>" if children else f"<{name}{parts}/>"


def text(x: float, y: float, content: str, **attributes: object) -> str:
    """A line of text at a point."""
    return tag("text", escape(content), x=x, y=y, **attributes)


def title(content: str) -> str:
    """What a pointer over the element shows."""
    return tag("title", escape(content) or " ")


def picture(width: float, height: float, label: str, children: Iterable[str]) -> str:
    """A picture that scales with the page; `label` is read aloud in its place."""
    box = f"0 0 {_value(width)} {_value(height)}"
    return tag("svg", title(label), *children, viewBox=box, role="img", class_="picture")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return escape(str(value))


@dataclass(frozen=True)
class Axis:
    """Values `lo` .. `hi` onto pixels `start` .. `end`, linear or logarithmic."""

    lo: float
    hi: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        lo, hi, at = (log10(v) if self.log else v for v in (self.lo, self.hi, value))
        return self.start + (self.end - self.start) * (at - lo) / ((hi - lo) or 1)

    def decades(self) -> list[float]:
        """Powers of ten within a logarithmic axis."""
        return [10.0**e for e in range(-12, 24) if self.lo * 0.999 <= 10.0**e <= self.hi * 1.001]
