"""Passes: input text to expected text (tests/golden/passes), the runner's checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dlavm.graph import Builder, Graph, constant_array, parse_graph, print_graph, verify
from dlavm.passes import (
    Canonicalise,
    Cse,
    Dce,
    FoldConstants,
    FoldScale,
    FuseEpilogue,
    FuseHorizontal,
    LastTokens,
    MaterialiseViews,
    OrderForMemory,
    Pass,
    QuantizeCache,
    QuantizeWeights,
    run,
)
from dlavm.passes.fuse_horizontal import joined_name
from dlavm.support.errors import DlavmError
from dlavm.target import load_target

NANO = load_target("v3", "nano").space("weights")  # row tiles of 16
CASES: list[tuple[str, Pass]] = [
    ("canonicalise", Canonicalise()),
    ("fold_constants", FoldConstants()),
    ("fold_scale", FoldScale()),
    ("dce", Dce()),
    ("cse", Cse()),
    ("last_tokens", LastTokens()),
    ("last_tokens_stay", LastTokens()),
    ("fuse_gated", FuseEpilogue()),
    ("fuse_order", FuseEpilogue()),
    ("fuse_horizontal", FuseHorizontal(NANO)),
    ("order_for_memory", OrderForMemory(load_target("v1", "nano"))),
    ("materialise_views", MaterialiseViews()),
    ("quantize", QuantizeWeights()),
    ("quantize_shared", QuantizeWeights()),
    ("quantize_cache", QuantizeCache("mxint8")),
]


def read(repository: Path, case: str) -> str:
    return (repository / "tests" / "golden" / "passes" / f"{case}.in.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("case", "pass_"), CASES, ids=[case for case, _ in CASES])
def test_input_to_expected(case: str, pass_: Pass, repository: Path, golden: Callable[[str, str], None]) -> None:
    text = read(repository, case)
    graph = parse_graph(text)
    assert print_graph(graph) == text, "the input is written as it prints"
    after = pass_(graph)
    verify(after)
    golden(f"passes/{case}.out.txt", print_graph(after))
    assert print_graph(pass_(after)) == print_graph(after), "a second run changes nothing"


def test_unknown_format_is_refused() -> None:
    with pytest.raises(DlavmError, match=r"format expected one of int4g32, .*, mxint8, got 'int3'"):
        QuantizeWeights("int3")
    with pytest.raises(DlavmError, match=r"format of '\*\.q' expected one of int4g128, int8g32, got 'mxfp4'"):
        QuantizeWeights(patterns=(("*.q", "mxfp4"),), available=("int4g128", "int8g32"))


def test_unknown_cache_is_refused() -> None:
    with pytest.raises(DlavmError, match="quantize_cache: format expected one of fp16, mxint8, got 'int8'"):
        QuantizeCache("int8")
    with pytest.raises(DlavmError, match="quantize_cache: format expected one of fp16, got 'mxint8'"):
        QuantizeCache("mxint8", ("fp16",))


@dataclass(frozen=True)
class Breaks:
    name: str = "breaks"

    def __call__(self, graph: Graph) -> Graph:
        return replace(graph, nodes=graph.nodes[1:])


def test_runner_verifies_when_asked(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = parse_graph(read(repository, "quantize"))
    monkeypatch.delenv("DLAVM_VERIFY", raising=False)
    monkeypatch.delenv("DLAVM_DUMP", raising=False)
    assert len(run([Breaks()], graph).nodes) == 3
    monkeypatch.setenv("DLAVM_VERIFY", "1")
    with pytest.raises(DlavmError, match="after pass breaks: rms_norm at n: expected a value defined earlier, got 'x'"):
        run([Dce(), Breaks()], graph)


def test_runner_dumps_when_asked(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = parse_graph(read(repository, "dce"))
    monkeypatch.setenv("DLAVM_DUMP", str(tmp_path / "dump"))
    after = run([Dce(), QuantizeWeights()], graph)
    names = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert names == ["graph-00-input.txt", "graph-01-dce.txt", "graph-02-quantize_weights.txt"]
    assert (tmp_path / "dump" / names[2]).read_text() == print_graph(after)


@pytest.mark.parametrize(
    ("shape", "data"),
    [([2], "ADwAQABC"), ([3], "ADwAQABCAEQ="), ([2], "!"), ([2], "ADwAQ")],
    ids=["too long", "too short", "no base64", "cut off"],
)
def test_stored_constants_have_their_size(shape: list[int], data: str) -> None:
    extents = ", ".join(map(str, shape))
    text = f'graph m\nconstant %c : f16[{extents}] = values(shape=[{extents}], data="{data}")\n'
    graph = parse_graph(text)
    with pytest.raises(DlavmError, match="constant values: data expected base64 of"):
        constant_array(graph.constants[0])


def test_large_results_are_not_folded() -> None:
    b = Builder("m", ctx=64, chunk=8)
    half = b.scale(b.rotary(8), value=0.5)
    graph = b.finish(y=b.rope(b.input("x", (b.token, 1, 8), "f16"), half, rotary_dim=8))
    assert [len(FoldConstants(limit)(graph).constants) for limit in (511, 512)] == [1, 2]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.q.w", "a.k.w", "a.v.w"], "a.q-k-v.w"),
        (["l.0.q", "l.0.k"], "l.0.q-k"),
        (["q", "k"], "q-k"),
        (["a.b", "a.b"], "a.b-b"),
        (["a.b.c", "a.c"], "a.b.c-c"),
        (["a.q.w", "b.w"], "a.q-b.w"),
    ],
)
def test_joined_names(names: list[str], expected: str) -> None:
    assert joined_name(names) == expected
