"""FILE.py:SHAPE, and models without weights or with random ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dlavm.frontend import RandomSource, load_model, split_shape
from dlavm.frontend.random_weights import PART
from dlavm.graph import Builder, Graph
from dlavm.support.errors import DlavmError

FAMILY = """
from dataclasses import dataclass
from dlavm.graph import Builder

@dataclass(frozen=True)
class Shape:
    dim: int
    max_position_embeddings: int

MAX_CTX = 4
SHAPES = {"wide-8": Shape(8, 64), "small": Shape(2, 16), "free": 3}

def build(ctx, chunk, shape):
    dim = shape if isinstance(shape, int) else shape.dim
    b = Builder("family", ctx=ctx, chunk=chunk)
    return b.finish(y=b.linear(b.input("x", (b.token, dim), "f16"), b.param("w", (dim, dim))))
"""


@pytest.fixture
def family(tmp_path: Path) -> Path:
    path = tmp_path / "family.py"
    path.write_text(FAMILY)
    return path


@pytest.mark.parametrize(
    ("shape", "name", "dim", "limit"),
    [("", "wide-8", 8, 64), (":wide-8", "wide-8", 8, 64), (":small", "small", 2, 16), (":free", "free", 3, 4)],
)
def test_a_shape_is_chosen_by_name(family: Path, shape: str, name: str, dim: int, limit: int) -> None:
    model = load_model(f"{family}{shape}")
    assert (model.name, model.max_ctx) == (name, limit)
    assert [int(p.type.shape[0]) for p in model.graph(4, 2).params] == [dim]


def test_what_is_no_shape(family: Path, tmp_path: Path) -> None:
    for shape in ("large", ""):
        with pytest.raises(
            DlavmError, match=rf"family.py: shape expected one of \['wide-8', 'small', 'free'\], got '{shape}'"
        ):
            load_model(f"{family}:{shape}")
    with pytest.raises(DlavmError, match="expected a file or directory, got .*gone.py'"):
        load_model(f"{tmp_path}/gone.py:small")
    with pytest.raises(DlavmError, match="which does not exist"):
        load_model(f"{tmp_path}:small")


@pytest.mark.parametrize("table", ["None", "{}", "[1]", "{3: 4}"])
def test_what_is_no_table_of_shapes(family: Path, table: str) -> None:
    family.write_text(f"SHAPES = {table}\ndef build(ctx, chunk, shape):\n    pass\n")
    with pytest.raises(DlavmError, match="family.py: SHAPES expected a table of shapes by name, got"):
        load_model(f"{family}:small")


def test_build_must_take_the_shape(family: Path) -> None:
    family.write_text("SHAPES = {'a': 1}\ndef build(ctx, chunk):\n    pass\n")
    with pytest.raises(DlavmError, match="family.py: expected to run, got .*TypeError.* 3 were given"):
        load_model(family).graph(4, 2)


def test_split_shape() -> None:
    assert split_shape("models/a.py:b") == (Path("models/a.py"), "b")
    assert split_shape("models/a.py") == (Path("models/a.py"), None)
    assert split_shape("models:b") == (Path("models:b"), None)


def test_shapes_without_weights(family: Path, repository: Path, tmp_path: Path) -> None:
    model = load_model(family, "none")
    assert model.weights is None and model.shapes_only and model.graph(4, 2).params
    assert not load_model(family).shapes_only
    stories = load_model(repository / "models" / "stories.py", "none")
    assert stories.weights is None and stories.tokenizer is not None
    config = json.loads((repository / "models" / "stories" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))  # no safetensors beside it
    assert len(load_model(tmp_path, "none").graph(8, 2).kv) == 6


def test_random_weights_are_those_of_seed_and_name(family: Path) -> None:
    def weights(text: str) -> np.ndarray:
        model = load_model(family, text)
        model.graph(4, 2)  # the names and shapes are those of the graph
        assert model.weights is not None and model.weights.names() == ["w"]
        return model.weights.get("w")

    first = weights("random")
    assert first.shape == (8, 8) and first.dtype == np.float16
    np.testing.assert_array_equal(first, weights("random:0"))
    assert not np.array_equal(first, weights("random:1"))
    # What the bits of the generator give on every machine.
    assert first[0, :4].tolist() == [0.41015625, 0.50927734375, -0.089111328125, -0.200927734375]


@pytest.mark.parametrize("text", ["random:", "random:-1", "random:x", "randomly", "None"])
def test_what_is_no_source_of_weights(family: Path, text: str) -> None:
    with pytest.raises(DlavmError, match=f"weights: expected a directory, random, random:SEED or none, got '{text}'"):
        load_model(family, text)


def graph(rows: int = 64, width: int = 64) -> Graph:
    b = Builder("m", ctx=4, chunk=2)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("table", (rows, width)))
    x = b.rms_norm(x, b.param("gamma", (width,)), eps=1e-5)
    head = b.param("head", (rows, width), source="table")
    return b.finish(y=b.linear(x, head, b.param("bias", (rows,))), z=b.linear(x, b.param("w", (rows, width))))


def test_sizes_of_random_numbers() -> None:
    source = RandomSource(graph(rows=500, width=400))
    assert source.names() == ["bias", "gamma", "table", "w"]  # the tied head has no tensor of its own
    for name, mean, deviation in (("table", 0, 0.05), ("w", 0, 0.05), ("gamma", 1, 0.1), ("bias", 0, 0.1)):
        values = source.get(name).astype(np.float64)
        assert values.shape == source.shape(name) and source.dtype(name) == "F16"
        assert abs(values.mean() - mean) < 0.2 * deviation and abs(values.std() / deviation - 1) < 0.1
        assert np.abs(values - mean).max() < 1.75 * deviation  # sqrt(3), rounded to fp16
    assert abs(np.corrcoef(source.get("table").ravel(), source.get("w").ravel())[0, 1]) < 0.02
    for ask in (source.shape, source.dtype, source.get):
        with pytest.raises(DlavmError, match="weights random:0: expected a param of the model, got 'head'"):
            ask("head")


def test_a_large_tensor_begins_like_a_small_one_and_does_not_repeat() -> None:
    rows = PART // 64 + 1
    large, small = RandomSource(graph(rows)).get("w"), RandomSource(graph(8)).get("w")
    np.testing.assert_array_equal(large[:8], small)
    for start, stop in ((0, 3), (7, 9), (rows - 2, rows)):
        some = RandomSource(graph(rows, 61)).get("w", slice(start, stop))
        np.testing.assert_array_equal(some, RandomSource(graph(rows, 61)).get("w")[start:stop])
    assert not np.array_equal(large[0], large[-1])


def test_a_random_order_is_a_permutation() -> None:
    b = Builder("m", ctx=8, chunk=4)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("table", (9, 40)))
    source = RandomSource(b.finish(y=b.permute(x, b.param("order", (40,), "i32"))))
    order = source.get("order")
    assert source.dtype("order") == "I32" and sorted(order.tolist()) == list(range(40)) != order.tolist()
    np.testing.assert_array_equal(source.get("order", slice(7, 20)), order[7:20])
