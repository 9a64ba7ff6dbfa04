"""The node tests of the onnx package, run through the numpy meaning of the importer."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case import node
from onnx.backend.test.loader import load_model_tests

from dlavm.frontend.onnx_import.evaluate import run_graph
from dlavm.frontend.onnx_import.load import OLDEST, read_graph
from dlavm.frontend.onnx_import.meaning import MEANINGS

CLAIMED = {*MEANINGS, ("", "Constant"), ("", "If")}
REFUSED = {  # what a claimed operator is not claimed for
    "training_dropout": "random numbers",
    "identity_sequence": "no tensor",
    "identity_opt": "no tensor",
    "if_seq": "no tensor",
    "if_opt": "no tensor",
}


@dataclass(frozen=True)
class NodeTest:
    name: str
    ops: frozenset[tuple[str, str]]
    model: onnx.ModelProto
    cases: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float

    def run(self, folder: Path) -> None:
        """Fails by an assertion where a result differs."""
        path = folder / "model.onnx"
        path.write_bytes(self.model.SerializeToString())
        graph = read_graph(path)
        for inputs, outputs in self.cases:
            named = zip((value.name for value in self.model.graph.input), inputs, strict=True)
            found = run_graph(graph, {name: np.asarray(value) for name, value in named})
            assert len(found) >= len(outputs)
            for ours, theirs in zip(found, outputs, strict=False):
                self._compare(ours, np.asarray(theirs))

    def _compare(self, ours: Any, theirs: Any) -> None:
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if ours.dtype.kind in "fV":
            wide = ours.astype(np.float64), theirs.astype(np.float64)
            np.testing.assert_allclose(*wide, rtol=self.rtol, atol=self.atol)
        else:
            np.testing.assert_array_equal(ours, theirs)


def claimed_tests(modules: tuple[str, ...] = ()) -> Iterator[NodeTest]:
    """Those of claimed operators alone, in opsets from the oldest on; an older one stands for the same definition.
    `modules` of the package make some in a second; all of them take ten."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflows in their making
        for module in modules:
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
        tests = list(node._NodeTestCases) if modules else load_model_tests(kind="node")
    for test in tests:
        name = test.name.removeprefix("test_")
        model = onnx.load(Path(test.model_dir) / "model.onnx") if test.model_dir else test.model
        ops = frozenset((n.domain, n.op_type) for n in model.graph.node)
        if ops <= CLAIMED and not name.startswith(tuple(REFUSED)) and _renew(model, ops):
            yield NodeTest(name, ops, model, _cases(test), test.rtol, test.atol)


def _renew(model: onnx.ModelProto, ops: frozenset[tuple[str, str]]) -> bool:
    """Gives the model the oldest opset that is read, where its operators are the same there; whether it has one now."""
    (opset,) = (o for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset.version < OLDEST:
        versions = [[onnx.defs.get_schema(op, v).since_version for v in (opset.version, OLDEST)] for _, op in ops]
        if all(old == new for old, new in versions):
            opset.version = OLDEST
    return bool(opset.version >= OLDEST)


def _cases(test: Any) -> list[tuple[list[Any], list[Any]]]:
    if not test.model_dir:
        return [([_array(x) for x in inputs], [_array(x) for x in outputs]) for inputs, outputs in test.data_sets]
    folders = sorted(Path(test.model_dir).glob("test_data_set_*"))
    return [(_files(folder, "input"), _files(folder, "output")) for folder in folders]


def _files(folder: Path, kind: str) -> list[Any]:
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [numpy_helper.to_array(onnx.load_tensor(folder / f"{kind}_{i}.pb")) for i in range(count)]


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
