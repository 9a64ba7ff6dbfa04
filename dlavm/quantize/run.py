"""Quantising a model: unit after unit, with what the calibration samples make of its inputs, into a new checkpoint."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import FORMATS, Format, Grid, format_of
from dlavm.frontend import Model
from dlavm.graph import Graph, Value
from dlavm.graph.derived import derived
from dlavm.quantize.budget import candidates, choose, stored_bits
from dlavm.quantize.checkpoint import Content, fold_grid, stored, write_checkpoint
from dlavm.quantize.folds import Fold, find_fold
from dlavm.quantize.hessian import F32, Hessian
from dlavm.quantize.partial import Partial
from dlavm.quantize.solve import METHODS, Method, Solver, sensitivity
from dlavm.quantize.store import Store
from dlavm.quantize.units import Unit, find_units
from dlavm.quantize.walk import Walk
from dlavm.support.atomic import atomic_directory, refuse_foreign
from dlavm.support.errors import DlavmError
from dlavm.support.memory import peak_rss
from dlavm.support.progress import Bar, progress

VERSION = 1  # of the state: raised where the same settings would give other results
FLOATS = ("F16", "BF16", "F32")
SPILL = "samples"


@dataclass(frozen=True)
class Options:
    """`formats`: one for all layers or, under a `budget` of bits a weight, those to choose from; `exclude`: globs of
    checkpoint tensors that stay as they are; `act_order`: columns in the order of their activations (GPTQ)."""

    method: str = "gptq"
    formats: tuple[str, ...] = ("int4g128",)
    budget: float | None = None
    exclude: tuple[str, ...] = ()
    act_order: bool = False


def quantize_model(model: Model, options: Options, samples: Sequence[Sequence[int]], out: Path) -> dict[str, Any]:
    """Writes the checkpoint `out`, whole or not at all, and returns the object that `quantize --json` prints.

    `samples`: token ids for calibration, all of the same length; none for rounding to nearest alone. What is done is
    kept in `out`.partial until all is, and taken over by a run with the same model, options and samples, which gives
    the same bytes. Raises DlavmError for weights that are quantised already, are not finite or do not fit the format,
    for a budget that cannot be met, and as the front ends do.
    """
    started = time.perf_counter()
    refuse_foreign(out)
    run = _Run(model, options, samples)
    with Partial(out, run.settings()) as state:
        resumed = len(state.units)
        run.state = state
        run.search()
        run.quantize()
        with atomic_directory(out) as folder:
            total = write_checkpoint(folder, model, run.graph, run.content())
        report = run.report(total)
        state.remove()
    return {"checkpoint": str(out), **report, "resumed_units": resumed, "seconds": time.perf_counter() - started,
            "peak_rss_bytes": peak_rss()}  # fmt: skip


class _Run:
    state: Partial

    def __init__(self, model: Model, options: Options, samples: Sequence[Sequence[int]]) -> None:
        if options.method not in METHODS:
            raise DlavmError(f"--method: expected one of {', '.join(METHODS)}, got {options.method!r}")
        named = METHODS[options.method]
        self.method = Method(named.scales, named.compensates, options.act_order)
        self.formats = [format_of(name) for name in options.formats]
        if not samples and (options.method != "rtn" or options.budget is not None):
            what = "--budget" if options.budget is not None else f"--method {options.method}"
            raise DlavmError(f"{what}: expected a text to calibrate with (--calibration FILE), got none")
        self.model, self.options, self.samples = model, options, samples
        self.source = model.needed_weights()
        length = len(samples[0]) if samples else 1
        self.graph: Graph = model.graph(length, length)
        self.units = find_units(self.graph, options.exclude, untie=model.fields is not None)
        self.weights = sum(unit.weights for unit in self.units)
        self._check_source()
        self.folds = [find_fold(self.graph, unit) for unit in self.units]
        self.chosen: list[Format] = [self.formats[0]] * len(self.units)
        self.solver = Solver(self.method, self._read, self._settle)
        self.places = {m.name: i for i, unit in enumerate(self.units) for m in unit.matrices}
        self._check_budget()
        self.by_source = {m.source: m.name for unit in self.units for m in unit.matrices}

    def _check_source(self) -> None:
        if not self.units:
            raise DlavmError(f"model {self.model.name}: expected linear layers to quantise, got none "
                             f"(--exclude {', '.join(self.options.exclude)})")  # fmt: skip
        for unit in self.units:
            for matrix in unit.matrices:
                dtype, note = self.source.dtype(matrix.source), self.source.note(matrix.source)
                if dtype not in FLOATS or note:
                    raise DlavmError(
                        f"weights {self.source.place}: {matrix.source} expected floats, got quantised ones "
                        f"({note or dtype}); quantise the original checkpoint"
                    )

    def _check_budget(self) -> None:
        budget, shapes = self.options.budget, [m.shape for unit in self.units for m in unit.matrices]
        least = min(sum(stored_bits(f, n, k) for n, k in shapes) for f in self.formats) / self.weights
        if budget is not None and budget < least:
            raise DlavmError(f"--budget: expected at least {least:.4g} bits a weight, what the smallest of "
                             f"{', '.join(self.options.formats)} takes, got {budget:g}")  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """What the results depend on."""
        options = self.options
        ids = np.asarray(self.samples, "<i4")
        return {
            "version": VERSION, "model": self._identity(), "method": options.method, "formats": list(options.formats),
            "budget": options.budget, "exclude": list(options.exclude), "act_order": options.act_order,
            "samples": [*ids.shape, hashlib.sha256(ids.tobytes()).hexdigest()],
        }  # fmt: skip

    def _identity(self) -> str:
        """Of graph and weights; files by name, size and time of change."""
        place = Path(self.source.place)
        files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place] if place.is_file() else []
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        tensors = [(t.name, list(t.shape), self.source.dtype(t.name)) for p in self.graph.params for t in p.tensors]
        told = [str(place) if not files else "", stats, tensors, [str(node) for node in self.graph.nodes]]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def _read(self, name: str, rows: slice) -> F32:
        return self.source.get(name, rows).astype(np.float32)

    def _settle(self, fold: Fold, s: F32) -> F32:
        """Scales by which the norm's weights can be divided so that the result is a number of their type; those of rows
        are as good as any."""
        if fold.matrix is not None:
            return s
        name = fold.vectors[0]
        made, gamma = derived(name), self._read(name, slice(None))
        shift = np.float32(1 if made.plus_one else 0)
        dtype = self.source.dtype(made.base if made.base in self.source.names() else name)
        divided = stored(gamma / s - shift, dtype, name).astype(np.float32) + shift
        usable = (gamma != 0) & (divided != 0)
        return np.where(usable, gamma / np.where(usable, divided, 1), np.float32(1)).astype(np.float32)

    def search(self) -> None:
        """Chooses formats under the budget. What each would cost is found first, for the model as it is."""
        if self.options.budget is None:
            return
        walk = self._walk(quantised=False)
        with progress("looking for sensitive layers", len(self.units) * len(self.samples)) as bar:
            for index, unit in enumerate(self.units):
                known = index in self.state.errors
                hessian = self._hessian(walk, unit, bar, not known)
                if not known:
                    read, every = self._read, self.formats
                    self.state.errors[index] = {f.name: sensitivity(unit, f, hessian, read) for f in every}
                    self.state.save()
        options = [candidates(self.state.errors[i], self.formats, [m.shape for m in unit.matrices])
                   for i, unit in enumerate(self.units)]  # fmt: skip
        self.chosen = [FORMATS[c.format] for c in choose(options, self.options.budget * self.weights)]

    def quantize(self) -> None:
        """Unit after unit; what the state has is not done again."""
        walk = self._walk(quantised=True) if self.samples else None
        steps = max(1, len(self.samples))
        with progress(f"quantising, {self.options.method}", 2 * len(self.units) * steps) as bar:
            for index, unit in enumerate(self.units):
                done = index in self.state.units
                if walk is None:
                    bar.advance(steps)
                    hessian = None
                else:
                    hessian = self._hessian(walk, unit, bar, not done)
                if not done:
                    self._solve(index, unit, hessian)
                bar.advance(steps)

    def _walk(self, quantised: bool) -> Walk:
        directory = self.state.directory / SPILL
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()

        def values(name: str, rows: slice) -> F32:
            return self._values(name) if quantised and name in self.by_source else self._read(name, rows)

        return Walk(self.graph, self.samples, Store(directory), values, self._read)

    def _hessian(self, walk: Walk, unit: Unit, bar: Bar, wanted: bool) -> Hessian | None:
        """Brings all samples to a unit; what its inputs say, None of experts or where it is not wanted."""
        x: Value | None = unit.x if wanted else None
        hessian = Hessian(unit.matrices[0].shape[1]) if x is not None else None

        def visit(values: NDArray[Any]) -> None:
            if hessian is not None:
                hessian.add(values.reshape(-1, values.shape[-1]), unit.matrices[0].name)

        walk.to(unit.at, x, visit, bar)
        if hessian is not None:
            hessian.mirror()
        return hessian

    def _solve(self, index: int, unit: Unit, hessian: Hessian | None) -> None:
        fold, format, s = self.folds[index], self.chosen[index], None
        if fold is not None and hessian is not None:
            inner = self.places.get(fold.matrix.name) if fold.matrix else None
            exponents = inner is not None and self.chosen[inner].scale == "e8m0"
            s = self.solver.scales(unit, format, fold, hessian, exponents)
        arrays: dict[str, NDArray[Any]] = {} if s is None else {"s": s}
        rows = []
        for result in self.solver.solve(unit, format, hessian, None if s is None or fold is None else s[fold.index]):
            name, grid = result.matrix.name, result.grid
            arrays |= {f"{name}.codes": grid.codes, f"{name}.scale": grid.scale}
            arrays |= {f"{name}.zero": grid.zero} if grid.zero is not None else {}
            rows.append(result.row)
        self.state.commit(index, arrays, rows)

    def _values(self, source: str) -> F32:
        """A matrix as the layer behind the calibration sees it: on its grid where it is done, for inputs that are not
        scaled."""
        name = self.by_source[source]
        index = self.places[name]
        if index not in self.state.units:
            return self._read(source, slice(None))
        values, s, fold = self._loaded(name).values(), self._scales(index), self.folds[index]
        return values if s is None or fold is None else values / s[fold.index]

    def _loaded(self, name: str) -> Grid:
        """As it was committed."""
        index = self.places[name]
        found = self.state.arrays(index, *(f"{name}.{part}" for part in ("codes", "scale", "zero")))
        return Grid(self.chosen[index], found[f"{name}.codes"], found[f"{name}.scale"], found.get(f"{name}.zero"))

    def _scales(self, index: int) -> F32 | None:
        return self.state.arrays(index, "s").get("s")

    @cached_property
    def divisors(self) -> Mapping[str, F32]:
        """By checkpoint tensor, of everything that a unit's scales are folded into."""
        found: dict[str, F32] = {}
        for index, fold in enumerate(self.folds):
            s = self._scales(index) if fold is not None else None
            if fold is not None and s is not None:
                found |= dict.fromkeys(fold.vectors, s)
                found |= {fold.matrix.name: s} if fold.matrix else {}
        return found

    def content(self) -> Content:
        """What is to be written; under a budget also a file for `build --quant`, by tensors of the source."""
        formats = {name: self.chosen[index] for name, index in self.places.items()}
        mapping = {source: formats[name].name for source, name in self.by_source.items()}
        return Content(formats, self._folded, self.divisors, None if self.options.budget is None else mapping)

    def _folded(self, name: str) -> Grid:
        by = self.divisors.get(name)
        return self._loaded(name) if by is None else fold_grid(self._loaded(name), by)

    def report(self, total: int) -> dict[str, Any]:
        rows = [row for index in range(len(self.units)) for row in self.state.units[index].rows]
        quantised = sum(row["bytes"] for row in rows)
        return {
            "method": self.options.method, "formats": sorted({row["format"] for row in rows}), "tensors": rows,
            "weights": self.weights, "bits_per_weight": 8 * quantised / self.weights, "quantised_bytes": quantised,
            "checkpoint_bytes": total, "scaled_units": sum(self._scales(i) is not None for i in range(len(self.units))),
            "calibration": {"samples": len(self.samples), "length": len(self.samples[0]) if self.samples else 0},
        }  # fmt: skip
