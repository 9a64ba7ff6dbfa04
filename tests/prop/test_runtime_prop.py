"""Properties: damaged artifacts raise DlavmError only, decoding by tokens equals decoding at once, samplers agree."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import Manifest
from dlavm.runtime.generate import StopStrings
from dlavm.runtime.sampling import Sampler, uniform
from dlavm.runtime.session import Session
from dlavm.runtime.tokens import StreamDecoder, Tokenizer
from dlavm.support.errors import DlavmError
from tests.unit.fake_runtime import FakeDevice, follow, write
from tests.unit.test_tokens import CONFIG, byte_level

TOKENIZER = Tokenizer(byte_level(), CONFIG)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write(tmp_path_factory.mktemp("artifact") / "a")


@contextlib.contextmanager
def damaged(path: Path, data: bytes) -> Iterator[None]:
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


def change(data: bytes, edits: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(data)
    for place, mask in edits:
        changed[place % len(data)] ^= mask
    return bytes(changed[: len(data) - cut % len(data)])


EDITS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), max_size=4)


@given(edits=EDITS, cut=st.just(0) | st.integers(0, 1 << 20))
@settings(max_examples=150)
def test_a_damaged_manifest_is_an_error_or_still_valid(artifact: Artifact, edits: list[Any], cut: int) -> None:
    path = artifact.path / "manifest.json"
    with damaged(path, change(path.read_bytes(), edits, cut)), contextlib.suppress(DlavmError):
        opened = Artifact.open(artifact.path)
        Session(opened, FakeDevice(opened))


NAMES = st.sampled_from(["tables.bin", "weights/ch00.bin", "program/step.bin"])


@given(name=NAMES, edits=EDITS, cut=st.integers(0, 2000))
@settings(max_examples=60)
def test_a_damaged_file_is_named(artifact: Artifact, name: str, edits: list[Any], cut: int) -> None:
    path = artifact.path / name
    whole = path.read_bytes()
    data = change(whole, edits, cut)
    with damaged(path, data):
        if data == whole:
            Artifact.open(artifact.path)
        else:
            with pytest.raises(DlavmError, match=name):
                Artifact.open(artifact.path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
@settings(max_examples=100)
def test_any_value_at_any_key_is_read_or_refused(artifact: Artifact, data: st.DataObject) -> None:
    raw = json.loads(artifact.manifest.to_json())
    node: Any = raw
    while True:
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        child = node[key]
        if not isinstance(child, dict | list) or not child or data.draw(st.booleans()):
            break
        node = child
    node[key] = data.draw(JSON)
    with contextlib.suppress(DlavmError):
        manifest = Manifest.from_json(json.dumps(raw))
        assert Manifest.from_json(manifest.to_json()) == manifest


@given(ids=st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=12))
def test_streaming_any_tokens_gives_the_whole_text(ids: list[int]) -> None:
    decoder = StreamDecoder(TOKENIZER)
    assert "".join(decoder.push(token) for token in ids) + decoder.flush() == TOKENIZER.decode(ids)


@given(text=st.text(max_size=12))
def test_streaming_a_text_never_shows_half_a_character(text: str) -> None:
    decoder = StreamDecoder(TOKENIZER)
    pieces = [decoder.push(token) for token in TOKENIZER.encode(text, special=False)]
    assert "".join(pieces) + decoder.flush() == TOKENIZER.decode(TOKENIZER.encode(text))
    assert all(piece in text for piece in pieces)


PIECES = st.lists(st.text("abc", max_size=3), max_size=8)
STOPS = st.lists(st.text("abc", min_size=1, max_size=3), max_size=3)


@given(pieces=PIECES, stops=STOPS)
def test_stop_strings_cut_where_the_whole_text_says(pieces: list[str], stops: list[str]) -> None:
    holder = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += holder.push(piece)
        if holder.hit:
            break
    shown += holder.flush()
    whole = "".join(pieces)
    assert holder.hit == any(stop in whole for stop in stops)
    assert whole.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if not holder.hit:
        assert shown == whole


@given(
    logits=st.lists(st.floats(-20, 20, width=16), min_size=1, max_size=30), temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 40), top_p=st.floats(0.01, 1), seed=st.integers(0, (1 << 64) - 1),
    counter=st.integers(0, 1 << 40),
)  # fmt: skip
def test_sampling_follows_its_definition(
    logits: list[float], temperature: float, top_k: int, top_p: float, seed: int, counter: int
) -> None:
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[: top_k or None]
    weights = [math.exp((logits[i] - logits[order[0]]) / temperature) for i in order]
    target, total, kept = top_p * math.fsum(weights), 0.0, 0
    while kept < len(weights) and (not kept or total < target):
        total += weights[kept]
        kept += 1
    draw = uniform(seed, counter) * total
    sums = np.cumsum(weights[:kept])
    near = min(np.abs(sums - draw).min(), abs(total - target), abs(total - weights[kept - 1] - target))
    chosen = Sampler(temperature, top_k, top_p, seed, counter).sample(np.array(logits, np.float16))
    if near > 1e-9 * total:  # nearer than this, the order of float64 operations decides
        assert chosen == order[min(int((sums <= draw).sum()), kept - 1)]
    assert chosen in order


@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=4), rows=st.integers(0, 8), rewind=st.integers(0, 64))
def test_sessions_depend_on_the_tokens_only(artifact: Artifact, lengths: list[int], rows: int, rewind: int) -> None:
    total = sum(lengths)
    ids = [(5 * i + 1) % 300 for i in range(total)]
    session = Session(artifact, FakeDevice(artifact))
    rows = min(rows, total)
    result = session.prefill(ids, rows, chunks=lengths)
    assert result.next_ids.tolist() == [follow(ids[: total - rows + i + 1]) for i in range(rows)]
    rewind = min(rewind, total)
    session.rewind(rewind)
    if session.room:
        assert session.prefill([9]).next_ids.tolist() == [follow([*ids[: total - rewind], 9])]
