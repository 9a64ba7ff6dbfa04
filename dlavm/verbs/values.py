"""The values of a checkpoint, read and quantised as a build does, to find those that no artifact can hold."""

from __future__ import annotations

import numpy as np

from dlavm.compile import Options, compile_model
from dlavm.frontend import Model, WeightSource
from dlavm.pack.weights import pack_index, quantize_int4, to_half
from dlavm.support.errors import DlavmError
from dlavm.support.progress import progress
from dlavm.target.spec import TargetSpec


def value_problems(model: Model, spec: TargetSpec, options: Options) -> list[dict[str, str]]:
    """A problem for each tensor whose values a build refuses: not finite, or out of the range of its format.

    The model must compile. Raises DlavmError if it does not, or if a file of it cannot be read.
    """
    if model.weights is None:
        return []
    compiled = compile_model(model, spec, options)
    params = {param.name: param for param in compiled.graph.params}
    contents = [content for content in compiled.lowered.contents.values() if content.name in params]
    problems: list[dict[str, str]] = []
    with progress("reading weights", len(contents)) as bar:
        for content in contents:
            for name, _ in params[content.name].tensors:
                try:
                    _quantise(model.weights, name, content.kind)
                except DlavmError as error:
                    problems.append({"where": name, "what": str(error), "hint": "mend the weights"})
            bar.advance()
    return problems


def _quantise(weights: WeightSource, name: str, kind: str) -> None:
    values = weights.get(name)
    if kind == "int4":
        quantize_int4(np.asarray(values, dtype=np.float32), name)
    elif kind == "rows":
        to_half(values, name)
    elif kind == "index":
        pack_index(values, name)
