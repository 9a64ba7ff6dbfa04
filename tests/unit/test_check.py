"""check: problems of every kind, planted together, are all named at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dlavm import cli
from dlavm.check import check
from dlavm.compile import Options
from dlavm.frontend import Model, load_model
from dlavm.graph import Builder, Graph
from dlavm.target import TargetSpec, load_target
from tests.unit.gguf_files import SIZES
from tests.unit.gguf_files import write as write_gguf
from tests.unit.test_gguf_model import tensors

NANO = load_target("v3", "nano")

MODEL = '''
from dlavm.graph import Builder

WEIGHTS = "weights"
MAX_CTX = 64
DIM = 64


def build(ctx, chunk):
    b = Builder("planted", ctx=ctx, chunk=chunk)
    ids = b.input("ids", (b.token,), "i32")
    x = b.embedding(ids, b.param("embed", (50, DIM)))
    for layer in range(3):
        with b.scope(f"layer {layer}"):
            h = b.rms_norm(x, b.param(f"{layer}.norm", (DIM,)), eps=1e-5, name="norm")
            q = b.linear(h, b.param(f"{layer}.q", (DIM, DIM)), name="q")
            k = b.reshape(q, shape=(b.token, 2, 32), name="heads")
            cache = b.kv_append(b.kv(f"{layer}.k", (2, b.ctx, 32)), k, name="append")
            a = b.attention(k, cache, cache, scale=0.25)
            x = b.add(x, b.reshape(a, shape=(b.token, DIM), name="flat"), name="add")
    logits = b.linear(b.last_rows(x, count=b.head_rows), b.param("head", (50, DIM)), name="logits")
    return b.finish(logits=logits, next=b.argmax(logits, name="next"))
'''


@pytest.fixture
def plant(tmp_path: Path) -> Callable[..., Path]:
    """`plant((old, new), ..., tensor=array)`: the model's file with texts replaced, weights replaced or left out."""

    def write(*changes: tuple[str, str], **tensors: np.ndarray | None) -> Path:
        text = MODEL
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "planted.py").write_text(text)
        shapes = {"embed": (50, 64), "head": (50, 64)}
        shapes |= {f"{i}.{name}": shape for i in range(3) for name, shape in (("norm", (64,)), ("q", (64, 64)))}
        weights: dict[str, Any] = {name: np.ones(shape, np.float16) for name, shape in shapes.items()}
        weights |= {name.replace("__", "."): value for name, value in tensors.items()}
        (tmp_path / "weights").mkdir()
        save_file({n: w for n, w in weights.items() if w is not None}, tmp_path / "weights" / "model.safetensors")
        return tmp_path / "planted.py"

    return write


def found(model: Path | Model, spec: TargetSpec = NANO, **options: Any) -> list[tuple[str, str]]:
    """(where, what) of each problem."""
    loaded = model if isinstance(model, Model) else load_model(model)
    return [(p["where"], p["what"]) for p in check(loaded, spec, Options(**options)).problems]


def test_nothing_is_wrong(plant: Callable[..., Path]) -> None:
    model = load_model(plant())
    findings = check(model, NANO, Options())
    assert (findings.problems, findings.notes) == ([], [])


def test_every_kind_at_once(plant: Callable[..., Path]) -> None:
    """Options, weights (missing, misshapen, of a wrong type, extra), ops in each layer, memory."""
    path = plant(
        ("DIM = 64", "DIM = 64\nBIG = 40_000_000"),
        ('b.param("embed", (50, DIM))', 'b.param("embed", (BIG, DIM))'),
        **{"0__q": None, "1__norm": np.ones(65, np.float16), "2__q": np.ones((64, 64), np.int32)},
        adapter=np.ones(3, np.float16),
    )
    spec = replace(NANO, capabilities=NANO.capabilities - {"kv_fp16", "kv_mxint8"})
    problems = found(path, spec, ctx=65, chunk=66, quant="int3")
    texts = dict(problems)
    assert "--quant: expected one of int4g32, " in problems[0][1] and "'int3'" in problems[0][1]
    assert problems[1] == ("planted", "--chunk: expected at most the context of 65 positions, got 66")
    assert problems[2] == ("planted", "model planted: ctx expected at most 64 positions, got 65")
    assert texts["0.q"].endswith("0.q expected shape [64, 64], got no such tensor")
    assert texts["1.norm"].endswith("1.norm expected shape [64], got [65]")
    assert texts["2.q"].endswith("2.q expected one of ('F16', 'BF16', 'F32'), got 'I32'")
    assert texts["embed"].endswith("expected shape [40000000, 64], got [50, 64]")
    assert texts["adapter"].endswith("expected only what the model uses, got adapter")
    for layer in range(3):
        for op in ("append", "attention"):
            assert "cannot be compiled for v3" in texts[f"layer {layer} / {op}"]
    assert problems[-1][0] == "planted" and "memory hbm of board nano: expected at most" in problems[-1][1]
    assert len(problems) == 3 + 5 + 6 + 1


def test_an_op_that_its_rule_refuses_does_not_hide_the_next(plant: Callable[..., Path]) -> None:
    """Heads of 4 elements do not start on 16 bytes: in each layer, and the layers behind are still looked at."""
    path = plant(("(b.token, 2, 32)", "(b.token, 16, 4)"), ("(2, b.ctx, 32)", "(16, b.ctx, 4)"))
    problems = found(path)
    assert [where for where, _ in problems if where.endswith("heads")] == [f"layer {i} / heads" for i in range(3)]
    assert all("heads of a multiple of 8 elements, got 4" in what for where, what in problems if "heads" in where)
    assert not any("not placed" in what for _, what in problems)


def test_memory_alone(plant: Callable[..., Path]) -> None:
    path = plant(("MAX_CTX = 64", "MAX_CTX = 10_000_000"))
    ((where, what),) = found(path, ctx=10_000_000)
    assert where == "planted" and "the KV cache alone takes" in what


def test_a_graph_that_cannot_be_built_ends_the_search(plant: Callable[..., Path]) -> None:
    path = plant(('b.param(f"{layer}.q", (DIM, DIM))', 'b.param(f"{layer}.q", (DIM, 63))'), adapter=np.ones(1))
    findings = check(load_model(path), NANO, Options(chunk=100, ctx=50))
    assert [p["what"].split(":")[0] for p in findings.problems] == ["--chunk", str(path)]
    assert "what comes behind it in the graph was not looked at" in findings.problems[1]["hint"]
    assert "linear at layer 0 / q: w expected" in findings.problems[1]["what"]


def idle_model() -> Model:
    def build(ctx: int, chunk: int) -> Graph:
        b = Builder("idle", ctx=ctx, chunk=chunk)
        ids = b.input("ids", (b.token,), "i32")
        b.input("mask", (b.token,), "i32")
        table = b.param("embed", (50, 64))
        x = b.embedding(ids, table)
        b.scale(x, value=2.0, name="forgotten")
        with b.scope("island"):
            b.act(b.param("alone", (64,)), fn="silu", name="act")
        return b.finish(logits=x)

    return Model("idle", build, shapes_only=True)


def test_notes_name_what_is_there_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    notes = {note["where"]: note["what"] for note in check(idle_model(), NANO, Options()).notes}
    assert notes == {
        "island / act": "2 values are not connected with any output",
        "mask": "no output depends on input mask",
        "forgotten": "no output depends on the result of scale",
    }


def test_the_verb_prints_problems_of_a_kind_together(
    plant: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = plant(("(b.token, 2, 32)", "(b.token, 16, 4)"), ("(2, b.ctx, 32)", "(16, b.ctx, 4)"),
                 ('x = b.embedding', 'b.input("mask", (b.token,), "i32")\n    x = b.embedding'),
                 **{"0__q": None, "1__q": None})  # fmt: skip
    arguments = ["check", str(path), "--target", "v3", "--board", "nano"]
    assert cli.main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "note: mask: no output depends on input mask"
    assert any(line.startswith("layer 0 / heads, layer 1 / heads, layer 2 / heads: ") for line in lines)
    assert sum("got no such tensor" in line for line in lines) == 2
    assert cli.main([*arguments, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert lines[-1] == f"{len(report['problems'])} problems on v3, nano"
    assert report["notes"] == [{"where": "mask", "what": "no output depends on input mask"}]
    assert all(set(problem) == {"where", "what", "hint"} for problem in report["problems"])


def test_a_quantised_tensor_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    """And no note of its format is asked for."""
    stored = tensors()
    del stored["blk.1.ffn_up.weight"]
    found = check(load_model(write_gguf(tmp_path / "a.gguf", "llama", SIZES, stored)), NANO, Options(ctx=16, chunk=4))
    assert [problem["where"] for problem in found.problems] == ["model.layers.1.mlp.up_proj.weight"]
