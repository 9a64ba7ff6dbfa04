"""The options --quant and --kv: which format each weight of a model gets, and the KV cache."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from dlavm.formats import FORMATS, substitute
from dlavm.frontend import WeightSource
from dlavm.frontend.jsonfile import read_json
from dlavm.graph import Graph
from dlavm.passes import QuantizeCache, QuantizeWeights
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.target.layout import KV_FORMATS

AUTO = "auto"
DEFAULT_KV = "fp16"
DEFAULT = "int4g128"  # of what no checkpoint and no option gives a format


def quantisation(option: str, spec: TargetSpec, weights: WeightSource | None = None) -> QuantizeWeights:
    """The pass for an option: `auto` keeps the formats of a quantised checkpoint, or takes the nearest that the target
    has, and gives all other weights int4g128; a format is that of all weights; a JSON file has formats by globs of
    tensor names, the first that fits counts, and for all others it is as with `auto`.

    Raises DlavmError for a format that does not exist or that the target does not have, and for a broken file.
    """
    available = tuple(name for name in FORMATS if spec.has(name))
    if option != AUTO and not option.endswith(".json"):
        if option not in available:
            expected = ", ".join((*available, AUTO))
            raise DlavmError(f"--quant: expected one of {expected} for {spec.name}, or a .json file, got {option!r}")
        return QuantizeWeights(option, available=available)
    patterns = () if option == AUTO else _patterns(Path(option))
    return QuantizeWeights(DEFAULT, patterns, partial(_own_format, weights, available), available)


def cache_formats(spec: TargetSpec) -> tuple[str, ...]:
    """Those of KV caches that the target has."""
    return tuple(name for name in KV_FORMATS if spec.has(f"kv_{name}"))


def cache_format(option: str, spec: TargetSpec) -> QuantizeCache:
    """The pass for --kv. Raises DlavmError for a format that does not exist or that the target does not have; on a
    target without any, lowering names the ops that want one."""
    available = cache_formats(spec) or tuple(KV_FORMATS)
    if option not in available:
        raise DlavmError(f"--kv: expected one of {', '.join(available)} for {spec.name}, got {option!r}")
    return QuantizeCache(option, available)


def _own_format(weights: WeightSource | None, available: Collection[str], name: str) -> str | None:
    """That of a quantised tensor, or what takes its place. One that is missing has none; whoever reads it says so."""
    own = FORMATS.get(_dtype(weights, name)) or FORMATS.get(_said(weights.nearest if weights else None, name))
    taken = substitute(own, available) if own else None
    return taken.name if taken else None


def _dtype(weights: WeightSource | None, name: str) -> str:
    return _said(weights.dtype if weights else None, name)


def _said(ask: Callable[[str], str] | None, name: str) -> str:
    """What a source says of a tensor; nothing of one that it lacks."""
    try:
        return ask(name) if ask else ""
    except DlavmError:
        return ""


def format_notes(graph: Graph, weights: WeightSource) -> list[str]:
    """What a graph with its formats chosen does not keep of a checkpoint's own, in a line each."""
    found: dict[tuple[str, str], list[str]] = {}
    for param in graph.params:
        for name in (tensor.name for tensor in param.tensors if param.type.dtype in FORMATS):
            own = _dtype(weights, name)
            note = weights.note(name) if own else ""
            if own in FORMATS and own != param.type.dtype:
                found.setdefault((f"{own} in the checkpoint", param.type.dtype), []).append(name)
            if note:
                found.setdefault((note, param.type.dtype), []).append(name)
    return [f"{len(n)} weights ({n[0]}, ..), {what}: taken as {taken}" for (what, taken), n in found.items()]


def _patterns(path: Path) -> tuple[tuple[str, str], ...]:
    pairs = read_json(path)
    for pattern, format in pairs.items():
        if not isinstance(format, str):
            raise DlavmError(f"--quant {path}: {pattern!r} expected the name of a format, got {format!r}")
    return tuple(pairs.items())


def used_formats(graph: Graph) -> str:
    """The formats of a graph's weights, joined by +; none where it has no such weights."""
    return "+".join(sorted({param.type.dtype for param in graph.params} & set(FORMATS))) or "none"
