"""Properties: whatever a checkpoint's files say, their readers raise a DlavmError or read them, in bounded memory."""

from __future__ import annotations

import importlib
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.frontend.gguf_file import GgufFile
from tests.conftest import REPOSITORY, examples

MEMORY = 24 << 20  # bytes that reading a file of 100 KB may take
SCRIPTS = ("fuzz_files", "fuzz_checkpoints")
WORDS = st.sampled_from([0, 1, 2, 31, 33, 255, 1 << 16, 1 << 31, (1 << 31) - 1, 1 << 40, 1 << 63, (1 << 64) - 1])
Edits = list[tuple[float, int, bool]]  # where, as a part of the head; what; as eight bytes or one
EDITS = st.lists(st.tuples(st.floats(0, 1), WORDS, st.booleans()), max_size=4)


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    """scripts/fuzz_files.py."""
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    yield importlib.import_module("fuzz_files")
    sys.path.remove(str(REPOSITORY / "scripts"))
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@cache
def gguf_files() -> list[bytes]:
    files: list[bytes] = importlib.import_module("fuzz_checkpoints").gguf_files()
    return files


def bounded(read: Callable[[], str]) -> str:
    """What `read` says; it raises nothing, and takes little memory."""
    tracemalloc.start()
    try:
        outcome = read()
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    return outcome


def edited(raw: bytes, head: int, edits: Edits) -> bytes:
    out = bytearray(raw)
    for where, value, wide in edits:
        at, width = int(where * (head - 8)), 8 if wide else 1
        out[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    return bytes(out)


def test_the_seeds_are_sound(fuzz: ModuleType, folder: Path) -> None:
    path = folder / "sound.gguf"
    for raw in gguf_files()[:-1]:
        path.write_bytes(raw)
        assert bounded(lambda: fuzz.read_all(path)) == "read"
    for seed in fuzz.safetensors_seeds():
        assert fuzz.safetensors_input(seed, folder) == "read"
    for method in range(8):
        assert fuzz.quantized_input(bytes([method]), folder) == "read"


@settings(max_examples=examples(20))
@given(number=st.integers(0, 9), edits=EDITS, cut=st.none() | st.floats(0, 1))
def test_damaged_gguf_files(fuzz: ModuleType, folder: Path, number: int, edits: Edits, cut: float | None) -> None:
    raw, path = gguf_files()[number], folder / "model.gguf"
    path.write_bytes(raw)
    head = min(tensor.offset for tensor in GgufFile(path).tensors.values())
    damaged = edited(raw, head, edits)
    path.write_bytes(damaged if cut is None else damaged[: int(cut * len(damaged))])
    bounded(lambda: str(fuzz.read_all(path)))


@settings(max_examples=examples(20))
@given(changes=st.binary(max_size=40))
def test_damaged_quantised_checkpoints(fuzz: ModuleType, folder: Path, changes: bytes) -> None:
    checkpoints = importlib.import_module("fuzz_checkpoints")
    checkpoints.changed_checkpoint(changes, folder)
    bounded(lambda: str(fuzz.read_all(folder)))


def scalars() -> st.SearchStrategy[Any]:
    return st.none() | st.booleans() | st.integers(-5, 1 << 65) | st.sampled_from(["F16", "F32", "I4", "BOOL", ""])


@settings(max_examples=examples(20))
@given(data=st.data())
def test_headers_of_safetensors_that_lie(fuzz: ModuleType, folder: Path, data: st.DataObject) -> None:
    raw = fuzz.padded(fuzz.safetensors_seeds()[data.draw(st.integers(0, 1))])
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for _ in range(data.draw(st.integers(1, 3))):
        entry = header[data.draw(st.sampled_from(sorted(header)))]
        field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        lists = st.lists(scalars(), max_size=4)
        if isinstance(entry, dict):
            entry[field] = data.draw(scalars() if field == "dtype" else lists | scalars())
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + raw[8 + length :]
    bounded(lambda: str(fuzz.safetensors_input(bytes(4) + whole, folder)))
