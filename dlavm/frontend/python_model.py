"""Python model files: a `build(ctx, chunk)` written with the graph builder, and where the weights are."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from dlavm.frontend import hf
from dlavm.frontend.derived_source import DerivedSource
from dlavm.frontend.hf_tokenizer import tokenizer_of
from dlavm.frontend.jsonfile import read_json
from dlavm.frontend.model import Model, model_name
from dlavm.frontend.quantized import open_checkpoint, permutations_of
from dlavm.graph import Graph
from dlavm.graph.ir import JsonValue
from dlavm.support.errors import DlavmError


def load(path: Path, weights: Path | None = None, shape: str | None = None, bare: bool = False) -> Model:
    """The model of a Python file that defines

        WEIGHTS = "directory"                       # optional, beside the file; `weights` overrides it
        MAX_CTX = 1024                              # optional, the longest context the model was trained for
        def build(ctx: int, chunk: int) -> Graph    # written with dlavm.graph.Builder

    or, for a family, a table of its shapes by name (of any type; the first is the default, `shape` names another)

        SHAPES = {"small": Shape(...), "large": Shape(...)}
        def build(ctx: int, chunk: int, shape: Shape) -> Graph

    where the shape's attribute max_position_embeddings, if it has one, counts like MAX_CTX. The weights directory
    gives the tokenizer and, from its config.json, the special tokens. A `bare` model has no weights.
    Raises DlavmError in one line with file and line for whatever goes wrong inside the file.
    """
    module = _execute(path)
    function = getattr(module, "build", None)
    if not callable(function):
        raise DlavmError(f"{path}: expected a function build(ctx, chunk), got {function!r}")
    name, arguments = _chosen(path, module, shape)

    def build(ctx: int, chunk: int) -> Graph:
        graph = _guarded(path, function, ctx, chunk, *arguments)
        if not isinstance(graph, Graph):
            raise DlavmError(f"{path}: build expected to return a Graph, got {type(graph).__name__!r}")
        return graph

    directory = weights or _weights_directory(path, module)
    name = model_name(name)
    config = _limit(path, module, *arguments)
    if directory is None:
        return Model(name, build, config=config)
    fields = None
    if (directory / "config.json").is_file():
        config |= hf.special_tokens(directory)
        fields = read_json(directory / "config.json")
    tokenizer, notes = tokenizer_of(directory)
    if bare:
        return Model(name, build, None, tokenizer, config, notes=notes, fields=fields)
    source = open_checkpoint(directory)
    orders = permutations_of(source)
    return Model(name, build, DerivedSource(source), tokenizer, config, notes=notes, permutations=orders, fields=fields)


def _chosen(path: Path, module: ModuleType, shape: str | None) -> tuple[str, tuple[Any, ...]]:
    """The model's name, and what `build` takes behind ctx and chunk: a shape, nothing where there is no table."""
    shapes = getattr(module, "SHAPES", None)
    if shapes is None and shape is None:
        return path.stem, ()
    if not isinstance(shapes, dict) or not shapes or not all(isinstance(name, str) for name in shapes):
        raise DlavmError(f"{path}: SHAPES expected a table of shapes by name, got {shapes!r}")
    name = next(iter(shapes)) if shape is None else shape
    if name not in shapes:
        raise DlavmError(f"{path}: shape expected one of {list(shapes)!r}, got {name!r}")
    return name, (shapes[name],)


def _limit(path: Path, module: ModuleType, *shape: Any) -> dict[str, JsonValue]:
    """The longest context, of the shape or else of the file, as it stands in a config.json."""
    limits = [getattr(module, "MAX_CTX", None), *(getattr(one, "max_position_embeddings", None) for one in shape)]
    limit = next((one for one in reversed(limits) if one is not None), None)
    if limit is None:
        return {}
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise DlavmError(f"{path}: MAX_CTX or max_position_embeddings expected a positive integer, got {limit!r}")
    return {"max_position_embeddings": limit}


def _weights_directory(path: Path, module: ModuleType) -> Path | None:
    named = getattr(module, "WEIGHTS", None)
    if named is None:
        return None
    if not isinstance(named, str | Path):
        raise DlavmError(f"{path}: WEIGHTS expected a directory name, got {named!r}")
    directory = path.parent / named
    if not directory.is_dir():
        raise DlavmError(f"{path}: WEIGHTS expected a directory beside the file, got {str(named)!r}")
    return directory


def _execute(path: Path) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise DlavmError(f"{path}: expected a readable file, got {error.strerror!r}") from None
    module = ModuleType(f"dlavm_model_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    code = _guarded(path, compile, source, str(path), "exec", dont_inherit=True)
    _guarded(path, exec, code, module.__dict__)
    return module


def _guarded(path: Path, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call the user's code; what it raises becomes one DlavmError with the last line of the file it came through."""
    try:
        with redirect_stdout(sys.stderr):  # stdout belongs to the command, which may print JSON there
            return function(*args, **options)
    except SyntaxError as error:
        if error.filename != str(path):
            raise DlavmError(f"{path}{_line(path, error)}: expected to import, got {_text(error)!r}") from error
        raise DlavmError(f"{path}:{error.lineno}: expected Python, got {error.msg!r}") from error
    except DlavmError as error:
        raise DlavmError(f"{path}{_line(path, error)}: {error}") from error
    except (Exception, SystemExit) as error:
        raise DlavmError(f"{path}{_line(path, error)}: expected to run, got {_text(error)!r}") from error


def _text(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _line(path: Path, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""
