"""Graphviz text, piece by piece: quoting, attributes, nested clusters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

FONT = "Helvetica"
GREY = "#6b7280"


class Html(str):
    """A label in HTML form, its texts escaped already."""


def quote(text: str) -> str:
    """A text as an ID or a label, shown as it is: a backslash stays one, a control character is spelled out."""
    shown = "".join(_printable(c) for c in text)
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def html(text: str) -> str:
    """A text within a label of HTML form. There is no way to quote a backslash there: a space of no width behind it
    keeps Graphviz from reading `\\N` as the name of the node."""
    shown = escape("".join(_printable(c) for c in text))
    return shown.replace("\\", "\\&#8203;").replace("\n", "<br/>")


def _printable(char: str) -> str:
    return char if char == "\n" or char.isprintable() else repr(char)[1:-1]


def label(head: str, detail: str = "", notes: tuple[str, ...] = ()) -> Html:
    """A label: a bold head with a detail beside it, below it small grey lines."""
    first = f"<b>{html(head)}</b>" + (f" {html(detail)}" if detail else "")
    small = [f'<font point-size="8" color="{GREY}">{html(note)}</font>' for note in notes if note]
    return Html(f"<{'<br/>'.join([first, *small])}>")


class Dot:
    """A directed graph that grows statement by statement; values of attributes are texts, or what `label` makes."""

    def __init__(self, name: str, title: str) -> None:
        self._lines = [f"digraph {quote(name)} {{"]
        self._depth, self._clusters = 1, 0
        self.statement("graph", label=title, labelloc="t", fontname=FONT, fontsize="14", newrank="true",
                       ranksep="0.35", nodesep="0.25")  # fmt: skip
        self.statement("node", shape="box", style="rounded,filled", fillcolor="white", color=GREY, fontname=FONT,
                       fontsize="10", margin="0.12,0.05", height="0.3")  # fmt: skip
        self.statement("edge", color=GREY, fontcolor=GREY, fontname=FONT, fontsize="8", arrowsize="0.6")

    def statement(self, head: str, **attributes: str) -> None:
        """`head [name=value, ...];`, with `head` as it is."""
        values = {n: value if isinstance(value, Html) else quote(value) for n, value in attributes.items() if value}
        pairs = ", ".join(f"{name}={value}" for name, value in values.items())
        self._lines.append("  " * self._depth + head + (f" [{pairs}]" if pairs else "") + ";")

    def node(self, name: str, **attributes: str) -> None:
        self.statement(quote(name), **attributes)

    def edge(self, source: str, target: str, **attributes: str) -> None:
        self.statement(f"{quote(source)} -> {quote(target)}", **attributes)

    @contextmanager
    def cluster(self, title: str) -> Iterator[None]:
        """A box around what is written in the block."""
        self._lines.append("  " * self._depth + f"subgraph cluster_{self._clusters} {{")
        self._clusters, self._depth = self._clusters + 1, self._depth + 1
        self.statement("graph", label=title, labeljust="l", style="rounded", color="#c4cad4", fontsize="11")
        yield
        self._depth -= 1
        self._lines.append("  " * self._depth + "}")

    def text(self) -> str:
        return "\n".join([*self._lines, "}"]) + "\n"
