"""The MXINT8 cache: what it holds, that any way of filling it gives the same bits, how close it comes, saved states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.check import check
from dlavm.compile import Options, build
from dlavm.graph.attention import stored
from dlavm.pack.artifact import Artifact
from dlavm.runtime.batch import Batch
from dlavm.runtime.engine import open_engine
from dlavm.runtime.session import Session, open_session
from dlavm.sim.reference.numerics import quantize
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.target.layout import KV_FORMATS
from dlavm.verbs.floats import quantised_session
from tests.e2e.test_attention_kinds import CTX, IDS, KINDS, graph_of, logits, same

CHUNK, TOKENS, HEADS, DIM = 40, 71, 2, 16
PLAIN = graph_of([{}, {}])
MIXED = graph_of([KINDS["window 33"], KINDS["alibi, window, softcap"]] * 3)


def built(out: Path, kv: str = "mxint8", model=PLAIN, board: str = "nano", **options: object) -> Artifact:  # type: ignore[no-untyped-def]
    build(model, load_target("v3", board), Options(ctx=CTX, **{"chunk": CHUNK, "kv": kv, **options}), out)  # type: ignore[arg-type]
    return Artifact.open(out)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return built(tmp_path_factory.mktemp("kv") / "a")


def state_of(artifact: Artifact, tokens: int) -> NDArray[np.uint8]:
    with open_session(artifact) as session:
        session.prefill(IDS[:tokens])
        return np.frombuffer(session.save_state(), np.uint8)


def test_it_holds_the_quantised_rows_of_the_other_cache(artifact: Artifact, tmp_path: Path) -> None:
    """Keys of the first layer, which are the same with either: 8-bit mantissas, E8M0 exponents, zeros behind."""
    blocks = -(-TOKENS // 32)
    halves = state_of(built(tmp_path / "fp16", "fp16"), TOKENS)[: HEADS * blocks * 2048].view(np.float16)
    rows = halves.reshape(HEADS, blocks, 32, 32)  # one unit of 32 elements, half of them padding
    content = state_of(artifact, TOKENS)[: HEADS * blocks * 1088].reshape(HEADS, blocks, 1088)
    mantissas, exponents = quantize(rows[..., :DIM], 8)
    used = np.arange(32 * blocks).reshape(blocks, 32) < TOKENS
    found = content[..., :1024].view(np.int8).reshape(HEADS, blocks, 32, 32)
    assert np.array_equal(found, mantissas[..., 0, :] * used[..., None])
    assert np.array_equal(content[..., 1024:1056], np.where(used, exponents[..., 0] + 6 + 127, 0))
    assert not content[..., 1056:].any() and np.abs(found).max() > 100


def test_sizes(artifact: Artifact) -> None:
    sizes = {name: [KV_FORMATS[name].block_bytes(units) for units in (1, 2, 3, 4)] for name in KV_FORMATS}
    assert sizes == {"fp16": [2048, 4096, 6144, 8192], "mxint8": [1088, 2112, 3200, 4224]}
    assert [f.units(f.block_bytes(u)) for f in KV_FORMATS.values() for u in range(1, 40)] == [*range(1, 40)] * 2
    region = artifact.manifest.kv[0]
    assert (region.format, region.block_bytes, region.head_bytes) == ("mxint8", 1088, 4 * 1088)


def test_any_chunking_gives_the_bits_of_single_tokens(artifact: Artifact, tmp_path: Path) -> None:
    single = logits(artifact, [1] * CTX)
    for lengths in ([40, 40, 24], [31, 1, 1, 1, 36, 34], [33, 31, 32, 8]):
        assert same(logits(artifact, lengths), single), lengths
    assert same(logits(artifact, [37, 29, 38], "reference"), single)
    assert same(logits(built(tmp_path / "wide", board="vcu128", chunk=100), [100, 4]), single)


def test_with_windows_caps_and_slopes_rolled_or_not(tmp_path: Path) -> None:
    rolled = built(tmp_path / "rolled", model=MIXED)
    assert rolled.file("task.txt").read_text().count("KV_APPEND") < 12
    expected = logits(rolled, [40, 40, 24])
    assert same(logits(rolled, [1] * CTX), expected)
    assert same(logits(built(tmp_path / "flat", model=MIXED, rolls=False), [39, 1, 40, 24]), expected)


def test_several_sequences_in_a_step(artifact: Artifact) -> None:
    lengths, alone = (2, 31, 64, 98), []
    for length in lengths:
        with open_session(artifact) as session:
            session.prefill(IDS[:length])
            alone.append([session.step([7], 1).logits.tobytes() for _ in range(3)])
    with open_engine("sim", artifact) as device:
        sessions = [Session(artifact, device, i) for i in range(len(lengths))]
        for session, length in zip(sessions, lengths, strict=True):
            session.prefill(IDS[:length])
        batch = Batch(sessions)
        for step in range(3):
            result = batch.step({i: 7 for i in range(len(lengths))})
            assert [row.tobytes() for row in result.logits] == [one[step] for one in alone]


def test_saved_states(artifact: Artifact) -> None:
    """Loaded into another sequence, a conversation goes on with the same bits; any bytes are numbers."""
    with open_engine("sim", artifact) as device:
        first, other = Session(artifact, device, 0), Session(artifact, device, 3)
        first.prefill(IDS[:TOKENS])
        state = first.save_state()
        assert len(state) == 3 * 1088 * HEADS * 4
        other.prefill(IDS[5:30])
        other.load_state(IDS[:TOKENS], state)
        assert other.save_state() == state
        following = [session.step([9], 1).logits.tobytes() for session in (first, other)]
        assert following[0] == following[1]
        other.load_state(IDS[:TOKENS], np.random.default_rng(1).bytes(len(state)))
        assert np.isfinite(other.step([9], 1).logits).all()
        with pytest.raises(DlavmError, match=f"state: expected {len(state)} bytes for {TOKENS} tokens"):
            other.load_state(IDS[:TOKENS], state + bytes(2))


def test_random_bytes_mean_the_same_to_both_engines(artifact: Artifact) -> None:
    """Exponents that no append writes, and the mantissa -128."""
    found = []
    for engine in ("sim", "reference"):
        with open_session(artifact, engine) as session:
            session.load_state(IDS[:TOKENS], np.random.default_rng(2).bytes(session.state_bytes(TOKENS)))
            found.append(session.step([4, 5, 6], 3).logits.tobytes())
    assert found[0] == found[1]


def test_the_float_meaning_rounds_as_the_contract_says() -> None:
    """Against the reference's quantiser: any shape, zeros, numbers of the largest exponent, subnormals."""
    rng = np.random.default_rng(4)
    for dim in (8, 32, 40, 96):
        x = (rng.standard_normal((7, 2, dim)) * np.exp2(rng.integers(-24, 15, (7, 2, 1)))).astype(np.float16)
        x[0], x[1, 0, 1:], x[2, 0, 0] = 0, 0, 65504
        mantissas, exponents = quantize(x, 8)
        expected = (mantissas * np.ldexp(1.0, exponents)[..., None]).reshape(7, 2, -1)[..., :dim]
        assert np.array_equal(stored(x.astype(np.float32), "mxint8"), expected)
        assert stored(x, "f16") is x


def test_it_comes_close_to_the_float_meaning(tmp_path: Path) -> None:
    """One layer with peaked scores: eight bits are further off than twelve, but near; and they are what is multiplied,
    so that a float model whose cache is rounded alike comes closer than one whose cache is not."""
    found, meant = {}, {}
    for kv in KV_FORMATS:
        one = built(tmp_path / kv, kv, graph_of([{}]))
        found[kv] = logits(one, [40, 40, 24])[0].view(np.float16).astype(np.float32)
        meant[kv] = quantised_session(one).logits(IDS)

    def error(kv: str, wanted: str) -> float:
        return float(np.sqrt(np.mean((found[kv] - meant[wanted]) ** 2)) / np.abs(meant["fp16"]).max())

    assert error("fp16", "fp16") < 0.001 < error("mxint8", "fp16") < 0.006
    assert error("mxint8", "mxint8") < 0.6 * error("mxint8", "fp16")


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_what_a_generation_lacks(target: str) -> None:
    found = check(PLAIN, load_target(target, "nano"), Options(ctx=CTX, kv="mxint8"))
    assert [p["what"] for p in found.problems] == [f"--kv: expected one of fp16 for {target}, got 'mxint8'"]
    with pytest.raises(DlavmError, match="--kv: expected one of fp16, mxint8 for v3, got 'int8'"):
        built(Path("nowhere"), "int8")


def test_a_target_without_a_format_says_so() -> None:
    bare = load_target("v3", "nano")
    bare = replace(bare, capabilities=bare.capabilities - {"kv_fp16"})
    found = check(PLAIN, bare, Options(ctx=CTX))
    assert [p["what"] for p in found.problems] == ["--kv: expected one of mxint8 for v3, got 'fp16'"]
