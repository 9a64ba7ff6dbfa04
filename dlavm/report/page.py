"""The page: numbers become rows of text, the template arranges them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from dlavm.memory import MemoryMap, settled
from dlavm.pack.manifest import Manifest, ModelInfo
from dlavm.report import roofline
from dlavm.report.bounds import Bound, bound, fast_columns, machine
from dlavm.report.loops import loops
from dlavm.report.memory import activations, spaces
from dlavm.report.steps import Step, Work, measure, total
from dlavm.report.stream import histogram
from dlavm.report.text import number, seconds, share, size
from dlavm.target import TargetSpec
from dlavm.target.sizes import matrix_lanes
from dlavm.task import Program

MAX_GROUPS = 60  # places of a step in a table; the others are one line
Cells = tuple[str, ...]


@dataclass(frozen=True)
class StepView:
    """A step in the table of commands."""

    name: str
    args: str
    kinds: list[Cells]
    groups: list[Cells]
    total: Cells


def render(manifest: Manifest, program: Program, memory: MemoryMap, spec: TargetSpec, words: list[int],
           links: Iterable[str]) -> str:
    """The text of report.html. `links`: files of the artifact beside it. The same input gives the same text.

    Raises DlavmError for a program that does not run with the arguments of a step.
    """
    spec = settled(spec, memory)
    steps = {name: measure(program, spec, memory, args) for name, args in step_args(manifest.model).items()}
    found = roofline.points(steps, spec)
    kinds = histogram(spec, words)
    template = environment().get_template("report.html.j2")
    return template.render(
        m=manifest, spec=spec, header=_header(manifest, spec), spaces=spaces(memory, spec),
        activations=activations(memory, loops(program)), steps=[_step_view(name, step) for name, step in steps.items()],
        machine=machine(spec), balance=_machine_rows(spec),
        bounds=[_bound_row(name, bound(step, spec)) for name, step in steps.items()],
        fast=", ".join(fast_columns(spec)), roofline=roofline.draw(found, spec), points=found,
        kinds=[(k.name, k.engine, f"{k.commands:,}", f"{k.words:,}", share(k.words, len(words))) for k in kinds],
        widths=[round(100 * k.words / max(1, kinds[0].words), 1) for k in kinds],
        words=len(words), commands=sum(k.commands for k in kinds),
        loops=sum(k.commands for k in kinds if k.name == "LOOP"), links=sorted(links))  # fmt: skip


def step_args(model: ModelInfo) -> dict[str, Mapping[str, int]]:
    """The steps that the page shows: one token half way into the context, and a full chunk at its start."""
    depth = min(model.ctx // 2, model.ctx - 1)
    return {"decode": {"token": 1, "kv_len": depth, "head_rows": 1, "kv_base": 0},
            "prefill": {"token": model.chunk, "kv_len": 0, "head_rows": 1, "kv_base": 0}}  # fmt: skip


def environment() -> jinja2.Environment:
    """Of the pages' templates."""
    env = jinja2.Environment(loader=jinja2.PackageLoader("dlavm.report", "templates"), trim_blocks=True,
                             lstrip_blocks=True, autoescape=True, undefined=jinja2.StrictUndefined)  # fmt: skip
    env.filters["drawing"] = Markup
    return env


def _header(m: Manifest, spec: TargetSpec) -> list[tuple[str, str]]:
    shape, use = m.model, m.memory
    peak = f"{size(use.activation_peak_bytes)} at the peak in {spec.space('activations').name}"
    heads = f"{shape.heads} heads over {shape.kv_heads} of keys and values, {shape.head_dim} wide"
    return [
        ("model", f"{m.name} ({shape.family}): {shape.layers} layers, {shape.hidden_size} wide, {heads}"),
        ("vocabulary", f"{shape.vocab_size:,} tokens"),
        ("context", f"{shape.ctx:,} positions, at most {shape.chunk:,} tokens a step"),
        ("quantisation", m.quant),
        ("target", m.target),
        ("board", f"{m.board}: {matrix_lanes(spec):,} matrix lanes at {spec.board.clock_mhz:g} MHz"),
        ("target hash", m.target_hash),
        ("weights", f"{size(use.weights_bytes)} ({use.weights_bytes:,} bytes)"),
        ("KV cache", f"{size(use.kv_bytes)} ({use.kv_bytes:,} bytes)"),
        ("activations", f"{peak}, lower bound {size(use.activation_lower_bound_bytes)}"),
        ("program", f"{size(use.program_bytes)} ({use.program_bytes // 4:,} words)"),
    ]


def _work_cells(name: str, w: Work) -> Cells:
    numbers = [size(count) if count else "-" for count in (w.weights, w.tables, w.kv, w.activations, w.bytes)]
    return (name, f"{w.launches:,}", number(w.macs) if w.macs else "-", *numbers)


def _step_view(name: str, step: Step) -> StepView:
    args = ", ".join(f"{key} = {value:,}" for key, value in step.args.items())
    ranked = sorted(step.kinds, key=lambda kind: (-step.kinds[kind].bytes, kind))
    kinds = [_work_cells(kind, step.kinds[kind]) for kind in ranked]
    return StepView(name, args, kinds, _group_rows(step), _work_cells("all", step.total))


def _group_rows(step: Step) -> list[Cells]:
    """Places in the order of the program; of very many, those of the most bytes."""
    ranked = sorted(step.groups, key=lambda name: (-step.groups[name].bytes, name))
    kept = set(ranked[:MAX_GROUPS])
    rows = [_work_cells(name, w) for name, w in step.groups.items() if name in kept]
    if rest := [step.groups[name] for name in ranked[MAX_GROUPS:]]:
        rows.append(_work_cells(f"{len(rest):,} other places", total(rest)))
    return rows


def _machine_rows(spec: TargetSpec) -> list[tuple[str, str]]:
    board, m = spec.board, machine(spec)
    memory = spec.space("weights")
    ports = f"{memory.channels} x {memory.port_bytes} bytes x {memory.port_clock_mhz:g} MHz"
    return [
        ("bandwidth", f"{m.bytes_s / 1e9:.1f} GB/s: {memory.name} has {memory.peak_gbs:g} GB/s, "
                      f"its ports {ports}; {m.limited_by} limits"),
        ("lanes", f"{number(m.macs_s)}MAC/s: {m.lanes:,} lanes x {board.clock_mhz:g} MHz, one MAC a lane and cycle"),
        ("balance", f"{m.balance:.2f} MACs a byte"),
    ]  # fmt: skip


def _bound_row(name: str, b: Bound) -> Cells:
    times = (b.once_s, b.lanes_s, b.least_s, b.operands_s)
    rates = [f"{number(b.tokens / s)} ({seconds(s)})" if s else "-" for s in times]
    return (name, *rates, b.limit)
