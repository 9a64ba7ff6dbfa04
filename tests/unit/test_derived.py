"""Tensors that are made of a checkpoint's: names, shapes, reading by rows, putting together again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlavm.formats import FORMATS, Grid, quantize
from dlavm.frontend import derived_source
from dlavm.frontend.derived_source import DerivedSource
from dlavm.frontend.model import ALL, check_weights, weight_problems
from dlavm.graph import Builder
from dlavm.graph.derived import Derived, Rows, assembled, derived
from dlavm.support.errors import DlavmError
from tests.conftest import examples


@dataclass
class Arrays:
    """A `WeightSource` of arrays and grids that notes what is read."""

    tensors: dict[str, Any]
    grids: dict[str, Grid] = field(default_factory=dict)
    place: str = "arrays"
    read: list[tuple[str, range]] = field(default_factory=list)

    def names(self) -> list[str]:
        return sorted(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.tensors:
            raise DlavmError(f"no {name}")
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> str:
        if name in self.grids:
            return self.grids[name].format.name
        return {"float16": "F16", "float32": "F32"}[str(self.tensors[name].dtype)]

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        self.read.append((name, range(*rows.indices(self.shape(name)[0]))))
        return np.asarray(self.tensors[name][rows])

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        whole = self.grids.get(name)
        if whole is None:
            return None
        start, stop, _ = rows.indices(whole.shape[0])
        return whole.rows(start, stop)

    def note(self, name: str) -> str:
        return f"of {name}"

    def nearest(self, name: str) -> str:
        return ""


def source(**tensors: Any) -> tuple[DerivedSource, Arrays]:
    inner = Arrays(tensors)
    return DerivedSource(inner), inner


@pytest.mark.parametrize("name", ["a.weight", "a|T", "a|0-2of3", "a|T|1-3of3|plus1", "a|plus1"])
def test_names_say_how_a_tensor_is_made(name: str) -> None:
    assert derived(name).name == name and derived(name).base == name.split("|")[0]


@pytest.mark.parametrize("name", ["a|", "a|t", "|T", "a|0-2", "a|plus1|T", "a|0-2of3|T", "a|x|T", "a|T|T"])
def test_what_is_no_such_name(name: str) -> None:
    with pytest.raises(DlavmError, match=r"tensor .*: expected \|T, \|A-BofC, \|plus1 behind a name, in this order"):
        derived(name)


@pytest.mark.parametrize("rows", ["2-2of4", "3-1of4", "0-5of4"])
def test_rows_lie_within_their_period(rows: str) -> None:
    with pytest.raises(DlavmError, match="rows expected A < B <= C in A-BofC, got"):
        derived(f"a|{rows}")


def test_shapes() -> None:
    assert derived("a|T|1-3of4").shape((5, 8)) == (4, 5)
    assert derived("a|1-3of4|plus1").shape((8,)) == (4,)
    with pytest.raises(DlavmError, match=r"tensor a: expected a matrix to transpose, got shape \[8\]"):
        derived("a|T").shape((8,))
    with pytest.raises(DlavmError, match=r"tensor a: expected a multiple of 3 columns, got shape \[5, 8\]"):
        derived("a|T|0-1of3").shape((5, 8))


MATRIX = np.arange(12 * 5, dtype=np.float32).reshape(12, 5)


@given(
    transposed=st.booleans(),
    plus_one=st.booleans(),
    period=st.sampled_from([2, 3, 4, 6, 12]),
    bounds=st.tuples(st.integers(0, 11), st.integers(1, 12)),
    window=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    block=st.sampled_from([1, 30, 1 << 20]),
)
@settings(max_examples=examples(200))
def test_rows_are_those_of_the_whole_tensor(
    transposed: bool, plus_one: bool, period: int, bounds: tuple[int, int], window: tuple[int, int], block: int
) -> None:
    start, end = bounds[0] % period, 1 + (bounds[1] - 1) % period
    if start >= end:
        return
    stored = np.ascontiguousarray(MATRIX.T) if transposed else MATRIX
    whole = np.concatenate([MATRIX[at + start : at + end] for at in range(0, 12, period)]) + plus_one
    name = Derived("m", transposed, Rows(start, end, period), plus_one).name
    made, inner = source(m=stored)
    assert made.shape(name) == whole.shape
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(derived_source, "BLOCK_BYTES", block)
        rows = slice(*sorted(min(at, len(whole)) for at in window))
        if rows.start == rows.stop:
            return
        np.testing.assert_array_equal(made.get(name, rows), whole[rows])
    if not transposed:  # and no row beside those
        assert sum(len(read) for _, read in inner.read) == rows.stop - rows.start


def test_types() -> None:
    made, _ = source(h=np.ones((4, 4), np.float16), f=np.ones((4, 4), np.float32))
    assert made.get("h|T").dtype == np.float16 and made.dtype("h|T|0-1of2") == "F16"
    assert made.get("h|plus1").dtype == np.float32 and made.dtype("h|plus1") == "F32"
    assert made.dtype("f|0-1of2") == "F32" and made.note("f|0-1of2") == "of f"


def test_a_transposed_matrix_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, inner = source(m=np.ones((100, 8), np.float32))
    monkeypatch.setattr(derived_source, "BLOCK_BYTES", 10 * 8 * 4)
    assert made.get("m|T", slice(2, 4)).shape == (2, 100)
    assert [len(read) for _, read in inner.read] == [10] * 10


def test_grids_follow_rows_and_are_lost_by_transposing() -> None:
    rng = np.random.default_rng(5)
    values = rng.standard_normal((12, 64)).astype(np.float32)
    grid = quantize(values, FORMATS["int4g32"], "m")
    inner = Arrays({"m": grid.values()}, {"m": grid})
    made = DerivedSource(inner)
    part = made.grid("m|1-3of4", slice(1, 5))
    assert part is not None and made.dtype("m|1-3of4") == "int4g32"
    np.testing.assert_array_equal(part.values(), grid.values()[[2, 5, 6, 9]])
    np.testing.assert_array_equal(made.get("m|1-3of4", slice(1, 5)), part.values())
    assert made.grid("m|T") is None and made.dtype("m|T") == "F32"
    assert made.note("m|T") == "quantised along the other axis"
    whole = made.grid("m")
    assert whole is not None and whole.shape == (12, 64)


def test_hidden_tensors() -> None:
    inner = Arrays({name: np.ones(1) for name in ("h.0.attn.bias", "h.0.attn.c_attn.bias", "x")})
    assert DerivedSource(inner, ("*.attn.bias",)).names() == ["h.0.attn.c_attn.bias", "x"]


def test_tensors_are_put_together_again() -> None:
    rng = np.random.default_rng(7)
    tensors = {"qkv": rng.standard_normal((12, 3)), "conv": rng.standard_normal((3, 12)), "g": rng.standard_normal(4)}
    made, _ = source(**tensors)
    names = ["qkv|0-1of4", "qkv|1-3of4", "qkv|3-4of4", "conv|T|0-8of12", "conv|T|8-12of12", "g|plus1"]
    back = assembled({name: made.get(name) for name in names})
    assert back.keys() == tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_allclose(back[name], values, atol=1e-6)
    assert assembled({"conv|T": tensors["conv"].T})["conv"].shape == (3, 12)
    with pytest.raises(DlavmError, match="tensor qkv: expected all of every 4 rows, got 3"):
        assembled({"qkv|0-3of4": np.ones((9, 3))})
    with pytest.raises(DlavmError, match="tensor qkv: expected parts of every 4 rows, got 'qkv|0-1of2'"):
        assembled({"qkv|0-3of4": np.ones((9, 3)), "qkv|0-1of2": np.ones((6, 3))})


def test_weights_are_held_against_what_is_made_of_them() -> None:
    b = Builder("m", ctx=4, chunk=2)
    x = b.input("x", (b.token, 8), "f16")
    q = b.linear(x, b.param("qkv.q", (4, 8), source="qkv|0-4of12"))
    k = b.linear(x, b.param("qkv.k", (8, 8), source="qkv|4-12of12"))
    graph = b.finish(q=q, k=k)
    good, _ = source(qkv=np.ones((12, 8), np.float32))
    check_weights(graph, good)
    assert weight_problems(graph, good) == []
    for shape, message in (
        ((13, 8), r"tensor qkv: expected a multiple of 12 rows, got shape \[13, 8\]"),
        ((24, 8), r"qkv\|0-4of12 expected shape \[4, 8\], got \[8, 8\]"),
        ((12, 9), r"qkv\|0-4of12 expected shape \[4, 8\], got \[4, 9\]"),
    ):
        bad, _ = source(qkv=np.ones(shape, np.float32))
        with pytest.raises(DlavmError, match=message):
            check_weights(graph, bad)
        assert len(weight_problems(graph, bad)) == 2
    with pytest.raises(DlavmError, match=r"missing tensors: qkv\|0-4of12 \[4, 8\], qkv\|4-12of12 \[8, 8\], got 1"):
        check_weights(graph, source(other=np.ones(1, np.float32))[0])
    with pytest.raises(DlavmError, match="got extra: other"):
        check_weights(graph, source(qkv=np.ones((12, 8), np.float32), other=np.ones(1, np.float32))[0])
