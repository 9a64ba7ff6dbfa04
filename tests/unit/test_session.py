"""Engines and sessions on a fake device: what is uploaded, which registers are written, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import Blob, Port
from dlavm.runtime import engine
from dlavm.runtime.session import Session, open_session
from dlavm.support.errors import DlavmError
from dlavm.target.isa import Instr, encode
from tests.unit.fake_runtime import (
    CHUNK,
    CTX,
    LOGITS,
    PROGRAM,
    VOCAB,
    WEIGHTS,
    WEIGHTS_OFFSET,
    FakeDevice,
    follow,
    manifest,
    spec,
    write,
)

PROMPT = [(3 * i) % VOCAB for i in range(40)]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return write(tmp_path / "a")


@pytest.fixture
def session(artifact: Artifact) -> Session:
    return Session(artifact, FakeDevice(artifact))


class TestEngine:
    def use(self, monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
        monkeypatch.setattr(engine, "ENGINES", {"fake": lambda spec, threads: device})

    def test_unknown_names(self, artifact: Artifact) -> None:
        known = "sim, timed, reference, rtl, rtl:/path/libdlavm_rtl.so, tcp:HOST:PORT, xdma:/dev/xdma0"
        for name in ("gpu", "gpu:0", "tcp", "tcp:", "sim:"):
            with pytest.raises(DlavmError, match=f"one of {known}, got '{name}'"):
                engine.open_engine(name, artifact)
        assert engine.engine_names() == ["sim", "timed", "reference", "rtl"]

    def test_upload(self, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
        device = FakeDevice(artifact)
        self.use(monkeypatch, device)
        with open_session(artifact, "fake") as session:
            assert session.device is device
            assert device.mapped == [(WEIGHTS_OFFSET, c, f"ch0{c}.bin", 1024) for c in range(2)]
            assert device.mem_read(PROGRAM, 8) == b"\x01\x02\x03\x04" * 2
            assert device.csr_read(device.registers["PROGRAM"].offset) == PROGRAM // 16
            assert device.csr_read(device.registers["PROGRAM_WORDS"].offset) == 8
        assert device.closed

    def test_another_identity(self, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
        device = FakeDevice(artifact)
        device.csr[device.registers["ID"].offset] ^= 1
        self.use(monkeypatch, device)
        with pytest.raises(DlavmError, match="ID register: expected 0x"):
            engine.open_engine("fake", artifact)
        assert device.closed

    def test_what_does_not_fit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        far_table, program = Blob("tables.bin", 1 << 35, 64), manifest().blobs[1]
        far = write(tmp_path / "b", dataclasses.replace(manifest(), blobs=(far_table, program)))
        device = FakeDevice(far)
        self.use(monkeypatch, device)
        with pytest.raises(DlavmError, match=r"tables\.bin: expected to fit"):
            engine.open_engine("fake", far)
        assert device.closed


# The Verilated core takes minutes to build: tests/rtl has its tests.
@pytest.mark.parametrize("name", [name for name in engine.engine_names() if name != "rtl"])
class TestRealEngines:
    """The engines themselves, with programs of one command."""

    def open(self, name: str, folder: Path, words: list[int]) -> Session:
        stream = np.array(words + [0] * (8 - len(words)), "<u4").tobytes()
        return open_session(write(folder / "b", stream=stream), name, threads=1)

    def test_upload_and_run(self, tmp_path: Path, name: str) -> None:
        with self.open(name, tmp_path, encode(spec(), Instr("END"))) as session:
            assert session.device.info()["engine"] == name
            beat = spec().space("weights").port_bytes
            row = spec().space("weights").beat_row
            assert session.device.mem_read(WEIGHTS_OFFSET, beat) == WEIGHTS[:beat]
            assert session.device.mem_read(WEIGHTS_OFFSET + 3 * row, beat) == WEIGHTS[3 * beat : 4 * beat]
            value = np.float16(1.5)
            session.device.mem_write(LOGITS + 2 * (VOCAB - 1), value.tobytes())
            result = session.step([5, 6, 7], 2)
            assert result.logits[0, -1] == value and result.logits.sum() == value
            assert result.counters.commands == 1

    def test_a_program_that_stops(self, tmp_path: Path, name: str) -> None:
        with (
            self.open(name, tmp_path, [0xFF]) as session,
            pytest.raises(DlavmError, match=r"step of 1 tokens at 0: the device stopped: illegal_opcode"),
        ):
            session.step([5], 1)


def test_step(session: Session) -> None:
    result = session.step(PROMPT[:5], 2)
    assert result.logits.shape == (2, VOCAB) and result.logits.dtype == np.float16
    assert result.next_ids.tolist() == [follow(PROMPT[:4]), follow(PROMPT[:5])]
    assert result.logits.argmax(axis=1).tolist() == result.next_ids.tolist()
    assert result.counters.bytes_read == 1000
    assert session.kv_len == 5 and session.ids == tuple(PROMPT[:5]) and session.room == CTX - 5


def test_step_without_logits(session: Session) -> None:
    assert session.step(PROMPT[:5], 0).logits.shape == (0, VOCAB)
    assert session.step([7], 1).next_ids.tolist() == [follow([*PROMPT[:5], 7])]


@pytest.mark.parametrize("chunks", [None, [16, 16, 8], [1] * 40, [3, 16, 5, 16]])
def test_prefill_is_the_same_for_any_chunks(session: Session, chunks: list[int] | None) -> None:
    result = session.prefill(PROMPT, logits_all=True, chunks=chunks)
    assert result.logits.shape == (40, VOCAB)
    assert result.next_ids.tolist() == [follow(PROMPT[: i + 1]) for i in range(40)]
    assert result.counters.bytes_read == 1000 * len(chunks or [16, 16, 8])
    session.reset()
    last = session.prefill(PROMPT, head_rows=11, chunks=chunks)
    assert (last.logits == result.logits[-11:]).all()


def test_rewind_and_reset(session: Session) -> None:
    session.prefill(PROMPT)
    session.rewind(30)
    assert session.ids == tuple(PROMPT[:10])
    assert session.step([4], 1).next_ids.tolist() == [follow([*PROMPT[:10], 4])]
    for n in (-1, 12):
        with pytest.raises(DlavmError, match=r"rewind: expected 0\.\.11"):
            session.rewind(n)
    session.reset()
    assert session.kv_len == 0


def test_past_the_context_nothing_runs(session: Session) -> None:
    session.prefill(PROMPT)
    device: Any = session.device
    ran = list(device.steps)
    with pytest.raises(DlavmError, match="at most 24 tokens .context 64, in the cache 40., got 25"):
        session.prefill(PROMPT[:25])
    assert device.steps == ran
    session.prefill(PROMPT[:24])
    with pytest.raises(DlavmError, match="at most 0"):
        session.step([1], 1)


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        ([], 0, "at least one token"),
        ([VOCAB], 1, r"token 0: expected an id in 0\.\.299, got 300"),
        ([1, -1], 1, "token 1: .*got -1"),
        ([1, 2], 3, r"head_rows: expected 0\.\.2, got 3"),
        ([1, 2], -1, "head_rows"),
        ([1] * (CHUNK + 1), 1, r"step: expected 1\.\.16 tokens, got 17"),
    ],
)
def test_bad_steps(session: Session, ids: list[int], rows: int, message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        session.step(ids, rows)
    assert session.kv_len == 0


@pytest.mark.parametrize("chunks", [[], [17, 23], [40, 0], [16, 16]])
def test_bad_chunks(session: Session, chunks: list[int]) -> None:
    with pytest.raises(DlavmError, match="chunks"):
        session.prefill(PROMPT, chunks=chunks)


def test_a_stopped_device_leaves_the_cache(session: Session) -> None:
    session.step([1, 2], 1)
    device: Any = session.device
    device.fail_at = 1
    with pytest.raises(DlavmError, match="step of 1 tokens at 2: the device stopped: illegal_opcode: word 3"):
        session.step([3], 1)
    device.fail_at = -1
    assert session.step([4], 1).next_ids.tolist() == [follow([1, 2, 4])]


def test_argmax_on_the_host_where_the_device_has_none(tmp_path: Path) -> None:
    whole = manifest()
    entry = whole.entries["step"]
    entry = dataclasses.replace(entry, outputs={"logits": entry.outputs["logits"]})
    artifact = write(tmp_path / "b", dataclasses.replace(whole, entries={"step": entry}))
    assert Session(artifact, FakeDevice(artifact)).step([5], 1).next_ids.tolist() == [follow([5])]


BOUNDS = {"token": (1, 16), "kv_len": (0, 63), "head_rows": (0, 16), "kv_base": (0, 512)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"args": ("token", "kv_len", "seq"), "bounds": {"token": (1, 16), "kv_len": (0, 63), "seq": (0, 1)}}, "'seq'"),
        ({"bounds": {**BOUNDS, "token": (1, 8)}}, "bounds.token: expected to reach 16"),
        ({"args": ("kv_base",), "bounds": {"kv_base": (0, 512)}}, "bounds.token: expected to reach 16, got 1"),
        ({"bounds": {**BOUNDS, "kv_len": (0, 62)}}, "bounds.kv_len"),
        ({"bounds": {**BOUNDS, "kv_base": (0, 511)}}, "bounds.kv_base: expected to reach 512"),
        ({"inputs": {}}, "ids"),
        ({"outputs": {"logits": Port(LOGITS, "u32", 16, VOCAB)}}, "logits"),
        ({"outputs": {"logits": Port(LOGITS, "f16", 15, VOCAB)}}, "logits"),
    ],
)
def test_entries_that_a_session_cannot_drive(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    whole = manifest()
    entries = {"step": dataclasses.replace(whole.entries["step"], **change)}
    artifact = write(tmp_path / "b", dataclasses.replace(whole, entries=entries))
    with pytest.raises(DlavmError, match=message):
        Session(artifact, FakeDevice(artifact))


def test_without_a_step_entry(tmp_path: Path) -> None:
    artifact = write(tmp_path / "b", dataclasses.replace(manifest(), entries={}))
    with pytest.raises(DlavmError, match="entry 'step'"):
        Session(artifact, FakeDevice(artifact))
