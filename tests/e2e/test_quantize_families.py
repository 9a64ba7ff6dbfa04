"""`dlavm quantize` on every family: fused and transposed projections, norms stored less one, experts, parallel ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dlavm.compile import Options as BuildOptions
from dlavm.formats import FORMATS
from dlavm.formats import quantize as round_to_nearest
from dlavm.frontend import load_model
from dlavm.quantize import Options, quantize_model
from dlavm.quantize.units import find_units
from dlavm.verbs.floats import model_session
from tests.e2e import families
from tests.e2e.families import CASES, VOCAB

pytest.importorskip("torch")
pytest.importorskip("transformers")

BY_NAME = {case.name: case for case in CASES}
# One of each kind: transposed, fused, norms stored less one, the same with its head tied in a part's fields, experts.
KINDS = ("gpt2", "phi3", "gemma", "gemma3-images", "mixtral")
SAMPLES = np.random.default_rng(3).integers(0, VOCAB, (4, 24)).tolist()
IDS = [int(token) for token in np.random.default_rng(5).integers(0, VOCAB, 24)]


def logits(directory: Path) -> np.ndarray:
    return model_session(load_model(directory), BuildOptions(ctx=32, chunk=32)).logits(IDS)


def written(name: str, directory: Path) -> Path:
    directory.mkdir()
    families.write(BY_NAME[name], directory)
    return directory


def check(name: str, tmp_path: Path) -> None:
    """Rounding to nearest is exact tensor by tensor; scales that are folded leave the model what it is."""
    model = written(name, tmp_path / "model")
    source = load_model(model)
    matrices = [matrix for unit in find_units(source.graph(8, 8)) for matrix in unit.matrices]
    quantize_model(source, Options("rtn", ("int4g32",)), [], tmp_path / "rtn")
    quantised = load_model(tmp_path / "rtn")
    used = {tensor.name for param in quantised.graph(8, 8).params for tensor in param.tensors}
    for matrix in matrices:
        grid = quantised.needed_weights().grid(matrix.name)
        wanted = round_to_nearest(source.needed_weights().get(matrix.source), FORMATS["int4g32"])
        assert grid is not None and matrix.name in used, matrix
        np.testing.assert_array_equal(grid.values(), wanted.values())
    floats, errors = logits(model), {}
    for method in ("rtn", "awq"):
        quantize_model(source, Options(method, ("int8g32",)), SAMPLES, tmp_path / f"{method}-8")
        error = np.linalg.norm(logits(tmp_path / f"{method}-8") - floats, axis=1) / np.linalg.norm(floats, axis=1)
        errors[method] = float(np.median(error))  # a token that is near to another expert may be routed to that one
    assert errors["awq"] < 1.5 * errors["rtn"] < 0.05


@pytest.mark.parametrize("name", KINDS)
def test_a_quantised_checkpoint_of_each_kind(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in KINDS])
def test_a_quantised_checkpoint_of_every_family(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


def test_a_transposed_checkpoint_takes_our_own_form(tmp_path: Path) -> None:
    quantize_model(load_model(written("gpt2", tmp_path / "model")), Options("rtn", ("int4g32",)), [], tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "dlavm" and any(matrix.endswith("|T") for matrix in config["matrices"])
