"""What a board's size and the way of tiling may not change: the same model for boards with other channels, ports and
buffers, or cut in any legal way, gives the same bits; a program is followed command by command on both engines."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlavm.compile import Options, build
from dlavm.frontend import Model
from dlavm.lower.tiling import Tiling, candidates
from dlavm.pack.artifact import Artifact
from dlavm.runtime.engine import upload
from dlavm.runtime.session import Session
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.target import TargetSpec, load_target
from dlavm.target.layout import PackedWeights
from tests.conftest import examples
from tests.ops.run_graph import ArrayWeights, Step, outcome
from tests.unit.test_lower import small_graph
from tests.unit.test_tiling import any_tiling

CTX, CHUNK = 64, 40


def random_weights() -> ArrayWeights:
    """Weights of `small_graph`, the same for every board."""
    rng = np.random.default_rng(5)
    return ArrayWeights({p.source: (rng.standard_normal([int(x) for x in p.type.shape]) / 8).astype(np.float16)
                         for p in small_graph(hidden=256, ffn=160).params})


MODEL = Model("small", lambda ctx, chunk: small_graph(hidden=256, ffn=160, ctx=ctx, chunk=chunk), random_weights())


def board(name: str, elements: int | None = None, accumulators: int | None = None) -> TargetSpec:
    spec = load_target("v3", name)
    sizes = {"activation_elements": elements, "accumulators": accumulators}
    return replace(spec, board=replace(spec.board, **{k: v for k, v in sizes.items() if v}))


def off_the_chip(spec: TargetSpec) -> TargetSpec:
    """The same with so little on-chip memory that activations lie in the last one that may hold them."""
    memories = spec.board.memories
    small = replace(memories["onchip"], capacity=memories["onchip"].beat_row * 4)
    return replace(spec, board=replace(spec.board, memories={**memories, "onchip": small}))


BOARDS = {
    "nano": board("nano"), "vcu128": board("vcu128"), "kv260": board("kv260"), "v80": board("v80"),
    "one token at a time": board("nano", 256, 256), "k tiles": board("nano", 128, 64),
    "vcu128, off the chip": off_the_chip(board("vcu128")),
    "odd tiles": board("nano", 1300, 700), "k tiles on vcu128": board("vcu128", 128, 512),
}


def artifact_for(spec: TargetSpec, folder: Path) -> Artifact:
    build(MODEL, spec, Options(ctx=CTX, chunk=CHUNK), folder / "a")
    # A board of this test is not an installed one: its artifact is opened with the spec that built it.
    opened = Artifact.open(folder / "a")
    return replace(opened, target=spec)


def logits(spec: TargetSpec, artifact: Artifact, engine: type) -> Iterator[NDArray[np.float16]]:
    with engine(spec) as device:
        upload(device, artifact)
        session = Session(artifact, device)
        rng = np.random.default_rng(1)
        yield session.prefill(rng.integers(0, 50, 37).tolist(), logits_all=True).logits
        for token in rng.integers(0, 50, 4).tolist():
            yield session.step([token], 1).logits


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[NDArray[np.float16]]:
    """The reference on nano."""
    return list(logits(BOARDS["nano"], artifact_for(BOARDS["nano"], tmp_path_factory.mktemp("nano")), ReferenceDevice))


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("engine", [ReferenceDevice, NativeDevice])
def test_bits_do_not_depend_on_the_board(name: str, engine: type, tmp_path: Path,
                                         expected: list[NDArray[np.float16]]) -> None:
    spec = BOARDS[name]
    for mine, theirs in zip(logits(spec, artifact_for(spec, tmp_path), engine), expected, strict=True):
        assert (mine.view(np.uint16) == theirs.view(np.uint16)).all()


@pytest.mark.parametrize(("name", "space"), [("nano", "hbm"), ("vcu128", "onchip"), ("vcu128, off the chip", "hbm"),
                                             ("v80", "onchip")])  # fmt: skip
def test_where_activations_lie(name: str, space: str, tmp_path: Path) -> None:
    spec = BOARDS[name]
    tensors = artifact_for(spec, tmp_path).manifest.tensors
    found = {spec.board.holding(t.address) for t in tensors if t.role == "activations"}
    assert found == {spec.board.memories[space]}


# -- the way of tiling -----------------------------------------------------------------------------------------------

Choose = Callable[[TargetSpec, PackedWeights, int], Tiling]
STEPS = [Step(tuple(range(3, 40)), 0, 3), Step((7,), 37, 1), Step((8, 9, 2), 38, 3)]


def cut(choose: Choose, spec: TargetSpec, engine: type = NativeDevice) -> list[dict[str, bytes]]:
    """What a model leaves behind whose linears are cut as `choose` says."""
    weights = random_weights()
    arrays = {name: weights.get(name) for name in weights.names()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlavm.lower.context.choose_tiling", choose)
        return outcome(small_graph(hidden=256, ffn=160, ctx=CTX, chunk=CHUNK), spec, arrays, STEPS, engine)


def activations_stay(spec: TargetSpec, packed: PackedWeights, tokens: int) -> Tiling:
    """As many whole rows as fit."""
    return max((t for t in candidates(spec, packed, tokens) if t.k == packed.k), key=lambda t: t.tokens)


def weights_stay(spec: TargetSpec, packed: PackedWeights, tokens: int) -> Tiling:
    """Tiles along K for as many tokens as fit, where fewer would fit whole."""
    return max(candidates(spec, packed, tokens), key=lambda t: (t.k < packed.k, t.tokens))


@pytest.fixture(scope="module")
def uncut() -> list[dict[str, bytes]]:
    """One command a linear, on the reference."""
    return cut(activations_stay, BOARDS["vcu128"], ReferenceDevice)


TILED = board("nano", 1300, 700)


@pytest.mark.parametrize("choose", [activations_stay, weights_stay])
@pytest.mark.parametrize("engine", [ReferenceDevice, NativeDevice])
def test_either_way_of_reuse_gives_the_same_bits(choose: Choose, engine: type, uncut: list[dict[str, bytes]]) -> None:
    assert cut(choose, TILED, engine) == uncut


@settings(max_examples=examples(25), deadline=None)
@given(st.data())
def test_any_legal_tiling_gives_the_same_bits(uncut: list[dict[str, bytes]], data: st.DataObject) -> None:
    """Each linear cut in a way of its own, on buffers that force tiles and on those that do not."""
    spec = BOARDS[data.draw(st.sampled_from(["odd tiles", "nano"]))]
    assert cut(lambda spec, packed, tokens: any_tiling(data, spec, packed, tokens), spec) == uncut


@pytest.mark.parametrize("name", ["nano", "k tiles"])
def test_compiled_program_command_by_command(name: str, tmp_path: Path) -> None:
    spec = BOARDS[name]
    artifact = artifact_for(spec, tmp_path)
    used = max(t.address + t.bytes for t in artifact.manifest.tensors)
    registers = {n: r.offset for n, r in spec.registers.items()}
    ids = np.arange(7, dtype=np.uint32).tobytes()
    mine, theirs = np.empty(used, np.uint8), np.empty(used, np.uint8)
    with NativeDevice(spec) as native, ReferenceDevice(spec) as reference:
        for device in (native, reference):
            upload(device, artifact)
            Session(artifact, device)  # selects the program
            device.mem_write(artifact.manifest.entries["step"].inputs["ids"].address, ids)
            for i, value in enumerate((7, 3, 7)):
                device.csr_write(registers["ARG"] + 4 * i, value)
            device.csr_write(registers["CONTROL"], 1)
        commands = 0
        while reference.run(1):
            assert native.run(1) == 1
            commands += 1
            reference.mem_read_into(0, mine)
            native.mem_read_into(0, theirs)
            assert np.array_equal(mine, theirs), f"command {commands}: first byte {np.flatnonzero(mine != theirs)[0]}"
    assert commands > 100
