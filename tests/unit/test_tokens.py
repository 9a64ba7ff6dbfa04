"""Tokenizer, streaming decoder and chat template, on a byte-level and a byte-fallback tokenizer made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from dlavm.pack.artifact import Artifact
from dlavm.runtime.tokens import StreamDecoder, Tokenizer, load_tokenizer
from dlavm.support.errors import DlavmError
from tests.unit.fake_runtime import write

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<|user|>", "<|assistant|>"]
CONFIG = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True}


def byte_level() -> str:
    """Special tokens 0..3, then one token a byte, then the merge " a"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIAL, *alphabet, "Ġa"])}
    core = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "a")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    return str(core.to_str())


def byte_fallback() -> str:
    """A sentencepiece kind: words begin with a mark that is a space, bytes as <0xNN>."""
    vocab = {t: i for i, t in enumerate(["<unk>", "▁a", "▁b", "c", *(f"<0x{b:02X}>" for b in range(256))])}
    core = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return str(core.to_str())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(byte_level(), CONFIG, TEMPLATE)


def test_encode_begins_with_bos_as_the_config_says(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("hi")[0] == 0
    assert tokenizer.encode("hi", special=False) == tokenizer.encode("hi")[1:]
    assert Tokenizer(byte_level(), {**CONFIG, "add_bos_token": False}).encode("hi") == tokenizer.encode("hi")[1:]
    assert Tokenizer(byte_level(), {}).encode("hi") == tokenizer.encode("hi")[1:]  # no post processor either
    assert tokenizer.decode(tokenizer.encode("a ä 漢 🐶")) == "a ä 漢 🐶"
    assert tokenizer.decode([0, *tokenizer.encode("x", False)], skip_special=False) == "<s>x"
    assert tokenizer.vocab_size == 4 + 256 + 1


def test_a_bos_that_is_no_token() -> None:
    with pytest.raises(DlavmError, match="bos_token: .*got '<nope>'"):
        Tokenizer(byte_level(), {"bos_token": "<nope>", "add_bos_token": True}).encode("hi")


def test_text_that_is_none(tokenizer: Tokenizer) -> None:
    with pytest.raises(DlavmError, match="Unicode"):
        tokenizer.encode("\udcff")


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense"])
def test_broken_tokenizer_files(text: str) -> None:
    with pytest.raises(DlavmError, match="somewhere: expected a tokenizer that the"):
        Tokenizer(text, {}, None, "somewhere")


class TestStream:
    def test_characters_come_out_whole(self, tokenizer: Tokenizer) -> None:
        decoder = StreamDecoder(tokenizer)
        pieces = [decoder.push(token) for token in tokenizer.encode("ä🐶x", special=False)]
        assert pieces == ["", "ä", "", "", "", "🐶", "x"]
        assert decoder.flush() == ""

    def test_an_unfinished_character_is_flushed(self, tokenizer: Tokenizer) -> None:
        decoder = StreamDecoder(tokenizer)
        ids = tokenizer.encode("x🐶", special=False)[:-1]
        assert [decoder.push(token) for token in ids] == ["x", "", "", ""]
        assert decoder.flush() == "\ufffd"
        assert decoder.flush() == ""

    def test_special_tokens_are_skipped_or_shown(self, tokenizer: Tokenizer) -> None:
        ids = [0, *tokenizer.encode("x a", False), 1]
        hidden, shown = StreamDecoder(tokenizer), StreamDecoder(tokenizer, skip_special=False)
        assert "".join(hidden.push(token) for token in ids) == "x a"
        assert "".join(shown.push(token) for token in ids) == "<s>x a</s>"

    def test_spaces_of_a_decoder_that_strips_the_first(self) -> None:
        fallback = Tokenizer(byte_fallback(), {})
        decoder = StreamDecoder(fallback)
        dog = [4 + b for b in "🐶".encode()]
        assert [decoder.push(token) for token in [1, 2, 3, 1]] == ["a", " b", "c", " a"]
        assert [decoder.push(token) for token in [*dog, 2]] == ["", "", "", "🐶", " b"]


class TestTemplate:
    def test_rendering(self, tokenizer: Tokenizer) -> None:
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
        assert tokenizer.render(messages, False) == "<s><|user|>hi<|assistant|>yo</s>"
        assert tokenizer.render(messages[:1]) == "<s><|user|>hi<|assistant|>"
        assert tokenizer.chat_ids(messages[:1])[:2] == [0, 2]
        assert tokenizer.chat_ids(messages[:1])[-1] == 3

    def test_prompts(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.prompt_ids("hi") == tokenizer.chat_ids([{"role": "user", "content": "hi"}])
        assert tokenizer.prompt_ids("hi", raw=True) == tokenizer.encode("hi")
        assert Tokenizer(byte_level(), CONFIG).prompt_ids("hi") == tokenizer.encode("hi")

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("{{ raise_exception('only pairs') }}", "only pairs"),
            ("{% for %}", "chat template"),
            ("{{ messages[0].__class__.__mro__ }}", "chat template"),
            ("{{ messages.append(1) }}", "chat template"),
            ("{{ 1 / 0 }}", "division"),
            ("{{ messages[7].content }}", "chat template"),
        ],
    )
    def test_templates_that_refuse(self, template: str, message: str) -> None:
        with pytest.raises(DlavmError, match=message):
            Tokenizer(byte_level(), CONFIG, template).prompt_ids("hi")

    def test_what_templates_rely_on(self) -> None:
        template = "{%- for m in messages %}{% break %}{% endfor %}\n{{ {'ä': 1} | tojson }}"
        tokenizer = Tokenizer(byte_level(), CONFIG, template)
        assert tokenizer.render([{"role": "user", "content": "x"}]).strip() == '{"ä": 1}'

    def test_no_template(self) -> None:
        with pytest.raises(DlavmError, match="chat template, got none"):
            Tokenizer(byte_level(), CONFIG).chat_ids([])


def test_the_tokenizer_of_an_artifact(tmp_path: Path) -> None:
    source = tmp_path / "t"
    source.mkdir()
    (source / "tokenizer.json").write_text(byte_level())
    config: dict[str, Any] = {**CONFIG, "chat_template": TEMPLATE}
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(write(tmp_path / "a", tokenizer=source))
    assert tokenizer is not None
    assert tokenizer.prompt_ids("hi")[:2] == [0, 2]
    artifact: Artifact = write(tmp_path / "b")
    assert load_tokenizer(artifact) is None


def test_the_bundled_model(repository: Path, tmp_path: Path) -> None:
    folder = repository / "models" / "stories"
    tokenizer = load_tokenizer(write(tmp_path / "a", tokenizer=folder))
    assert tokenizer is not None
    cases = json.loads((folder / "golden_greedy.json").read_text())["cases"]
    for case in cases:
        assert tokenizer.prompt_ids(case["text"], raw=case["kind"] != "chat") == case["prompt_ids"]
        decoder = StreamDecoder(tokenizer)
        assert "".join(map(decoder.push, case["greedy_ids"])) + decoder.flush() == tokenizer.decode(case["greedy_ids"])
