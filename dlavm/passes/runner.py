"""Running a list of passes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from dlavm.graph import Graph, print_graph, verify
from dlavm.support import env
from dlavm.support.errors import DlavmError
from dlavm.support.stages import write_stage


class Pass(Protocol):
    """A named function from graph to graph, usually a frozen dataclass whose fields are its options."""

    @property
    def name(self) -> str: ...

    def __call__(self, graph: Graph) -> Graph: ...


def run(passes: Sequence[Pass], graph: Graph, prefix: str = "") -> Graph:
    """The graph after every pass in order.

    DLAVM_VERIFY=1 verifies before the first and after each; DLAVM_DUMP=DIR writes `PREFIXgraph-NN-PASS.txt` there.
    Raises DlavmError, naming the pass after which the graph no longer verifies.
    """
    checking = env.VERIFY.get()
    if checking:
        verify(graph)
    _dump(f"{prefix}graph-00-input", graph)
    for number, pass_ in enumerate(passes, start=1):
        graph = pass_(graph)
        _dump(f"{prefix}graph-{number:02}-{pass_.name}", graph)
        if checking:
            _verify_after(pass_.name, graph)
    return graph


def _verify_after(name: str, graph: Graph) -> None:
    try:
        verify(graph)
    except DlavmError as error:
        raise DlavmError(f"after pass {name}: {error}") from None


def _dump(name: str, graph: Graph) -> None:
    write_stage(f"{name}.txt", partial(print_graph, graph))
