"""Generation on a fake device that follows a script: stopping, streaming, cancelling, counting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dlavm.runtime.generate import StopStrings, generate
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session
from dlavm.runtime.tokens import StreamDecoder, Tokenizer
from dlavm.support.errors import DlavmError
from tests.unit.fake_runtime import CTX, FakeDevice, follow, write
from tests.unit.test_tokens import CONFIG, byte_level

PROMPT = [0, 9, 8]


class Script:
    """A session whose device answers PROMPT with the bytes of `text` and then the end token 1."""

    def __init__(self, folder: Path, text: str) -> None:
        self.tokenizer = Tokenizer(byte_level(), CONFIG)
        self.answer = [*self.tokenizer.encode(text, special=False), 1]
        artifact = write(folder / "a")
        self.device = FakeDevice(artifact, self._next)
        self.session = Session(artifact, self.device)

    def _next(self, ids: Sequence[int]) -> int:
        return self.answer[min(len(ids) - len(PROMPT), len(self.answer) - 1)]

    def run(self, max_tokens: int = 50, **options: object) -> tuple[list[str], str, str]:
        """Texts of the tokens, the whole text, the reason."""
        stream = generate(self.session, PROMPT, Sampler(), max_tokens, (1,), decoder=StreamDecoder(self.tokenizer),
                          **options)  # type: ignore[arg-type]
        texts = [token.text for token in stream]
        return texts, stream.summary.text, stream.summary.stop_reason


def test_until_the_end_token(tmp_path: Path) -> None:
    script = Script(tmp_path, "hé!")
    assert script.run() == (["h", "", "é", "!", ""], "hé!", "eos")
    assert script.session.ids == (*PROMPT, *script.answer[:-1])


def test_length(tmp_path: Path) -> None:
    script = Script(tmp_path, "hé!")
    assert script.run(max_tokens=2) == (["h", "\ufffd"], "h\ufffd", "length")
    script.session.reset()
    assert script.run(max_tokens=1) == (["h"], "h", "length")


@pytest.mark.parametrize(
    ("text", "stops", "shown", "reason"),
    [
        ("one END two", ["END"], "one ", "stop"),
        ("one EN two", ["END"], "one EN two", "eos"),
        ("one EN", ["END"], "one EN", "eos"),
        ("aab", ["ab"], "a", "stop"),
        ("abcX", ["bcX", "abcdef"], "a", "stop"),
        ("xyz", ["yz", "z"], "x", "stop"),
        ("xyz", ["x"], "", "stop"),
        ("ab🐶c", ["🐶"], "ab", "stop"),
    ],
)
def test_stop_strings_lie_across_tokens(tmp_path: Path, text: str, stops: list[str], shown: str, reason: str) -> None:
    assert Script(tmp_path, text).run(stop_strings=stops)[1:] == (shown, reason)


def test_text_is_held_back_no_longer_than_needed() -> None:
    stops = StopStrings(["abc"])
    assert [stops.push(c) for c in "xabxaba"] == ["x", "", "", "abx", "", "", "ab"]
    assert stops.flush() == "a"
    assert not stops.hit


def test_a_stop_string_completed_by_the_flushed_tail(tmp_path: Path) -> None:
    assert Script(tmp_path, "h🐶").run(max_tokens=3, stop_strings=["\ufffd"])[1:] == ("h", "stop")


def test_context(tmp_path: Path) -> None:
    artifact = write(tmp_path / "a")
    session = Session(artifact, FakeDevice(artifact, lambda ids: 7))
    stream = generate(session, PROMPT, Sampler(), 1000)
    assert len(list(stream)) == CTX - len(PROMPT) + 1
    assert stream.summary.stop_reason == "context"
    assert session.room == 0
    with pytest.raises(DlavmError, match="context 64"):
        generate(session, [1], Sampler(), 1)


def test_closing_leaves_the_session_usable(tmp_path: Path) -> None:
    artifact = write(tmp_path / "a")
    session = Session(artifact, FakeDevice(artifact))
    stream = generate(session, PROMPT, Sampler(), 50)
    ids = [next(stream).id, next(stream).id]
    stream.close()
    assert list(stream) == []
    assert stream.summary.stop_reason == "cancelled" and stream.summary.tokens == tuple(ids)
    assert session.ids == (*PROMPT, ids[0])
    assert session.step([ids[1]], 1).next_ids.tolist() == [follow([*PROMPT, *ids])]


def test_an_interrupt_leaves_the_session_usable(tmp_path: Path) -> None:
    artifact = write(tmp_path / "a")
    device = FakeDevice(artifact)
    session = Session(artifact, device)
    device.interrupt_at = 2
    stream = generate(session, PROMPT, Sampler(), 50)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert stream.summary.stop_reason == "cancelled" and len(stream.summary.tokens) == 2
    assert session.ids == (*PROMPT, stream.summary.tokens[0])


def test_summary(tmp_path: Path) -> None:
    times = iter(range(100))
    artifact = write(tmp_path / "a")
    session = Session(artifact, FakeDevice(artifact))
    stream = generate(session, PROMPT, Sampler(), 5, clock=lambda: float(next(times)))
    tokens = [token.id for token in stream]
    summary = stream.summary
    assert summary.tokens == tuple(tokens) and summary.prompt_tokens == 3
    assert (summary.ttft_s, summary.decode_tok_s, summary.bytes_read_per_token) == (1.0, 1.0, 1000.0)
    assert (summary.cycles, summary.text, summary.stop_reason) == (50, "", "length")
    alone = generate(session, PROMPT, Sampler(), 1)
    list(alone)
    assert (alone.summary.decode_tok_s, alone.summary.bytes_read_per_token) == (0, 0)


def test_the_same_seed_gives_the_same_tokens(tmp_path: Path) -> None:
    artifact = write(tmp_path / "a")
    runs = []
    for _ in range(2):
        session = Session(artifact, FakeDevice(artifact))
        runs.append([t.id for t in generate(session, PROMPT, Sampler(temperature=5.0, seed=3), 30)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_tokens": 0}, "max_tokens"), ({"stop_strings": ["x"], "decoder": None}, "tokenizer"),
     ({"prompt_ids": []}, "at least one token"), ({"prompt_ids": [300]}, "got 300")],
)  # fmt: skip
def test_bad_input(tmp_path: Path, options: dict[str, object], message: str) -> None:
    session = Script(tmp_path, "x").session
    arguments: dict[str, object] = {"prompt_ids": PROMPT, "sampler": Sampler(), "max_tokens": 5, **options}
    with pytest.raises(DlavmError, match=message):
        generate(session, **arguments)  # type: ignore[arg-type]
    assert session.kv_len == 0


def test_an_empty_stop_string(tmp_path: Path) -> None:
    with pytest.raises(DlavmError, match="stop strings"):
        Script(tmp_path, "x").run(stop_strings=[""])
