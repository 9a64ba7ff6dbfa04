"""Tokenizers made of vocab.json and merges.txt, and what is said of directories that have none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, trainers

from dlavm.frontend.hf_tokenizer import KINDS, QWEN2_PIECES, tokenizer_of

TEXT = ["It's 1234 dogs; they'll   bark.\n\n\tÉtude n° 5: naïve", "déjà vu, cafe\u0301 été", "  if x == 10:\r\n    y"]
STOP = "<|endoftext|>"
DIGITS = [f"word{n} n{n * 37}" for n in range(400)]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A directory with vocab.json and merges.txt of a small tokenizer, and these files beside them."""

    def make(**files: Any) -> Path:
        trained = tokenizers.Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trained.train_from_iterator(
            TEXT * 3 + DIGITS,
            trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, special_tokens=[STOP], show_progress=False),
        )
        trained.model.save(str(tmp_path))
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return make


def made(folder: Path, family: str = "") -> tokenizers.Tokenizer:
    found, notes = tokenizer_of(folder, family)
    assert notes == () and isinstance(found, dict)
    return tokenizers.Tokenizer.from_str(found["tokenizer.json"])


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer", "CodeGenTokenizerFast"])
def test_ids_are_those_of_transformers(name: str, folder: Callable[..., Path]) -> None:
    transformers = pytest.importorskip("transformers")
    path = folder(tokenizer_config={"tokenizer_class": name, "eos_token": STOP, "bos_token": STOP, "unk_token": STOP})
    files = {"vocab": str(path / "vocab.json"), "merges": str(path / "merges.txt")}
    theirs = getattr(transformers, name.removesuffix("Fast"))(**files, eos_token=STOP, unk_token=STOP)
    ours = made(path)
    for text in [*TEXT, f"a{STOP}b", *DIGITS[:20]]:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text, add_special_tokens=False).ids == ids, text
        assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids, clean_up_tokenization_spaces=False)


def test_the_two_kinds_cut_differently(folder: Callable[..., Path]) -> None:
    path = folder()
    gpt2, qwen2 = made(path, "gpt2"), made(path, "qwen3")
    assert gpt2.encode("1234").tokens != qwen2.encode("1234").tokens  # digit by digit
    assert qwen2.decode(qwen2.encode("cafe\u0301").ids) == "café" != gpt2.decode(gpt2.encode("cafe\u0301").ids)
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN2_PIECES), behavior="isolated")
    assert [piece for piece, _ in split.pre_tokenize_str("n 12")] == ["n", " ", "1", "2"]
    assert normalizers.NFC().normalize_str("cafe\u0301") == "café"


def test_added_tokens_keep_their_ids(folder: Callable[..., Path]) -> None:
    path = folder(added_tokens={"<|im_start|>": 600, "<|im_end|>": 601}, tokenizer_config={"eos_token": "<|im_end|>"})
    size = made(path, "qwen2").get_vocab_size()
    assert made(path, "qwen2").encode("<|im_start|>a<|im_end|>").ids[0] == 600 and size == 602
    decoder = {"602": {"content": "<tool>", "special": False}, "600": {"content": "<|im_start|>", "special": True},
               "601": {"content": "<|im_end|>", "special": True}}  # fmt: skip
    path = folder(tokenizer_config={"added_tokens_decoder": decoder})
    core = made(path, "qwen2")
    ids = core.encode("<|im_start|><tool><|im_end|>").ids
    assert ids == [600, 602, 601] and core.decode(ids, skip_special_tokens=True) == "<tool>"


def test_other_files_come_along(folder: Callable[..., Path]) -> None:
    path = folder(generation_config={"temperature": 0.5})
    (path / "chat_template.jinja").write_text("{{ messages }}")
    found, _ = tokenizer_of(path, "gpt2")
    assert isinstance(found, dict) and json.loads(found["generation_config.json"]) == {"temperature": 0.5}
    assert found["chat_template.jinja"] == "{{ messages }}"


def test_a_tokenizer_json_is_taken_as_it_is(folder: Callable[..., Path]) -> None:
    path = folder()
    (path / "tokenizer.json").write_text("{}")
    assert tokenizer_of(path) == (path, ())


def note(path: Path, family: str = "gpt2") -> str:
    found, notes = tokenizer_of(path, family)
    assert found is None and len(notes) == 1 and notes[0].startswith("without a tokenizer, so that it takes and gives")
    return notes[0]


def test_what_is_missing_is_said(folder: Callable[..., Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert tokenizer_of(empty) == (None, ())
    (empty / "tokenizer.model").write_bytes(b"\n")
    assert "expected tokenizer.json, or vocab.json and merges.txt, got tokenizer.model" in note(empty)
    assert "; transformers makes one: AutoTokenizer.from_pretrained(" in note(empty)
    path = folder()
    assert "tokenizer_class expected one of ['GPT2Tokenizer', " in note(path, "llama")
    (path / "merges.txt").unlink()
    assert "got vocab.json alone" in note(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens": {"<x>": 700}}, "added token '<x>' expected the next free id, 600, got 700"),
        ({"added_tokens": {"<x>": "1"}}, "added_tokens.json expected ids, got '<x>': '1'"),
        ({"tokenizer_config": {"added_tokens_decoder": {"a": {}}}}, "added_tokens_decoder expected tokens by id"),
        ({"tokenizer_config": {"tokenizer_class": "BertTokenizer"}}, "tokenizer_class expected .* got 'BertTokenizer'"),
        ({"tokenizer_config": []}, "expected a JSON object"),
        ({"vocab": {"a": 0}}, "vocab.json: expected a vocabulary that fits merges.txt, got"),
        ({"vocab": "x"}, "vocab.json: expected a vocabulary that fits merges.txt, got"),
    ],
)
def test_files_that_are_wrong(files: dict[str, Any], message: str, folder: Callable[..., Path]) -> None:
    assert re.search(message, note(folder(**files)))


def test_every_kind_makes_a_tokenizer() -> None:
    for prepare in KINDS.values():
        core = tokenizers.Tokenizer(models.BPE())
        prepare(core, True)
        core.add_tokens([AddedToken("x")])
        assert core.pre_tokenizer is not None
