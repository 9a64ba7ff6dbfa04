"""The values of a checkpoint, read and quantised as a build does, to find those that no artifact can hold."""

from __future__ import annotations

from dlavm.compile import Options, compile_model, constants
from dlavm.frontend import Model
from dlavm.pack.sources import read_through
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
    params = {param.name for param in compiled.graph.params}
    read = [constant for constant in constants(compiled, model) if constant.name in params]
    problems: list[dict[str, str]] = []
    with progress("reading weights", len(read)) as bar:
        for constant in read:
            for tensor in constant.parts:
                try:
                    read_through(tensor, constant.kind, constant.format)
                except DlavmError as error:
                    problems.append({"where": tensor.name, "what": str(error), "hint": "mend the weights"})
            bar.advance()
    return problems
