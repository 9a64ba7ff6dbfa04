"""Models for a board whose memory is too small for them: their time can be told all the same."""

from __future__ import annotations

from collections import Counter

from dlavm.compile import Compiled, Options, compile_model
from dlavm.frontend import Model
from dlavm.memory import check_capacity
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.target.spec import with_room


def compile_with_room(model: Model, spec: TargetSpec, options: Options) -> tuple[Compiled, str]:
    """The model compiled for the board, or for one like it whose memories have room for it, and what the board's own
    lack, or nothing. How large a memory is changes no cycle.

    Raises DlavmError as the compiler does; so it does of a model with its weights, which the board must have room for.
    """
    compiled = compile_model(model, spec, options)
    try:
        check_capacity(compiled.memory, spec)
    except DlavmError as error:
        needs = Counter[str]()
        for region in compiled.memory.regions:
            needs[region.space] += region.bytes
        return compile_model(model, with_room(spec, needs), options), str(error)
    return compiled, ""
