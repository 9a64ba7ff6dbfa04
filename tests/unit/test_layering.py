"""Import directions: nothing imports to its left (doc/architecture.md, "One way through the house").

Imports under TYPE_CHECKING count too: a layer that names another's type knows that layer.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "dlavm"

COMPILER = {"formats", "support", "sym", "target", "graph", "frontend", "passes"}
COMPILER |= {"task", "lower", "schedule", "memory", "codegen", "pack"}

# The layer, and the layers that it may import. A new layer gets a line here, or its tests fail.
ALLOWED: dict[str, set[str]] = {
    "support": set(),
    "sym": {"support"},
    "formats": {"support"},
    "wire": {"support"},
    "target": {"formats", "support"},
    "graph": {"formats", "sym", "support"},
    "frontend": {"formats", "graph", "sym", "support"},
    "passes": {"formats", "graph", "sym", "target", "support"},
    "task": {"sym", "target", "support"},
    "lower": {"formats", "graph", "schedule", "task", "target", "sym", "support"},
    "schedule": {"formats", "task", "target", "sym", "support"},
    "memory": {"schedule", "task", "target", "sym", "support"},
    "codegen": {"formats", "task", "memory", "target", "sym", "support"},
    "pack": {"formats", "target", "support"},
    "quantize": {"formats", "graph", "frontend", "support"},
    "quant": {"formats", "graph", "frontend", "passes", "target", "support"},
    "describe": COMPILER,
    "report": COMPILER,
    "compile": COMPILER | {"quant", "describe", "report"},
    "sim": {"formats", "target", "support"},
    "rtl": {"target", "support"},
    "runtime": {"formats", "sim", "rtl", "target", "task", "sym", "pack", "wire", "support"},
    "serve": {"runtime", "wire", "support"},
    "check": COMPILER | {"quant", "compile"},
    "view": COMPILER | {"report"},
    "profile": COMPILER | {"compile", "describe", "report", "sim"},
    "sweep": COMPILER | {"compile", "report", "profile", "sim"},
    "verbs": COMPILER
    | {"quantize", "quant", "compile", "check", "view", "describe", "profile", "sweep", "sim", "rtl", "runtime"}
    | {"serve", "wire"},
    "cli": {"verbs", "support"},
    "__main__": {"cli"},
}

ENVIRONMENT_READERS = ("os.environ", "os.environ.get", "os.getenv", "environ", "environ.get", "getenv")


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import of dlavm, relative or not; `from dlavm import x` is dlavm.x."""
    package = ("dlavm", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "dlavm")


def violations(source: str, path: Path) -> list[str]:
    layer = layer_of(path)
    found = []
    for line, name in imported(ast.parse(source), path):
        other = (name.split(".") + [""])[1]
        # A name that is not a layer is an attribute of the package itself, as __version__ is.
        if other in ALLOWED and other != layer and other not in ALLOWED[layer]:
            found.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {layer} must not import {name}")
    return found


def test_every_layer_is_in_the_table() -> None:
    assert {layer_of(path) for path in modules()} - set(ALLOWED) == set()


def test_the_table_has_no_cycle() -> None:
    left = dict(ALLOWED)
    while ready := [layer for layer, needs in left.items() if not needs & set(left)]:
        for layer in ready:
            del left[layer]
    assert not left


def test_imports_go_one_way() -> None:
    found = [line for path in modules() for line in violations(path.read_text(encoding="utf-8"), path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import dlavm.graph",
        "from dlavm import graph",
        "from dlavm.graph.ir import Node",
        "from .. import graph",
        "from ..graph import ir",
        "def late():\n    from dlavm.graph import ir",
    ],
)
def test_a_wrong_import_is_seen(source: str) -> None:
    assert len(violations(source, PACKAGE / "runtime" / "session.py")) == 1


@pytest.mark.parametrize(
    "source",
    ["from . import wire", "from dlavm import __version__", "from dlavm.pack import reader", "import graph"],
)
def test_a_right_import_passes(source: str) -> None:
    assert violations(source, PACKAGE / "runtime" / "session.py") == []


def test_debug_variables_are_read_in_one_place() -> None:
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
        for path in modules()
        if path != PACKAGE / "support" / "env.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if reads_debug_variable(node)
    ]
    assert not found, f"read DLAVM_* through dlavm.support.env: {', '.join(found)}"


def reads_debug_variable(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and node.args:
        reader, key = node.func, node.args[0]
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        reader, key = node.value, node.slice
    else:
        return False
    named = isinstance(key, ast.Constant) and str(key.value).startswith("DLAVM_")
    return named and ast.unparse(reader) in ENVIRONMENT_READERS
