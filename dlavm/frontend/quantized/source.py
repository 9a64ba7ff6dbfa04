"""Checkpoints whose linear layers are quantised, as a source of weights in our formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dlavm.formats import Grid
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.jsonfile import read_json
from dlavm.frontend.model import ALL, WeightSource
from dlavm.frontend.quantized import awq, compressed, gptq, mxfp4, own
from dlavm.frontend.quantized.layer import Layer
from dlavm.frontend.quantized.scaled import fp8_layers
from dlavm.frontend.quantized.tensors import Tensors
from dlavm.frontend.safetensors_source import SafetensorsSource
from dlavm.support.errors import DlavmError

METHODS: Mapping[str, Callable[[Tensors, Fields], list[Layer]]] = {
    "gptq": gptq.layers,
    "awq": awq.layers,
    "compressed-tensors": compressed.layers,
    "fp8": fp8_layers,
    "fbgemm_fp8": fp8_layers,
    "mxfp4": mxfp4.layers,
    "dlavm": own.layers,
}
FIELD, GPTQ_FILE = "quantization_config", "quantize_config.json"


def open_checkpoint(directory: Path) -> WeightSource:
    """The weights of a checkpoint directory, quantised where its config.json says so.

    Raises DlavmError naming file and field or tensor for what cannot be read.
    """
    source = SafetensorsSource(directory)
    fields = _quantization(directory)
    if fields is None:
        return source
    method = fields.text("quant_method", "")
    if method not in METHODS:
        raise fields.error("quant_method", f"one of {tuple(METHODS)!r}")
    tensors = Tensors(source)
    return QuantizedSource(source, METHODS[method](tensors, fields), frozenset(tensors.used))


def permutations_of(source: WeightSource | None) -> Mapping[str, str]:
    """Those of `QuantizedSource`, of another none."""
    return source.permutations if isinstance(source, QuantizedSource) else {}


def _quantization(directory: Path) -> Fields | None:
    """What config.json says of it, or, of the first tools for GPTQ, a file of its own."""
    path, own = directory / "config.json", directory / GPTQ_FILE
    fields = Fields(str(path), read_json(path)).within(FIELD) if path.is_file() else None
    return fields or (Fields(str(own), {"quant_method": "gptq", **read_json(own)}) if own.is_file() else None)


class QuantizedSource:
    """A `WeightSource` of the float tensors of another, and of matrices that are made of the rest.

    Where a layer's columns are out of order, its weight is given with its columns group by group, and beside it an
    index vector, whose entry i says which element of the layer's input belongs to column i. `permutations` has the
    names of these vectors by that of the weight; layers beside each other with the same order share one.
    """

    def __init__(self, inner: SafetensorsSource, layers: list[Layer], used: frozenset[str]) -> None:
        self.place = inner.place
        self._inner = inner
        self._layers = {layer.name: layer for layer in layers}
        self.permutations, self._orders = _shared_orders(layers)
        self._plain = set(inner.names()) - used - self._layers.keys()

    def names(self) -> list[str]:
        return sorted({*self._plain, *self._layers, *self._orders})

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._layers:
            return self._layers[name].shape
        return self._orders[name].shape if name in self._orders else self._float(name).shape(name)

    def dtype(self, name: str) -> str:
        if name in self._layers:
            format = self._layers[name].fit.format
            return "F32" if format is None else format.name
        return "I32" if name in self._orders else self._float(name).dtype(name)

    def note(self, name: str) -> str:
        return self._layers[name].fit.note if name in self._layers else ""

    def nearest(self, name: str) -> str:
        return ""

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        if name in self._layers:
            return self._layers[name].values(self._rows(name, rows))
        return self._orders[name][rows] if name in self._orders else self._float(name).get(name, rows)

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        return self._layers[name].grid(self._rows(name, rows)) if name in self._layers else None

    def _rows(self, name: str, rows: slice) -> slice:
        start, stop, _ = rows.indices(self._layers[name].shape[0])
        return slice(start, max(start, stop))

    def _float(self, name: str) -> SafetensorsSource:
        if name not in self._plain:
            raise DlavmError(f"weights {self.place}: expected a tensor of the checkpoint, got {name!r}")
        return self._inner


def _shared_orders(layers: list[Layer]) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """The index vector of each weight that has one, and the vectors, by name."""
    names: dict[str, str] = {}
    orders: dict[str, NDArray[Any]] = {}
    first: dict[tuple[str, bytes], str] = {}
    for layer in layers:
        if layer.order is None:
            continue
        module = layer.name.removesuffix(".weight")
        name = first.setdefault((module.rpartition(".")[0], layer.order.tobytes()), f"{module}.permutation")
        names[layer.name] = name
        orders[name] = layer.order
    return names, orders
