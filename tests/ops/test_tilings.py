"""What a board's size may not change: the same model for boards with other channels, ports and buffers gives the same
bits, and a compiled program is followed command by command on both engines."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.compile import Options, build
from dlavm.frontend import Model
from dlavm.pack.artifact import Artifact
from dlavm.runtime.engine import upload
from dlavm.runtime.session import Session
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.target import TargetSpec, load_target
from tests.ops.run_graph import ArrayWeights
from tests.unit.test_lower import small_graph

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


BOARDS = {
    "nano": board("nano"), "vcu128": board("vcu128"), "kv260": board("kv260"), "v80": board("v80"),
    "one token at a time": board("nano", 256, 256), "k tiles": board("nano", 128, 64),
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
