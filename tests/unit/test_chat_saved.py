"""/save and /load: the conversation goes on as if nothing had happened; every damaged file is refused."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlavm.runtime.chat import read_chat
from dlavm.runtime.tokens import Tokenizer
from dlavm.support.errors import DlavmError
from tests.unit.fake_runtime import follow
from tests.unit.test_chat import Desk
from tests.unit.test_tokens import CONFIG, byte_level


def desk(folder: Path, **options: Any) -> Desk:
    folder.mkdir(exist_ok=True)
    made = Desk(folder, next_of=follow, max_tokens=8, **options)
    made.talk.set("temperature", 50.0)
    made.talk.set("seed", 11)
    return made


@pytest.mark.parametrize("tokenizer", [{}, {"tokenizer": Tokenizer(byte_level(), CONFIG)}])
def test_it_goes_on_as_if_nothing_had_happened(tmp_path: Path, tokenizer: dict[str, Any]) -> None:
    here, there = desk(tmp_path / "1", **tokenizer), desk(tmp_path / "2", **tokenizer)
    here.say("hi", f"/save {tmp_path}/x.chat")
    there.say("something else", f"/load {tmp_path}/x.chat")
    assert there.session.ids == here.session.ids and there.talk.turns == here.talk.turns
    assert there.talk.sampler == here.talk.sampler
    steps = len(there.device.steps)
    assert here.say("and") == there.say("and")
    assert there.device.steps[steps:] == here.device.steps[len(here.device.steps) - len(there.device.steps[steps:]) :]
    assert there.session.save_state() == here.session.save_state()
    assert here.say("/retry") == there.say("/retry")


def test_the_file_is_private_and_the_same_for_the_same_chat(tmp_path: Path) -> None:
    made = desk(tmp_path / "1")
    made.say("hi", f"/save {tmp_path}/x.chat", f"/save {tmp_path}/y.chat", f"/save {tmp_path}/x.chat")
    assert (tmp_path / "x.chat").read_bytes() == (tmp_path / "y.chat").read_bytes()
    assert stat.S_IMODE((tmp_path / "x.chat").stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "x.chat", "y.chat"]
    assert made.err.getvalue().count("saved to") == 3


def test_an_empty_conversation(tmp_path: Path) -> None:
    made = desk(tmp_path / "1")
    made.say(f"/save {tmp_path}/x.chat", "hi", f"/load {tmp_path}/x.chat")
    assert made.talk.turns == [] and made.session.kv_len == 0


def test_only_a_chat_is_replaced(tmp_path: Path) -> None:
    made = desk(tmp_path / "1")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("chat.json", "{}")
    (tmp_path / "notes").write_text("mine")
    for name in ("notes", "other.zip", "1"):
        with pytest.raises(DlavmError, match=f"{name}: expected a free name or a saved chat to replace"):
            made.talk.save(tmp_path / name)
    assert (tmp_path / "notes").read_text() == "mine"
    with pytest.raises(DlavmError, match=r"x\.chat: expected a file that can be written, got 'No such file"):
        made.talk.save(tmp_path / "nowhere" / "x.chat")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk(tmp_path / "1")
    path = tmp_path / "x.chat"
    made.talk.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DlavmError, match="got 'No space left on device'"):
        made.talk.save(path)
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["1", "x.chat"]


Change = Callable[[dict[str, Any]], object]


def rewrite(path: Path, change: Change = lambda chat: None, state: Callable[[bytes], bytes] = lambda b: b,
            compression: int = zipfile.ZIP_STORED) -> None:  # fmt: skip
    with zipfile.ZipFile(path) as archive:
        chat, kv = json.loads(archive.read("chat.json")), archive.read("kv.bin")
    change(chat)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("chat.json", json.dumps(chat))
        archive.writestr("kv.bin", state(kv))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Desk, Path]:
    made = desk(tmp_path / "1")
    path = tmp_path / "x.chat"
    made.say("hi", f"/save {path}", "you")
    return made, path


def refused(saved: tuple[Desk, Path], match: str) -> None:
    """Loading raises one line that names the file, and changes nothing."""
    made, path = saved
    before = (made.session.ids, made.session.save_state(), list(made.talk.turns), made.talk.settings, made.talk.last)
    with pytest.raises(DlavmError, match=match) as caught:
        made.talk.load(path)
    assert "\n" not in str(caught.value)
    assert before == (made.session.ids, made.session.save_state(), made.talk.turns, made.talk.settings, made.talk.last)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.update(format="else"), r"x\.chat: chat\.json: expected format 'dlavm chat' version 1"),
        (lambda c: c.update(version=2), "expected format 'dlavm chat' version 1, got .*2"),
        (lambda c: c.update(model_id="f" * 64, model="other"), "expected a chat with tiny .*got one with 'other'"),
        (lambda c: c.pop("turns"), "turns: expected a list, got 'None'"),
        (lambda c: c.update(turns=[3]), "turns: expected objects"),
        (lambda c: c["turns"][0].pop("answer"), "answer: expected a text"),
        (lambda c: c["turns"][0].update(ids=[True]), "ids: expected tokens in 0..299, got 'True'"),
        (lambda c: c["ids"].append(300), "ids: expected tokens in 0..299, got '300'"),
        (lambda c: c["ids"].append(-1), "ids: expected tokens in 0..299, got '-1'"),
        (lambda c: c.update(ids=[1] * 65), "ids: expected at most 64 tokens, got 65"),
        (lambda c: c.update(ids=[1] * 40), "state: expected 8192 bytes for 40 tokens, got 4096"),
        (lambda c: c["sampler"].pop("counter"), "sampler: expected the keys counter"),
        (lambda c: c["sampler"].update(temperature="hot"), "sampler: temperature: expected"),
        (lambda c: c["sampler"].update(seed=-1), "sampler: seed: expected"),
        (lambda c: c.update(max_tokens=0), "max_tokens: expected at least 1, got '0'"),
        (lambda c: c.update(system=[]), "system: expected a text"),
    ],
)
def test_a_file_that_says_something_wrong(saved: tuple[Desk, Path], change: Change, match: str) -> None:
    rewrite(saved[1], change)
    refused(saved, match)


def test_a_state_that_does_not_fit(saved: tuple[Desk, Path]) -> None:
    path = saved[1]
    good = path.read_bytes()
    for state, match in ((lambda b: b[:-1], "expected 4096 bytes"), (lambda b: b + b"x", "expected 4096 bytes"),
                         (lambda b: b"\xff" * len(b), "finite"), (lambda b: b"", "got 0")):  # fmt: skip
        path.write_bytes(good)
        rewrite(path, state=state)
        refused(saved, match)


def test_files_that_are_no_chat(saved: tuple[Desk, Path], tmp_path: Path) -> None:
    made, path = saved
    good = path.read_bytes()
    damaged = bytearray(good)
    damaged[good.index(b'"turns"') + 1] ^= 1  # the checksum notices
    cases = {b"": "zip", b"hello": "zip", good[: len(good) // 2]: "zip", good[:-1]: "zip", bytes(damaged): "CRC"}
    for content, match in cases.items():
        path.write_bytes(content)
        refused(saved, rf"x\.chat: expected a chat that /save wrote, got ['\"].*{match}")
    path.unlink()
    refused(saved, "got 'No such file or directory'")
    path.mkdir()
    refused(saved, "got 'Is a directory'")
    path.rmdir()
    os.mkfifo(path)  # as /dev/zero: no end that could be looked for
    refused(saved, "got 'no regular file'")
    made.say(f"/save {path}")
    assert "expected a free name or a saved chat to replace, got something else" in made.err.getvalue()


@pytest.mark.parametrize("content", ["[]", "nonsense", "[" * 100000, '{"format": NaN}'])
def test_a_zip_with_something_else(saved: tuple[Desk, Path], content: str) -> None:
    with zipfile.ZipFile(saved[1], "w") as archive:
        archive.writestr("chat.json", content)
        archive.writestr("kv.bin", b"")
    refused(saved, r"x\.chat")


def test_compressed_bytes_are_refused_before_they_grow(saved: tuple[Desk, Path]) -> None:
    rewrite(saved[1], state=lambda b: bytes(1 << 24), compression=zipfile.ZIP_DEFLATED)
    refused(saved, r"chat\.json: expected bytes that are not compressed")


def test_other_members_are_refused(saved: tuple[Desk, Path]) -> None:
    with zipfile.ZipFile(saved[1], "a") as archive:
        archive.writestr("more", b"")
    refused(saved, r"expected a zip of chat\.json and kv\.bin, got chat\.json, kv\.bin, more")


def test_a_size_that_lies(saved: tuple[Desk, Path]) -> None:
    made, path = saved
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 20  # compressed and plain size in the directory's entry of kv.bin
    content[at : at + 8] = (1 << 31).to_bytes(4, "little") * 2
    path.write_bytes(content)
    refused(saved, r"x\.chat: expected a chat that /save wrote")


def test_reading_gives_what_was_written(saved: tuple[Desk, Path]) -> None:
    made, path = saved
    chat, state = read_chat(path, made.talk.backend.model)
    assert (chat.model, [turn.text for turn in chat.turns], len(state)) == ("tiny", ["hi"], 4096)
