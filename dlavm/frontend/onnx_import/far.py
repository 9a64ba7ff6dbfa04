"""What a trace at a few tokens cannot show is looked at where it matters: angles, masks and tables at positions up to
the end of a context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.arithmetic import HIDDEN
from dlavm.frontend.onnx_import.constants import Constants
from dlavm.frontend.onnx_import.flow import Flow, Mask, NotRecognised
from dlavm.frontend.onnx_import.heads import Rotation, rotation_of, window_of
from dlavm.frontend.onnx_import.inputs import Inputs, Probe
from dlavm.frontend.onnx_import.ir import Array, OnnxGraph
from dlavm.frontend.onnx_import.trace import Trace

ROWS = 4  # tokens of a probe at far positions
MOST = 2048  # tokens of a probe, where a model has no other way to come to far positions
HALF, FULL = 2e-3, 2e-6  # how far a stored cosine may be off, and by how much its angle grows wrong a radian
SNAP = 2e-5  # relative: a frequency that the graph has as a constant


@dataclass(frozen=True)
class Angles:
    """frequencies float64 [pairs] in radians a position, the scale of cosine and sine, the base where there is one."""

    frequencies: Array
    scale: float
    theta: float | None


class Far:
    """Looks at a graph at probes up to `ctx` positions. Everything raises NotRecognised where it is not as expected."""

    def __init__(self, graph: OnnxGraph, constants: Constants, inputs: Inputs, ctx: int) -> None:
        self.graph, self.constants, self.inputs, self.ctx = graph, constants, inputs, ctx
        self._traces: dict[tuple[Probe, str], Trace] = {}
        self._angles: dict[bytes, Angles] = {}
        self._windows: dict[tuple[Mask, ...], int] = {}

    def _probes(self) -> list[Probe]:
        """At positions that double, and at the end."""
        if self.inputs.tokens is not None or self.inputs.past is not None:
            return [Probe(self.inputs.past or 0, self.inputs.tokens or ROWS)]
        starts = [1 << i for i in range(64) if (1 << i) + ROWS < self.ctx]
        starts = [*starts, max(1, self.ctx - ROWS)]
        if self.inputs.caches:
            return [Probe(start, ROWS) for start in starts]
        if self.inputs.positions:
            return [Probe(0, ROWS, shift=start) for start in starts]
        return [Probe(0, min(self.ctx, MOST))]

    def _value(self, probe: Probe, name: str) -> tuple[Trace, Any]:
        key = probe, name
        if key not in self._traces:
            trace = Trace(self.graph, self.constants, self.inputs, probe)
            trace.run([name])
            if trace.problems:
                raise NotRecognised(trace.problems[0][2])
            self._traces = {key: trace}  # only the last: what was found is kept elsewhere
        trace = self._traces[key]
        return trace, trace.values.get(name)

    def static(self, probe: Probe, name: str) -> Array:
        """A value that does not depend on the tokens."""
        if name in self.constants:
            return self.constants.value(name)
        value = self._value(probe, name)[1]
        if value is None or isinstance(value, Flow):
            raise NotRecognised(f"expected {name!r} not to depend on the tokens")
        return np.asarray(value)

    def angles(self, rotation: Rotation, mark: tuple[str, int]) -> Angles:
        """The frequencies of a rotation that the trace found, of which the value `mark` is."""
        key = rotation.cos.tobytes() + rotation.sin.tobytes()
        if key not in self._angles:
            seen = [self._rotation(probe, mark) for probe in self._probes()]
            self._angles[key] = self._fitted(seen)
        return self._angles[key]

    def _rotation(self, probe: Probe, mark: tuple[str, int]) -> Rotation:
        trace, _ = self._value(probe, mark[0])
        for atom in trace.space.atoms:
            if atom.kind == "rows" and atom.operands[0].mark == mark:
                found = rotation_of(atom.operands[0])
                if found is not None:
                    return found[1]
        raise NotRecognised(f"expected a rotation at {probe}")

    def _fitted(self, seen: list[Rotation]) -> Angles:
        positions = np.concatenate([r.first + np.arange(len(r.cos)) for r in seen])
        cos, sin = np.concatenate([r.cos for r in seen]), np.concatenate([r.sin for r in seen])
        scale = float(np.median(np.hypot(cos, sin)))
        frequencies = _frequencies(positions, np.arctan2(sin, cos))
        frequencies = self._snapped(frequencies, int(positions.max()))
        angles = positions[:, None] * frequencies
        off = np.maximum(np.abs(cos - scale * np.cos(angles)), np.abs(sin - scale * np.sin(angles)))
        if (off > scale * (HALF + FULL * np.abs(angles))).any():
            raise NotRecognised("expected angles that grow evenly with the position")
        scale = 1.0 if abs(scale - 1) < 1e-3 else scale
        return Angles(frequencies, scale, _base(frequencies))

    def _snapped(self, frequencies: Array, far: int) -> Array:
        """The numbers of the graph, where it has these as a constant."""
        tolerance = np.maximum(SNAP * np.abs(frequencies), 1e-3 / max(far, 1))
        for name, tensor in self.graph.tensors.items():
            if tensor.size == len(frequencies) and tensor.dtype.kind in "fV":
                known = self.constants.value(name).reshape(-1).astype(np.float64)
                if (np.abs(known - frequencies) <= tolerance).all():
                    return known
        return frequencies

    def window(self, masks: tuple[Mask, ...]) -> int:
        """How many positions a row sees of those up to its own, 0 for all that the context has."""
        if masks not in self._windows:
            found = [self._seen(probe, masks) for probe in self._mask_probes(masks)]
            windows = [window_of(seen, probe.past) for probe, seen in found]
            window = max(windows)
            if any(w not in (0, window) or w == 0 and window and p.past + p.tokens > window
                   for w, (p, _) in zip(windows, found, strict=True)):  # fmt: skip
                raise NotRecognised(f"expected one window at all positions, got {windows}")
            self._windows[masks] = window
        return self._windows[masks]

    def _mask_probes(self, masks: tuple[Mask, ...]) -> list[Probe]:
        probes = [p for p in self._probes() if not p.shift] or [Probe(0, min(self.ctx, MOST))]
        if not self.inputs.caches and self.inputs.tokens is None and self.ctx > MOST:
            for number in self._whole_numbers(masks):
                if MOST <= number < self.ctx:
                    raise NotRecognised(
                        f"expected windows of at most {MOST} positions in a model without caches, got {number} "
                        f"among the numbers of its mask: choose --ctx {number} or less"
                    )
        return probes

    def _whole_numbers(self, masks: tuple[Mask, ...]) -> set[int]:
        """The integers in what masks are computed from."""
        makers = {name: node for node in self.graph.nodes for name in node.outputs}
        pending, seen, numbers = [m.source for m in masks if isinstance(m.source, str)], set(), set()
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self.constants and self.constants.size(name) == 1:
                numbers.add(int(abs(np.nan_to_num(self.constants.number(name)))))
            elif name in makers:
                pending += makers[name].needs
        return numbers

    def _seen(self, probe: Probe, masks: tuple[Mask, ...]) -> tuple[Probe, Array]:
        total = probe.past + probe.tokens
        seen = np.ones((probe.tokens, total), bool)
        for mask in masks:
            values = mask.source(probe.past, probe.tokens) if callable(mask.source) else self.static(probe, mask.source)
            visible = values > HIDDEN if mask.keep is None and not callable(mask.source) else values.astype(bool)
            if mask.keep is False:
                visible = ~visible
            whole = np.broadcast_to(visible, np.broadcast_shapes(visible.shape, seen.shape)).reshape(-1, *seen.shape)
            if (whole != whole[:1]).any():
                raise NotRecognised("expected a mask that is alike in all heads")
            seen = seen & whole[0]
        return probe, seen

    def row_offset(self, indices: str) -> int:
        """How far the rows of a table that positions choose are from the positions."""
        offsets: set[Any] = set()
        for probe in self._probes():
            rows = self.static(probe, indices).reshape(-1)
            offsets.update(
                (rows - probe.first - np.arange(probe.tokens)).tolist() if rows.size == probe.tokens else [None]
            )
        if len(offsets) != 1 or None in offsets:
            raise NotRecognised("expected a row of the table for each position, in order")
        return int(offsets.pop())


def _frequencies(positions: Array, angles: Array) -> Array:
    """Radians a position: from neighbours first, then from positions further and further apart."""
    origin = int(np.argmin(positions))
    following = int(np.flatnonzero(positions == positions[origin] + 1)[0])
    found = _wrapped(angles[following] - angles[origin])
    for gap in sorted(set((positions - positions[origin]).tolist()) - {0}):
        if gap & (gap - 1) and gap != positions.max() - positions[origin]:
            continue
        here = int(np.flatnonzero(positions == positions[origin] + gap)[0])
        turn = angles[here] - angles[origin]
        found = (turn + 2 * np.pi * np.round((found * gap - turn) / (2 * np.pi))) / gap
    return np.asarray(found)


def _wrapped(angle: Array) -> Array:
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)


def _base(frequencies: Array) -> float | None:
    """theta, where the frequencies are theta^(-j / pairs)."""
    pairs = len(frequencies)
    if pairs < 2 or (frequencies <= 0).any():
        return None
    exponents = -np.arange(pairs) / pairs
    theta = float(np.exp(np.sum(exponents * np.log(frequencies)) / np.sum(exponents**2)))
    for digits in (3, 5, 7):
        short = float(f"{theta:.{digits}g}")
        if np.abs(short**exponents / frequencies - 1).max() < 2e-6:
            return short
    return None
