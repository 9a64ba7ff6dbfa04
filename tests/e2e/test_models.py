"""The families of models/: small ones with random weights on every target and beside torch, published shapes."""

from __future__ import annotations

import itertools
import json
import math
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dlavm.compile import Options, build
from dlavm.frontend import Model, RandomSource, load_model
from dlavm.graph.derived import assembled
from dlavm.pack.artifact import Artifact
from dlavm.runtime.session import open_session
from dlavm.target import TargetSpec, load_target
from dlavm.verbs.floats import FloatSession, model_session

Command = Callable[..., Any]
TARGETS = ("v1", "v2", "v3")
LOOPING = [target for target in TARGETS if load_target(target, "nano").has("loops")]  # the stream has loops
FAMILIES = ("llama", "qwen2", "chatglm")
MODELS = Path(__file__).resolve().parents[2] / "models"
PROGRAM_LIMIT = 64 << 10
RNG = np.random.default_rng(11)
PROMPT = [int(token) for token in RNG.integers(0, 331, 40)]  # of every vocabulary

# Head sizes that are and are not multiples of a block of 32; one, some and all heads with keys and values.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 1, "head_dim": 64}),
    ("llama", {"num_key_value_heads": 4, "head_dim": 80}),
    ("qwen2", {}),
    ("qwen2", {"num_key_value_heads": 3, "head_dim": 80, "tie_word_embeddings": False}),
    ("chatglm", {}),
    ("chatglm", {"multi_query_group_num": 1, "kv_channels": 64}),
    ("chatglm", {"multi_query_group_num": 4, "kv_channels": 80}),
]
DEPTH = {"llama": "num_hidden_layers", "qwen2": "num_hidden_layers", "chatglm": "num_layers"}
PUBLISHED = {
    "llama.py:llama2_7b": 6_738_415_616,
    "llama.py:llama2_13b": 13_015_864_320,
    "llama.py:llama2_70b": 68_976_648_192,
    "llama.py:llama3_8b": 8_030_261_248,
    "llama.py:llama3_70b": 70_553_706_496,
    "llama.py:tinyllama_1b": 1_100_048_384,
    "qwen2.py:qwen2_0_5b": 494_032_768,
    "qwen2.py:qwen2_1_5b": 1_543_714_304,
    "qwen2.py:qwen2_7b": 7_615_616_512,
    "qwen2.py:qwen2_72b": 72_706_203_648,
    "chatglm.py:chatglm2_6b": 6_243_584_000,
}


def tiny(family: str) -> str:
    return f"{MODELS / family}.py:{family}_tiny"


def small(family: str, **changes: Any) -> Model:
    """The family's tiny shape, changed, with random weights."""
    module = runpy.run_path(str(MODELS / f"{family}.py"))
    shape = module["SHAPES"][f"{family}_tiny"].changed(**changes)
    model = Model(family, lambda ctx, chunk: module["build"](ctx, chunk, shape))
    return replace(model, weights=RandomSource(model.build(1, 1), seed=3))


def logits_of(artifact: Path, pieces: Sequence[int], engine: str = "sim") -> bytes:
    """Of every token of the prompt, which is taken in `pieces`."""
    with open_session(Artifact.open(artifact), engine) as session:
        logits = session.prefill(PROMPT, chunks=list(pieces), logits_all=True).logits
    assert len(logits) == len(PROMPT) and np.abs(logits).max() > 1
    return logits.tobytes()


@pytest.mark.parametrize(("family", "changes"), VARIANTS)
def test_engines_agree_bit_by_bit_and_with_the_float_model(
    family: str, changes: dict[str, Any], dlavm: Command, tmp_path: Path
) -> None:
    build(small(family, **changes), load_target("v3", "nano"), Options(ctx=64, chunk=16), tmp_path / "a")
    outcome = dlavm("verify", tmp_path / "a", "--tokens", 3, "--prompts", "1,17,40", "--json")
    assert outcome.code == 0, outcome.out
    report = outcome.json
    assert (report["mismatches"], report["positions"]) == (0, 1 + 17 + 40 + 3 * 3)
    assert report["token_agreement"] > 0.9


@pytest.mark.parametrize(("family", "changes"), VARIANTS)
def test_generations_give_the_same_bits_rolled_or_not(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    found = {}
    changes = {DEPTH[family]: 3, **changes}  # the last layer is not like the others
    for target, rolls in itertools.product(TARGETS, (True, False)):
        options, out = Options(ctx=64, chunk=16, rolls=rolls), tmp_path / f"{target}{rolls}"
        report = build(small(family, **changes), load_target(target, "nano"), options, out)
        found[target, rolls] = (logits_of(out, [16, 1, 16, 7]), report["program_bytes"])
        assert found[target, rolls][0] == found["v1", True][0], (target, rolls)
    for target in LOOPING:
        assert found[target, True][1] < found[target, False][1]
    for target in TARGETS:
        assert logits_of(tmp_path / f"{target}True", [1, 14, 16, 7, 1, 1], "reference") == found["v1", True][0], target


def greedy(session: FloatSession, count: int) -> tuple[list[int], NDArray[np.float32]]:
    """The prompt and `count` greedy tokens after it; the logits of all of them but the last."""
    ids, parts = list(PROMPT[:21]), [session.logits(PROMPT[:21])]
    for _ in range(count):
        ids.append(int(parts[-1][-1].argmax()))
        parts.append(session.logits(ids[-1:]))
    return ids, np.concatenate(parts)[:-1]


def agrees(ours: NDArray[np.float32], theirs: NDArray[Any], ids: list[int]) -> None:
    """Logits within a thousandth of the largest, and the same greedy tokens behind the prompt of 21."""
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * float(np.abs(theirs).max()))
    assert [int(row.argmax()) for row in theirs[20:]] == ids[21:]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_graph_is_that_of_transformers(family: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name = {"llama": "Llama", "qwen2": "Qwen2"}[family]
    fields = runpy.run_path(str(MODELS / f"{family}.py"))["SHAPES"][f"{family}_tiny"].fields
    config = getattr(transformers, f"{name}Config")(**fields, attn_implementation="eager")
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    drawn = RandomSource(small(family).build(1, 1), seed=5)
    state = {n: torch.from_numpy(drawn.get(n).astype(np.float32)) for n in drawn.names()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"] if fields["tie_word_embeddings"] else [], [])
    model.save_pretrained(tmp_path)
    ids, ours = greedy(model_session(load_model(tiny(family), str(tmp_path)), Options(ctx=64, chunk=16)), 12)
    with torch.no_grad():
        theirs = model(torch.tensor([ids[:-1]])).logits[0].numpy()
    agrees(ours, theirs, ids)


@pytest.mark.parametrize(("groups", "d"), [(2, 40), (1, 64), (4, 80)])
def test_the_graph_of_chatglm_is_that_of_its_description(groups: int, d: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tests.e2e import chatglm_reference

    changes = {"multi_query_group_num": groups, "kv_channels": d}
    model = small("chatglm", **changes)
    shape = runpy.run_path(str(MODELS / "chatglm.py"))["SHAPES"]["chatglm_tiny"].changed(**changes)
    assert model.weights is not None
    tensors = assembled({n: model.weights.get(n) for n in model.weights.names()})
    ids, ours = greedy(model_session(model, Options(ctx=64, chunk=16)), 12)
    state = {n: torch.from_numpy(t) for n, t in tensors.items()}
    agrees(ours, chatglm_reference.logits(state, SimpleNamespace(**shape.fields), ids[:-1]).numpy(), ids)
    if d == 40:  # the shape in the table: as a checkpoint, with the buffer that published ones have
        buffer = {"transformer.rotary_pos_emb.inv_freq": np.ones(10, np.float16)}
        save_file({**tensors, **buffer}, tmp_path / "model.safetensors")
        read = model_session(load_model(tiny("chatglm"), str(tmp_path)), Options(ctx=64, chunk=16))
        np.testing.assert_array_equal(greedy(read, 12)[1], ours)


@pytest.mark.parametrize("place", PUBLISHED)
def test_published_shapes_have_the_published_number_of_weights(place: str) -> None:
    params = {p.source: p for p in load_model(str(MODELS / place), "none").graph(1, 1).params}
    assert sum(math.prod(int(extent) for extent in p.type.shape) for p in params.values()) == PUBLISHED[place]


def large_board(target: str) -> TargetSpec:
    """v80 with 64 GiB behind its channels: no board of today has room for 72 billion weights."""
    spec = load_target(target, "v80")
    memory = replace(spec.board.memory("hbm"), capacity=64 << 30)
    return replace(spec, board=replace(spec.board, memories={"hbm": memory}))


@pytest.mark.parametrize("target", LOOPING)
@pytest.mark.parametrize("place", ["qwen2.py:qwen2_72b", "llama.py:llama3_8b", "chatglm.py:chatglm2_6b"])
def test_large_shapes_compile_to_small_programs(target: str, place: str) -> None:
    model = load_model(str(MODELS / place), "none")
    report = build(model, large_board(target), Options(), None)
    assert report["artifact"] is None and report["program_bytes"] < PROGRAM_LIMIT
    assert report["activation_peak_bytes"] == report["activation_lower_bound_bytes"]
    assert report["weights_bytes"] > PUBLISHED[place] * 4.125 / 8  # int4 and a scale for each 128


@pytest.mark.parametrize("target", LOOPING)
def test_llama2_7b_compiles_in_little_memory(target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dlavm", "build", MODELS / "llama.py", "--weights", "none", "--target", target]
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert (report["artifact"], report["board"], list(tmp_path.iterdir())) == (None, "vcu128", [])
    assert report["program_bytes"] < PROGRAM_LIMIT and report["peak_rss_bytes"] < 500e6
    least = 32 * 2 * 2048 * 4096 * 2
    assert least <= report["kv_bytes"] <= least * 9 // 8  # heads have a gap between them, of at most an eighth


def programs(depth: int, target: str) -> int:
    """Bytes of the program of so many layers."""
    model = replace(small("llama", num_hidden_layers=depth), shapes_only=True)
    report = build(model, load_target(target, "vcu128"), Options(ctx=64), None)
    assert report["activation_peak_bytes"] == report["activation_lower_bound_bytes"]
    return int(report["program_bytes"])


@pytest.mark.parametrize("target", LOOPING)
@pytest.mark.parametrize("depth", [24, pytest.param(1000, marks=pytest.mark.slow)])
def test_depth_costs_no_program(target: str, depth: int) -> None:
    limit = sys.getrecursionlimit()
    assert programs(depth, target) == programs(3, target)
    assert sys.getrecursionlimit() == limit


def test_none_compiles_shapes_and_writes_nothing(
    dlavm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--target", "v3", "--board", "nano", "--weights", "none")
    outcome = dlavm("build", tiny("qwen2"), *options)
    assert outcome.code == 0 and "none: compiled without weights" in outcome.out
    assert list(tmp_path.iterdir()) == []
    outcome = dlavm("build", tiny("qwen2"), *options, "-o", tmp_path / "a")
    assert outcome.code == 2 and "-o: expected weights to write an artifact with, got --weights none" in outcome.err
    outcome = dlavm("check", tiny("qwen2"), *options)
    assert outcome.code == 0 and "names and shapes of its weights were not compared" in outcome.out
    outcome = dlavm("check", tiny("qwen2"), *options, "--values")
    assert outcome.code == 2 and "--values: expected weights to read, got --weights none" in outcome.err
    outcome = dlavm("dump", tiny("qwen2"), *options, "--stage", "task")
    assert outcome.code == 0 and "launch LINEAR" in outcome.out


def test_a_shape_without_weights_says_what_to_do(dlavm: Command, tmp_path: Path) -> None:
    outcome = dlavm("build", tiny("llama"), "--target", "v3", "-o", tmp_path / "a")
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and not list(tmp_path.iterdir())
    assert "model llama_tiny: no weights; name their directory with --weights, or say --weights random" in outcome.err
    outcome = dlavm("check", tiny("llama"), "--target", "v3")
    assert outcome.code == 1 and "llama_tiny: no weights (name their directory" in outcome.out
    outcome = dlavm("build", f"{MODELS}/llama.py:llama9", "--target", "v3")
    assert outcome.code == 2 and "shape expected one of ['llama2_7b', " in outcome.err


def test_random_weights_are_the_same_in_every_build(dlavm: Command, tmp_path: Path) -> None:
    for name, weights in (("a", "random"), ("b", "random:0"), ("c", "random:1")):
        options = ("--target", "v3", "--board", "nano", "--weights", weights, "-o", tmp_path / name)
        assert dlavm("build", tiny("chatglm"), *options).code == 0
    images = {n: b"".join(p.read_bytes() for p in sorted((tmp_path / n).glob("weights/*"))) for n in "abc"}
    assert images["a"] == images["b"] != images["c"]
    outcome = dlavm("run", tmp_path / "a", "--prompt-ids", "5,9,300", "--greedy", "--max-tokens", 4, "--json")
    assert outcome.code == 0 and len(outcome.json["tokens"]) == 4


BY_HAND = """
from dlavm.graph import Builder

SHAPES = {"odd": 236, "even": 232}

def build(ctx, chunk, ffn):
    b = Builder("by_hand", ctx=ctx, chunk=chunk)
    rotary = b.rotary(8)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("table", (50, 64)))
    for layer in range(2):
        with b.scope(f"layer {layer}"):
            q = b.rope(b.reshape(x, shape=(b.token, 4, 16)), rotary, rotary_dim=8)
            cache = b.kv_append(b.kv(f"layers.{layer}.k", (4, b.ctx, 16)), q)
            x = b.add(x, b.reshape(b.attention(q, cache, cache, scale=0.25), shape=(b.token, 64)))
            fused = b.linear(x, b.param(f"layers.{layer}.up.weight", (2 * ffn, 64)))
            up = b.slice(fused, start=ffn, size=ffn, name="up")
            h = b.mul(b.act(b.slice(fused, start=0, size=ffn, name="gate"), fn="silu"), up)
            x = b.add(x, b.linear(h, b.param(f"layers.{layer}.down.weight", (64, ffn))))
    logits = b.linear(b.last_rows(x, count=b.head_rows), b.param("head", (50, 64)), name="logits")
    return b.finish(logits=logits, next=b.argmax(logits, name="next"))
"""


def test_check_names_the_line_of_a_file_with_shapes(dlavm: Command, tmp_path: Path) -> None:
    path = tmp_path / "by_hand.py"
    path.write_text(BY_HAND)
    assert dlavm("check", f"{path}:even", "--target", "v3", "--weights", "none").code == 0
    outcome = dlavm("check", f"{path}:odd", "--target", "v3", "--weights", "none", "--json")
    assert outcome.code == 1
    problem = "start expected a multiple of 8 elements, got 236"
    found = [(one["where"], one["what"]) for one in outcome.json["problems"]]
    assert found == [(f"layer {layer} / up", problem) for layer in range(2)]
    path.write_text(BY_HAND.replace("rotary_dim=8", "rotary_dim=16"))
    outcome = dlavm("check", f"{path}:even", "--target", "v3", "--weights", "none", "--json")
    line = 1 + BY_HAND[: BY_HAND.index("rotary_dim=8")].count("\n")
    assert outcome.code == 1 and outcome.json["problems"][0]["where"] == f"{path}:{line}"
