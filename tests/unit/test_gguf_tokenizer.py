"""Tokenizers from the metadata of GGUF files: the ids of the tokenizer that they were made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.frontend.gguf_metadata import Metadata
from dlavm.frontend.gguf_tokenizer import SPLITTINGS, tokenizer_files
from dlavm.runtime.tokens import Tokenizer, folder_tokenizer, text_tokenizer
from dlavm.support.errors import DlavmError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
SAMPLES = [
    "Once upon a time, there was a little dog.", " two  spaces and a tab\t, lines\n\n and 12345 numbers", "it's we'LL",
    "naïve café, Übergröße, 漢字 and 🙂🙃", "<s>not special</s>", "", " ", "x" * 50, "a.b,c!d?e(f)g",
]  # fmt: skip


def meta(**fields: Any) -> Metadata:
    named = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    return Metadata(Path("a.gguf"), {"general.architecture": "llama", **named})


def made(metadata: Metadata) -> Tokenizer:
    return text_tokenizer(tokenizer_files(metadata), "made")


def spelled(core: dict[str, Any]) -> tuple[list[str], list[int]]:
    """Tokens of a tokenizer.json by id and their types."""
    special = {added["id"]: added["content"] for added in core["added_tokens"]}
    names = {number: token for token, number in core["model"]["vocab"].items()} | special
    tokens = [names[number] for number in range(len(names))]
    kinds = [CONTROL if n in special else BYTE if t.startswith("<0x") else NORMAL for n, t in enumerate(tokens)]
    return tokens, kinds


def byte_level(path: Path, pre: str = "gpt-2", **fields: Any) -> Metadata:
    core = json.loads(path.read_text())
    tokens, kinds = spelled(core)
    merges = [m if isinstance(m, str) else " ".join(m) for m in core["model"]["merges"]]
    return meta(model="gpt2", pre=pre, tokens=tokens, token_type=np.array(kinds, np.int32), merges=merges, **fields)


def test_byte_level(repository: Path) -> None:
    folder = repository / "models" / "stories"
    original = folder_tokenizer(folder)
    metadata = byte_level(folder / "tokenizer.json", bos_token_id=0, eos_token_id=1, add_bos_token=True)
    tokenizer = made(metadata)
    for text in SAMPLES:
        assert tokenizer.encode(text) == original.encode(text)
        ids = original.encode(text)
        assert tokenizer.decode(ids) == original.decode(ids)
    assert tokenizer.bos_token == original.bos_token and tokenizer.vocab_size == original.vocab_size


def sentence_piece(path: Path, **fields: Any) -> Metadata:
    """Scores as SentencePiece gives them: a token made later has a lower one."""
    core = json.loads(path.read_text())
    tokens, kinds = spelled(core)
    kinds[core["model"]["vocab"][core["model"]["unk_token"]]] = UNKNOWN
    scores = [-float(number) if kind == NORMAL else 0.0 for number, kind in enumerate(kinds)]
    return meta(model="llama", tokens=tokens, token_type=np.array(kinds, np.int32), bos_token_id=1, eos_token_id=2,
                unknown_token_id=0, scores=np.array(scores, np.float32), **fields)  # fmt: skip


def test_sentence_piece(shared: Path) -> None:
    folder = shared / "models" / "stories260K"
    original, tokenizer = folder_tokenizer(folder), made(sentence_piece(folder / "tokenizer.json"))
    text = (shared / "models" / "stories" / "heldout.txt").read_text()[:20000]
    for sample in [*SAMPLES, text]:
        ids = original.encode(sample)
        assert tokenizer.encode(sample) == ids and tokenizer.decode(ids) == original.decode(ids)
    assert tokenizer.encode("Once")[0] == 1  # bos by default


def merged(text: str, metadata: Metadata) -> list[int]:
    """SentencePiece BPE as it is defined: of all neighbours that are a token together, those of the best score, the
    first of equal ones, become one, until there are none; what is no token then is spelled in bytes."""
    tokens, scores = metadata.texts(".tokenizer.ggml.tokens"), metadata.values["tokenizer.ggml.scores"]
    ids = {token: number for number, token in enumerate(tokens)}
    pieces = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [
            (-scores[ids[a + b]], i) for i, (a, b) in enumerate(zip(pieces, pieces[1:], strict=False)) if a + b in ids
        ]
        if not pairs:
            break
        at = min(pairs)[1]
        pieces[at : at + 2] = ["".join(pieces[at : at + 2])]
    spelled = ([ids[p]] if p in ids else [ids[f"<0x{byte:02X}>"] for byte in p.encode()] for p in pieces)
    return [number for part in spelled for number in part]


def test_sentence_piece_by_its_definition() -> None:
    """Scores that are not in the order of the ids, tokens that cannot be reached, and other characters."""
    words = ["▁", "a", "b", "c", "d", "ab", "bc", "cd", "abc", "bcd", "▁a", "▁ab", "abcd", "▁abcd", "dd", "cdd", "zz"]
    rng = np.random.default_rng(3)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(words)]
    scores = np.concatenate([np.zeros(259), -rng.permutation(len(words))]).astype(np.float32)
    metadata = meta(model="llama", tokens=tokens, token_type=np.array(kinds), scores=scores, bos_token_id=1)
    tokenizer = made(metadata)
    for _ in range(300):
        text = "".join(rng.choice(list("abcd é"), rng.integers(1, 12)))
        assert tokenizer.encode(text, special=False) == merged(text, metadata)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokens_of_users_and_control_tokens() -> None:
    tokens = ["<s>", "<|im_end|>", "<think>", "  ", "a", "b", "Ġ", "ab"]
    kinds = np.array([CONTROL, CONTROL, USER, USER, NORMAL, NORMAL, NORMAL, NORMAL])
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    metadata = meta(model="gpt2", pre="gpt-2", tokens=tokens, token_type=kinds, merges=["a b"], eos_token_id=1)
    metadata.values = {**metadata.values, "tokenizer.chat_template": template}
    tokenizer = made(metadata)
    assert tokenizer.encode("ab<think>a  b<|im_end|>") == [7, 2, 4, 3, 5, 1]  # no bos: the metadata name none
    assert tokenizer.decode([7, 2, 4, 1]) == "ab<think>a"
    assert tokenizer.chat_ids([{"role": "user", "content": "ab"}]) == [7, 1]


QWEN = "qwen2"


def test_patterns_of_qwen2_and_llama3(shared: Path) -> None:
    folder = shared / "data" / "tokenizers" / "qwen2"
    if not (folder / "vocab.json").is_file():
        pytest.skip("no vocabulary of qwen2")
    transformers = pytest.importorskip("transformers")
    original = transformers.AutoTokenizer.from_pretrained(folder)
    core = json.loads(original.backend_tokenizer.to_str())
    tokens, kinds = spelled(core)
    merges = [m if isinstance(m, str) else " ".join(m) for m in core["model"]["merges"]]
    tokenizer = made(meta(model="gpt2", pre="qwen2", tokens=tokens, token_type=np.array(kinds), merges=merges))
    text = (shared / "data" / "wikitext-2" / "wiki.test.raw").read_text()[:30000]
    for sample in [*SAMPLES, text]:
        assert tokenizer.encode(sample) == original(sample)["input_ids"]


@pytest.mark.parametrize("pre", SPLITTINGS)
def test_every_splitting_covers_every_text(pre: str, repository: Path) -> None:
    tokenizer = made(byte_level(repository / "models" / "stories" / "tokenizer.json", pre))
    for text in SAMPLES:
        assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text


GPT2 = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab"], "merges": ["a b"]}
LLAMA = {"model": "llama", "tokens": ["a", "b", "ab"], "scores": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "tokenizer.ggml.model expected a tokenizer in the metadata, got None"),
        ({**GPT2, "model": "rwkv"}, r"tokenizer.ggml.model expected one of \('gpt2', 'llama'\), got 'rwkv'"),
        ({**GPT2, "model": 3}, "tokenizer.ggml.model expected a text, got 3"),
        ({**GPT2, "pre": "klingon"}, "tokenizer.ggml.pre expected one of .*, got 'klingon'"),
        ({**GPT2, "tokens": 3}, "tokenizer.ggml.tokens expected an array of texts, got 3"),
        ({**GPT2, "tokens": ["a", "b", "a"]}, "tokenizer.ggml.tokens expected tokens once, got 'a' twice"),
        ({**GPT2, "token_type": np.ones(2, np.int32)}, "tokenizer.ggml.token_type expected an array of 3 integers"),
        ({**GPT2, "merges": ["ab"]}, "merge 0 expected two tokens and a space, got 'ab'"),
        ({**GPT2, "merges": ["a c"]}, "tokenizer expected one that the tokenizers library takes"),
        ({**GPT2, "bos_token_id": 3}, "tokenizer.ggml.bos_token_id expected an id below 3, got 3"),
        ({**GPT2, "eos_token_id": -1}, "tokenizer.ggml.eos_token_id expected an integer of at least 0, got -1"),
        ({**LLAMA, "scores": np.zeros(4, np.float32)}, "tokenizer.ggml.scores expected an array of 3 floats"),
        ({**LLAMA, "scores": np.full(3, np.nan, np.float32)}, "tokenizer.ggml.scores expected finite numbers"),
        ({**LLAMA, "add_space_prefix": 1}, "tokenizer.ggml.add_space_prefix expected true or false, got 1"),
    ],
)
def test_metadata_that_are_wrong(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DlavmError, match=f"^a.gguf: {complaint}"):
        tokenizer_files(meta(**fields))
