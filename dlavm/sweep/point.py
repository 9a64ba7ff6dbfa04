"""Times one point of a grid. Runs in a process of its own, here or on another machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dlavm.compile import Options
from dlavm.frontend import load_model
from dlavm.profile.ops import ops_of
from dlavm.profile.path import critical_path
from dlavm.profile.record import read_record
from dlavm.profile.room import compile_with_room
from dlavm.profile.steps import Steps, of_subject, pieces, rates
from dlavm.profile.subject import Subject, check_target, of_compiled
from dlavm.profile.table import sums, tabulate
from dlavm.sim.device import Counters
from dlavm.sim.timed import open_timed
from dlavm.support.errors import DlavmError
from dlavm.sweep.grid import Point, Row, row_of
from dlavm.target import TargetSpec, load_target
from dlavm.target.spec import with_buffers


def measured(point: Point) -> Row:
    """The row of a point; what goes wrong is in its column `error`."""
    started = time.perf_counter()
    try:
        results = measure(point)
    except (DlavmError, OSError) as error:
        results = {"error": str(error) or type(error).__name__}
    except Exception as error:  # a point shall not end a sweep of hours
        results = {"error": f"internal: {type(error).__name__}: {error}"}
    return row_of(point, {**results, "seconds": time.perf_counter() - started})


def measure(point: Point) -> dict[str, Any]:
    """Cycles of a token and of the prompt. Raises DlavmError as the compiler does, and for what does not fit."""
    subject, lacks = _compiled(*_compilation(point))
    if point.depth + max(point.prompt, 1) > subject.ctx:
        raise DlavmError(f"sweep: expected depth and tokens within the context of {subject.ctx} positions, got "
                         f"{point.depth + max(point.prompt, 1)}")
    results: dict[str, Any] = {"lacks": lacks}
    with open_timed(subject.spec, threads=1, timing_only=True) as device:
        steps = of_subject(device, subject)
        if point.prompt:
            counters = [steps.step(*piece) for piece in pieces(point.prompt, point.depth, subject.chunk)]
            results |= _rates("pp", subject.spec, counters, point.prompt)
        results |= _token(steps, subject, point.depth)
    return results


def _token(steps: Steps, subject: Subject, depth: int) -> dict[str, Any]:
    spec = subject.spec
    with tempfile.TemporaryDirectory(prefix="dlavm-sweep-") as folder:
        file = Path(folder) / "record"
        steps.device.set_option("profile", str(file))
        counters = steps.step(1, depth)
        record = read_record(file)
    path = critical_path(record, spec.enums["engine"])
    limits = sums(tabulate(ops_of(record, subject), path, record.cycles, spec, lambda op: op.kind).rows)
    return {
        **_rates("tg", spec, [counters], 1), "tg_bytes": counters.bytes_read + counters.bytes_written,
        "tg_control_share": path.control / record.cycles, "tg_bound": max(limits, key=lambda name: limits[name]),
    }  # fmt: skip


def _rates(test: str, spec: TargetSpec, counters: Sequence[Counters], tokens: int) -> dict[str, Any]:
    found = rates(spec, counters, tokens)
    return {f"{test}_{name}": found[name] for name in ("cycles", "tok_s", "memory_share")}


def _compilation(point: Point) -> tuple[Any, ...]:
    return (point.model, point.weights, point.target, point.board, point.activation_elements, point.accumulators,
            point.quant, point.kv, point.ctx, point.chunk)  # fmt: skip


@lru_cache(maxsize=1)  # depths of one compilation follow each other
def _compiled(model_path: str, weights: str, target: str, board: str, activation_elements: int | None,
              accumulators: int | None, quant: str, kv: str, ctx: int | None, chunk: int | None) -> tuple[Subject, str]:
    spec = with_buffers(load_target(target, board), activation_elements, accumulators)
    check_target(spec, "sweep")
    model, options = load_model(model_path, weights), Options(ctx=ctx, chunk=chunk, quant=quant, kv=kv)
    compiled, lacks = compile_with_room(model, spec, options)
    return of_compiled(compiled, model.name, *options.sizes(model, spec)), lacks
